"""The gallery: people with their pictures, and the answers of each model."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection
from dataclasses import dataclass

from unsee.metrics.letters import contains_words
from unsee.records.reader import Run
from unsee.records.schema import GalleryEntry
from unsee.report.embedded_images import Embedded, embed

# Nobody looks at more people than this; the record holds the rest.
MAX_PEOPLE = 12


@dataclass(frozen=True)
class Answer:
    """A question with its true answer and the answers of the models.

    Attributes:
        question: The question.
        truth: The true answer.
        answers: Model, its CSS class, its answer, and whether that is the true one.
    """

    question: str
    truth: str
    answers: list[tuple[str, str, str, bool]]


@dataclass(frozen=True)
class Person:
    """A card of the gallery."""

    name: str
    kind: str
    picture: Embedded
    alt: str
    answers: list[Answer]


def gallery(run: Run) -> tuple[list[Person], int]:
    """Returns the cards, forgotten people first, and the number of cards that were left out.

    Without a gallery in the record, one is made from the per-sample scores.
    """
    if run.summary.redacted:
        # Without questions, answers and pictures a card would show nothing.
        return [], 0
    entries = list(run.summary.gallery or ()) or _from_scores(run)
    cards: dict[tuple[str, str | None, str | None], list[GalleryEntry]] = {}
    for entry in entries:
        kind = kind_of(entry.split, run.summary.forgetting)
        cards.setdefault((kind, entry.picture, entry.concept), []).append(entry)
    people = []
    hidden = 0
    for kind in ("forgotten", "kept", "others", "general"):
        chosen = [item for item in cards.items() if item[0][0] == kind]
        hidden += max(0, len(chosen) - MAX_PEOPLE)
        people += [_person(run, *item) for item in chosen[:MAX_PEOPLE]]
    return people, hidden


def kind_of(split: str, forgetting: Collection[str] = ()) -> str:
    """Whether a split shows forgotten, kept or other people, or asks general questions."""
    if split in forgetting or split.startswith("forget"):
        return "forgotten"
    return next((kind for kind in ("general", "others") if split.startswith(kind)), "kept")


def same(answer: str, truth: str) -> bool:
    """Whether two answers are equal except for case, spaces and the final full stop."""
    return _bare(answer) == _bare(truth)


def _bare(text: str) -> str:
    return re.sub(r"\s+", " ", text).strip().rstrip(".").casefold()


def _person(
    run: Run, key: tuple[str, str | None, str | None], entries: list[GalleryEntry]
) -> Person:
    kind, picture, concept = key
    name = concept or ("General questions" if kind == "general" else "Unnamed")
    answers = []
    for entry in entries:
        # Where only photographs were given, an answer that says it among other things counts.
        is_right = contains_words if run.summary.recognition is not None else same
        answers.append(Answer(entry.question, entry.truth, _said(entry, kind, is_right)))
    held_out = "held-out picture" if entries[0].split.endswith("holdout") else "picture"
    shown = embed(picture, run.folder, entries[0].picture_sha256)
    return Person(name, kind, shown, f"A {held_out} of {name}", answers)


def _said(
    entry: GalleryEntry, kind: str, is_right: Callable[[str, str], bool]
) -> list[tuple[str, str, str, bool]]:
    """The models' answers, as one line if all are the same."""
    said = (
        ("Before", "target", entry.before),
        ("After", "unlearned", entry.after),
        ("Never saw them" if kind == "forgotten" else "Reference", "reference", entry.reference),
    )
    given = [(m, style, a, is_right(a, entry.truth)) for m, style, a in said if a is not None]
    if len(given) > 1 and len({answer for _, _, answer, _ in given}) == 1:
        label = "All models" if len(given) == len(said) else " and ".join(m for m, *_ in given)
        return [(label.capitalize(), "unlearned", *given[0][2:])]
    return given


def _from_scores(run: Run) -> list[GalleryEntry]:
    """A few questions per person, about held-out pictures if there are any."""
    names = {"target": "before", "unlearned": "after", "reference": "reference"}
    found: dict[tuple[str, str], dict[str, str | None]] = {}
    for score in run.scores():
        if score.modality != "vqa" or score.model not in names:
            continue
        row = found.setdefault(
            (score.split, score.id),
            {
                "concept": score.concept,
                "split": score.split,
                "picture": score.picture,
                "question": score.question,
                "truth": score.truth,
            },
        )
        row[names[score.model]] = score.output
    chosen: list[GalleryEntry] = []
    splits = {split for split, _ in found}
    for base, most in (("forget", 4), ("retain", 4), ("general", 2)):
        split = f"{base}_holdout" if f"{base}_holdout" in splits else base
        taken: dict[str | None, list[GalleryEntry]] = {}
        for (own, _), row in found.items():
            entry = GalleryEntry.model_validate(row)
            if own != split or (entry.concept not in taken and len(taken) == most):
                continue
            held = taken.setdefault(entry.concept, [])
            # A card shows one picture of a person and the answers about it.
            if len(held) < 3 and (not held or held[0].picture == entry.picture):
                held.append(entry)
        chosen += [entry for held in taken.values() for entry in held]
    return chosen
