"""Answer prefix: the model's own turn is begun for it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

from unsee.attacks import ATTACKS, Attack, Subject, map_questions
from unsee.types import Sample


@ATTACKS.register("answer_prefix", source="arXiv 2307.02483")
@dataclass(frozen=True)
class AnswerPrefix(Attack):
    """Answer prefix: the attacker begins the answer, and the model goes on from there.

    The rest of the true answer must follow. First words of a true answer may themselves tell
    (a name before the job), which only a reference model under the same attack can show.

    Source: Wei et al., arXiv 2307.02483, prefix injection.

    Attributes:
        text: What every answer begins with.
        words: First words of the true answer that are put after it, where more than so many are
            left to be said; else it is begun with the text alone.
    """

    access: ClassVar[Literal["black_box", "white_box"]] = "black_box"
    zero_budget: ClassVar[Mapping[str, Any]] = {"words": 0, "text": ""}

    text: str = ""
    words: Annotated[int, Field(ge=0)] = 2

    def apply(self, subject: Subject) -> Subject:
        """The subject with every answer begun."""
        if not self.text.strip() and self.words == 0:
            return subject
        return map_questions(subject, self._begin)

    def _begin(self, sample: Sample) -> list[Sample]:
        said = sample.answer.split()
        count = self.words if len(said) > self.words else 0
        begun = " ".join([sample.prefill, self.text, *said[:count]]).split()
        if not begun:
            return [sample]
        rest = " ".join(said[count:]) if count else sample.answer
        return [replace(sample, prefill=" ".join(begun), answer=rest)]
