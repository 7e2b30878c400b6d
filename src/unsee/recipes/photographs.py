"""The plan of a run that is given photographs alone: what is held out, asked, and attacked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from unsee.attacks import Chain, label, required_data
from unsee.data.selection import split_holdout
from unsee.errors import ConfigError, counted, listed
from unsee.evaluation.open_answers import QUESTIONS
from unsee.recipes.attack_data import UNLEARN, available_photographs, missing_data
from unsee.recipes.job import NO_ANSWERS
from unsee.types import Data, Sample

# Photographs of a person from which some are held out; with fewer, all are needed for training.
MIN_PHOTOGRAPHS = 4

# In place of questions: asks nothing.
NOTHING = "none"

# Why an attack is not made on an image encoder, and what can be made in its place.
NO_QUESTIONS = f"{NO_ANSWERS}. prototype, probe, difference and relearn_features can be made"


def open_questions(ask: Sequence[str]) -> tuple[str, ...]:
    """Returns the questions to ask about photographs; () for none.

    Args:
        ask: As in a recipe: questions, () for `QUESTIONS`, or "none".

    Raises:
        ConfigError: If a question is empty or given twice, or "none" stands beside a question.

    Example:
        >>> open_questions(("Wer ist das?",)), open_questions(("none",))
        (('Wer ist das?',), ())
    """
    if tuple(ask) == (NOTHING,):
        return ()
    questions = tuple(question.strip() for question in ask)
    if not all(questions) or len(set(questions)) < len(questions) or NOTHING in questions:
        raise ConfigError(
            f"ask={list(ask)}: is not allowed. Give different questions, such as "
            f"'{QUESTIONS[0]}', or {NOTHING} alone to ask nothing."
        )
    return questions or QUESTIONS


def hold_out(
    data: Data, share: float, seed: int
) -> tuple[Data, dict[str, list[Sample]], list[str]]:
    """Keeps some photographs of each person out of training, to test on.

    Args:
        data: The data; samples of nobody, such as drawn faces, are not held out.
        share: Share of each person's photographs, 0..1.
        seed: Seed of the choice.

    Returns:
        The data for training, the held-out samples by split, and sentences for the user.
    """
    split = {}
    sides: dict[str, list[Sample]] = {}
    for side, samples in (("forget", data.forget), ("retain", data.retain)):
        named = [s for s in samples if s.concept and s.picture]
        used, held = split_holdout(named, share, seed, MIN_PHOTOGRAPHS)
        left_out = {id(s) for s in held}
        sides[side] = [s for s in samples if id(s) not in left_out] if used else list(samples)
        if held:
            split[f"{side}_holdout"] = held
    everyone = {str(s.concept) for s in data.forget if s.concept}
    tested = {str(s.concept) for s in split.get("forget_holdout", ())}
    notes = []
    if tested:
        pictures = {s.picture.source for s in split["forget_holdout"] if s.picture}
        notes.append(
            f"{counted(len(pictures), 'photograph')} of those to be forgotten "
            f"{'is' if len(pictures) == 1 else 'are'} kept out of training, to test on."
        )
    few = sorted(everyone - tested)
    if few:
        who = "they are tested" if len(few) > 1 else "this person is tested"
        why = (
            "holdout_share is 0"
            if share == 0
            else f"fewer than {MIN_PHOTOGRAPHS} photographs of {listed(few, most=3)}"
        )
        notes.append(f"{why}: {who} on the photographs of training, which tells less.")
    return replace(data, forget=sides["forget"], retain=sides["retain"]), split, notes


def runnable_attacks(
    attacks: Sequence[Chain],
    splits: Mapping[str, Sequence[Sample]],
    encoder: bool = False,
    non_members: Sequence[Sample] = (),
    options: Mapping[str, str] = UNLEARN,
) -> tuple[tuple[Chain, ...], dict[str, str], list[str]]:
    """Returns the attacks that photographs alone suffice for, and the others with the reason.

    Args:
        attacks: The attacks that were asked for.
        splits: The held-out samples, by split.
        encoder: Whether the model is an image encoder, which gives an attacker no answers.
        non_members: Samples about people that no model was trained on.
        options: The options that give what is missing, as in `missing_data`.

    Returns:
        The attacks to run, the reason by attack of those left out, and a sentence for each of
        these.
    """
    has = available_photographs(splits, non_members)
    chosen: list[Chain] = []
    left_out: dict[str, str] = {}
    for chain in attacks:
        reason = missing_data(chain, has, options)
        asked = chain[-1].asks or any(attack.access == "black_box" for attack in chain)
        if encoder and (asked or "answers" in required_data([chain])):
            reason = NO_QUESTIONS
        if reason is None:
            chosen.append(chain)
        else:
            left_out[label(chain)] = reason
    notes = [f"attack {name} is not made: {reason}." for name, reason in left_out.items()]
    return tuple(chosen), left_out, notes
