"""Cross-modal questions: the same facts, asked by name and without the picture."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal

from unsee.attacks import ATTACKS, Attack, Subject, map_questions
from unsee.types import Sample


@ATTACKS.register("cross_modal", source="arXiv 2610.10358")
@dataclass(frozen=True)
class CrossModal(Attack):
    """Cross-modal questions: the name stands for the picture, and the same fact is asked.

    Who is forgotten by sight is still known by name, by design of visual unlearning: hold the
    answers against the visual-retain reference, which has read everything too.

    Source: the cross-modality attack of Open-MMUnlearning, arXiv 2610.10358.
    Differs: questions for the name itself, which the name would answer, are left out.

    Attributes:
        phrases: What the name is put in place of, the first that a question holds; a question
            without any begins "About NAME: ". Without phrases nothing is done.
        cues: What points at the picture, and is taken out.
    """

    access: ClassVar[Literal["black_box", "white_box"]] = "black_box"
    zero_budget: ClassVar[Mapping[str, Any]] = {"phrases": ()}

    phrases: tuple[str, ...] = (
        "the person in the picture", "the person in this picture", "the person in the image",
        "the person in this image", "the person in the photo", "the person shown here",
        "the person shown", "the individual in the image", "the individual in this image",
        "this person", "this individual", "the person", "the individual",
    )  # fmt: skip
    cues: tuple[str, ...] = ("Look at the picture.", "Look at the image.", "<image>")

    def apply(self, subject: Subject) -> Subject:
        """The subject asked by name; what has no name to ask by is left out."""
        return map_questions(subject, self._by_name) if self.phrases else subject

    def _by_name(self, sample: Sample) -> list[Sample]:
        if sample.picture is None:
            return [sample]
        if not sample.concept or asks_name(sample):
            return []
        question = sample.question
        for cue in self.cues:
            question = question.replace(cue, "").strip()
        for phrase in self.phrases:
            named, count = re.subn(
                re.escape(phrase), lambda _: str(sample.concept), question, flags=re.IGNORECASE
            )
            if count:
                break
        else:
            named = f"About {sample.concept}: {question}"
        return [replace(sample, question=named, picture=None, further=())]


def asks_name(sample: Sample) -> bool:
    """Whether the true answer is who it is, and not something about them."""
    name = (sample.concept or "").casefold()
    offered = name in (choice.casefold() for choice in sample.choices)
    asked = sample.question.splitlines()[0] if sample.question else ""
    named = name in sample.answer.casefold() and re.search(r"\b(who|names?|called)\b", asked, re.I)
    return offered or bool(named) or sample.answer.strip(" .").casefold() == name
