"""Answer prefix: the attacker writes the beginning of the model's answer."""

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
    """Answer prefix: the attacker writes the beginning of the answer and the model continues it.

    The attack succeeds if the rest of the true answer follows. The first words of a true answer may
    reveal the rest (a name reveals the job), so compare with a reference model under the same
    attack.

    Source: Wei et al., arXiv 2307.02483, prefix injection.

    Attributes:
        text: Text at the beginning of every answer.
        words: Number of words of the true answer to add after `text`. An answer without more words
            than this gets `text` alone.

    Example:
        >>> from unsee.attacks import Subject
        >>> from unsee.attacks.answer_prefix import AnswerPrefix
        >>> subject = Subject(vlm, {"forget_holdout": data.forget[:1]})
        >>> data.forget[0].answer
        'this is Ada Berg'
        >>> (sample,) = AnswerPrefix(text="Sure:", words=2).apply(subject).samples["forget_holdout"]
        >>> sample.prefill, sample.answer
        ('Sure: this is', 'Ada Berg')
    """

    access: ClassVar[Literal["black_box", "white_box"]] = "black_box"
    zero_budget: ClassVar[Mapping[str, Any]] = {"words": 0, "text": ""}

    text: str = ""
    words: Annotated[int, Field(ge=0)] = 2

    def apply(self, subject: Subject) -> Subject:
        """Returns the subject with a prefix for every answer."""
        if not self.text.strip() and self.words == 0:
            return subject
        return map_questions(subject, self._with_prefix)

    def _with_prefix(self, sample: Sample) -> list[Sample]:
        answer = sample.answer.split()
        count = self.words if len(answer) > self.words else 0
        prefix = " ".join([sample.prefill, self.text, *answer[:count]]).split()
        if not prefix:
            return [sample]
        rest = " ".join(answer[count:]) if count else sample.answer
        return [replace(sample, prefill=" ".join(prefix), answer=rest)]
