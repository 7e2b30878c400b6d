"""The gallery: people with their pictures, and what each model answered before and after."""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass

from unsee.records.reader import Run
from unsee.records.schema import GalleryEntry
from unsee.report.embedded_images import Embedded, embed

# A page of more faces than this is not looked at; the record holds the rest.
MOST = 12


@dataclass(frozen=True)
class Answer:
    """A question with its true answer and what the models said.

    Attributes:
        answers: (model as the page names it, its class, its answer, whether that is the truth).
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
    """The cards, forgotten people first, and how many were left out.

    Where the record names no gallery, one is made of the per-sample scores.
    """
    entries = list(run.summary.gallery or ()) or _from_scores(run)
    cards: dict[tuple[str, str | None, str | None], list[GalleryEntry]] = {}
    for entry in entries:
        kind = kind_of(entry.split, run.summary.forgetting)
        cards.setdefault((kind, entry.picture, entry.concept), []).append(entry)
    people = []
    hidden = 0
    for kind in ("forgotten", "kept", "general"):
        chosen = [item for item in cards.items() if item[0][0] == kind]
        hidden += max(0, len(chosen) - MOST)
        people += [_person(run, *item) for item in chosen[:MOST]]
    return people, hidden


def kind_of(split: str, forgetting: Collection[str] = ()) -> str:
    """Whether a split's pictures show forgotten or kept people, or are general questions."""
    if split in forgetting or split.startswith("forget"):
        return "forgotten"
    return "general" if split.startswith("general") else "kept"


def same(answer: str, truth: str) -> bool:
    """Whether an answer is the truth, but for case, spaces and the final stop."""
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
        answers.append(Answer(entry.question, entry.truth, _said(entry, kind)))
    held_out = "held-out picture" if entries[0].split.endswith("holdout") else "picture"
    return Person(name, kind, embed(picture, run.folder), f"A {held_out} of {name}", answers)


def _said(entry: GalleryEntry, kind: str) -> list[tuple[str, str, str, bool]]:
    """The models' answers; in one line where all models say the same."""
    said = (
        ("Before", "target", entry.before),
        ("After", "unlearned", entry.after),
        ("Never saw them" if kind == "forgotten" else "Reference", "reference", entry.reference),
    )
    given = [(m, style, a, same(a, entry.truth)) for m, style, a in said if a is not None]
    if len(given) > 1 and len({answer for _, _, answer, _ in given}) == 1:
        label = "All models" if len(given) == len(said) else " and ".join(m for m, *_ in given)
        return [(label.capitalize(), "unlearned", *given[0][2:])]
    return given


def _from_scores(run: Run) -> list[GalleryEntry]:
    """A few questions a person, from the scores of the held-out pictures or, without, of others."""
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
            # One picture a person: a card shows one face and what was said of it.
            if len(held) < 3 and (not held or held[0].picture == entry.picture):
                held.append(entry)
        chosen += [entry for held in taken.values() for entry in held]
    return chosen
