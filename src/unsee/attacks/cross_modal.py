"""Cross-modal questions: the same facts, asked by name instead of with a picture."""

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
    """Cross-modal questions: the picture is removed and the question names the person instead.

    Visual unlearning leaves textual knowledge in place by design, so compare the answers with those
    of the visual-retain reference, which was trained on all text.

    Source: the cross-modality attack of Open-MMUnlearning, arXiv 2610.10358.
    Differs: questions that ask for the name itself are left out, since the question would contain
    the answer.

    Attributes:
        phrases: Phrases that are replaced by the name; the first one that a question contains is
            used. A question without any of them is prefixed with "About NAME: ". Empty disables the
            attack.
        cues: Phrases that refer to the picture, which are removed.

    Example:
        >>> from unsee.attacks import Subject
        >>> from unsee.attacks.cross_modal import CrossModal
        >>> subject = Subject(vlm, {"forget_holdout": data.forget[1:2]})
        >>> data.forget[1].question
        'What does this person work as a ?'
        >>> (sample,) = CrossModal().apply(subject).samples["forget_holdout"]
        >>> sample.question, sample.picture
        ('What does Ada Berg work as a ?', None)
    """

    access: ClassVar[Literal["black_box", "white_box"]] = "black_box"
    zero_budget: ClassVar[Mapping[str, Any]] = {"phrases": ()}

    phrases: tuple[str, ...] = (
        "the person in the picture",
        "the person in this picture",
        "the person in the image",
        "the person in this image",
        "the person in the photo",
        "the person shown here",
        "the person shown",
        "the individual in the image",
        "the individual in this image",
        "this person",
        "this individual",
        "the person",
        "the individual",
    )
    cues: tuple[str, ...] = ("Look at the picture.", "Look at the image.", "<image>")

    def apply(self, subject: Subject) -> Subject:
        """Returns the subject with questions by name; questions without a concept are left out."""
        return map_questions(subject, self._by_name) if self.phrases else subject

    def _by_name(self, sample: Sample) -> list[Sample]:
        if sample.picture is None:
            return [sample]
        if not sample.concept or asks_for_name(sample):
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


def asks_for_name(sample: Sample) -> bool:
    """Whether a question asks who the person is, not for a fact about them."""
    name = (sample.concept or "").casefold()
    offered = name in (choice.casefold() for choice in sample.choices)
    first_line = sample.question.splitlines()[0] if sample.question else ""
    asks_who = re.search(r"\b(who|names?|called)\b", first_line, re.IGNORECASE)
    named = name in sample.answer.casefold() and asks_who
    return offered or bool(named) or sample.answer.strip(" .").casefold() == name
