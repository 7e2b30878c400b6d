"""Attack outcomes: answers before and after each attack, of the unlearned model and references."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

from pydantic import TypeAdapter

from unsee.attacks import VARIANT, AttackerData, Chain, Subject, label, required_data
from unsee.data.selection import evenly_spaced
from unsee.errors import DataError
from unsee.evaluation.bootstrap import estimate
from unsee.evaluation.equivalence import person_scores
from unsee.evaluation.evaluate import evaluate
from unsee.metrics import normalize_answer
from unsee.models.vlm import VLM
from unsee.progress import Bar
from unsee.records.folder import jsonable
from unsee.records.schema import (
    AnswerComparison,
    AttackAnswers,
    AttackedModel,
    AttackOutcome,
    Reading,
)
from unsee.runs.stage_cache import StageCache
from unsee.types import AnswerLimit, Sample

# Retain questions per model and attack: enough to see what an attack costs elsewhere.
MAX_RETAIN_QUESTIONS = 60

SPLITS = {"forget": "forget_holdout", "retain": "retain_holdout"}


@dataclass(frozen=True)
class ScoredAnswer:
    """Whether the true answer to a question was given.

    Attributes:
        id: The question.
        concept: Whom it is about.
        score: 1 for the true answer, else 0; None if the answer is broken and so unscored.
    """

    id: str
    concept: str
    score: float | None


# By "forget" and "retain".
Answers = Mapping[str, Sequence[ScoredAnswer]]

ANSWERS = TypeAdapter(dict[str, list[ScoredAnswer]])
ATTACKED_MODEL = TypeAdapter(AttackedModel)


def attack_outcomes(
    chains: Sequence[Chain],
    models: Mapping[str, Callable[[], VLM]],
    attacker: AttackerData,
    splits: Mapping[str, Sequence[Sample]],
    cache: StageCache,
    bar: Bar,
    max_new_tokens: AnswerLimit | None = None,
    rules: Mapping[str, str] | None = None,
) -> dict[str, tuple[AttackOutcome, ...]]:
    """Runs every chain of attacks on every model; returns the outcomes by chain.

    Args:
        chains: Attacks, each applied to what the one before it returns.
        models: Load each model, by name; "unlearned" is the one that is judged.
        attacker: The samples that the attacker has.
        splits: Held-out questions with a picture and a true answer: all of "forget_holdout", and
            up to `MAX_RETAIN_QUESTIONS` of "retain_holdout", evenly spread.
        cache: Keeps each model's outcome.
        bar: Shows each attack's progress.
        max_new_tokens: Maximum number of generated tokens per answer; None leaves room for the
            longest true answer.
        rules: How metrics score, where it is not their default.
    """
    # From photographs alone no sample has an answer, and no attack asks for one.
    answered = any(s.answer for name in SPLITS.values() for s in splits.get(name, ()))
    questions = {
        name: [s for s in splits[name] if s.picture is not None and (s.answer or not answered)]
        for name in SPLITS.values()
        if name in splits
    }
    if "retain_holdout" in questions:
        questions["retain_holdout"] = evenly_spaced(
            questions["retain_holdout"], MAX_RETAIN_QUESTIONS, "ceil"
        )

    def attack_model(chain: Chain, name: str) -> AttackedModel:
        known = {"target": models["target"]()} if "target" in required_data([chain]) else {}
        subject = Subject(
            models[name](),
            questions,
            attacker.forget,
            attacker.retain,
            attacker.non_members,
            **known,
        )
        started = time.perf_counter()
        outcome: dict[str, Any] = {}
        if chain[-1].reads:
            outcome["readings"] = read_leakage(subject, chain)
        if chain[-1].asks:
            before = cache.get_or_compute(
                ANSWERS,
                "chain-start",
                name,
                lambda: scored_answers(subject, max_new_tokens, rules),
            )
            after = scored_answers(apply_attacks(subject, chain), max_new_tokens, rules)
            outcome["answers"] = compare_answers(before, after)
        return AttackedModel(**outcome, seconds=time.perf_counter() - started)

    outcomes: dict[str, tuple[AttackOutcome, ...]] = {}
    for index, chain in enumerate(chains):
        attacked = {}
        for name in models:
            bar.stage(f"{label(chain)}: {name.replace('_', '-')}")
            attacked[name] = cache.get_or_compute(
                ATTACKED_MODEL,
                f"chain-{index}",
                name,
                partial(attack_model, chain, name),
                chain,
            )
        outcome = AttackOutcome(
            access=tuple(attack.access for attack in chain),
            parameters={attack.name: jsonable(asdict(attack)) for attack in chain},  # type: ignore[call-overload]
            models=attacked,
        )
        outcomes[label(chain)] = (*outcomes.get(label(chain), ()), outcome)
    return outcomes


def apply_attacks(subject: Subject, chain: Chain) -> Subject:
    """Returns the subject after all attacks, one after the other."""
    for attack in chain:
        subject = attack.apply(subject)
    return subject


def read_leakage(subject: Subject, chain: Chain) -> tuple[Reading, ...]:
    """Returns what the last attack reads off the model after those before it."""
    subject = apply_attacks(subject, chain[:-1])
    return tuple(Reading(**asdict(reading)) for reading in chain[-1].readings(subject))


def scored_answers(
    subject: Subject,
    max_new_tokens: AnswerLimit | None = None,
    rules: Mapping[str, str] | None = None,
) -> dict[str, list[ScoredAnswer]]:
    """Asks a subject's questions; returns the scored answers by "forget" and "retain".

    Args:
        subject: The model and its questions.
        max_new_tokens: As in `attack_outcomes`.
        rules: As in `attack_outcomes`.
    """
    answers: dict[str, list[ScoredAnswer]] = {}
    for side, split in SPLITS.items():
        samples = list(subject.samples.get(split, ()))
        rows = evaluate(
            subject.vlm,
            {split: samples},
            metrics=["accuracy"],
            max_new_tokens=max_new_tokens,
            rules=rules,
        ).rows
        answers[side] = [
            ScoredAnswer(sample.id, sample.concept or sample.id, gives_true_answer(row))
            for sample, row in zip(samples, rows, strict=True)
        ]
    return answers


def gives_true_answer(row: Mapping[str, Any]) -> float | None:
    """Returns 1 if the true answer is given: word for word, by its letter, or within a sentence.

    None if the answer is broken (see `unsee.metrics.Output`) and could not be scored.
    """
    accuracy: float | None = row["scores"]["accuracy"]
    if row["task"] in ("classification", "ranking") or row.get("fault") == "non_finite":
        return accuracy
    # A model that is talked into answering seldom answers with the bare sentence.
    if normalize_answer(row["truth"]) in normalize_answer(row["output"]):
        return 1.0
    return accuracy


def compare_answers(before: Answers, after: Answers) -> AttackAnswers:
    """Compares answers before and after an attack, over the questions that are still asked.

    Of several variants of one question, `after` is their mean, and `any` counts the question as
    answered if one of them is.

    Raises:
        DataError: If a question was not asked before the attack.
    """
    return AttackAnswers.model_validate(
        {side: _compare(before[side], answers) for side, answers in after.items()}
    )


def _compare(
    before: Sequence[ScoredAnswer], after: Sequence[ScoredAnswer]
) -> AnswerComparison | None:
    originals = {answer.id: answer for answer in before}
    by_question: dict[str, list[float]] = {}
    by_variant: dict[str, list[float]] = {}
    for answer in after:
        question, variant = _question_and_variant(answer.id, originals)
        if answer.score is None or originals[question].score is None:
            continue
        by_question.setdefault(question, []).append(answer.score)
        if variant:
            by_variant.setdefault(variant, []).append(answer.score)
    if not by_question:
        return None
    asked = [originals[question] for question in by_question]
    means = [sum(scores) / len(scores) for scores in by_question.values()]
    concepts = [answer.concept for answer in asked]
    share = estimate(means, concepts, "lower")
    people = person_scores(means, concepts)
    return AnswerComparison(
        before=sum(answer.score or 0.0 for answer in asked) / len(asked),
        after=share.value,
        low=share.low,
        high=share.high,
        any=sum(max(scores) for scores in by_question.values()) / len(by_question),
        n=len(by_question),
        variants={name: sum(scores) / len(scores) for name, scores in by_variant.items()},
        by_person=dict(people.by_person),
        resolution=people.resolution,
    )


def _question_and_variant(sample_id: str, originals: Mapping[str, ScoredAnswer]) -> tuple[str, str]:
    """Splits a variant's id into the id of its question and the variant's name."""
    names: list[str] = []
    while sample_id not in originals:
        sample_id, separator, name = sample_id.rpartition(VARIANT)
        if not separator:
            raise DataError(f"'{name}' is the id of no question that was asked before the attack.")
        names.insert(0, name)
    return sample_id, ", ".join(names)
