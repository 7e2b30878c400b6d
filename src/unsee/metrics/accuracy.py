"""Accuracy: the right option, or exactly the right answer."""

from __future__ import annotations

import math
from typing import ClassVar

from unsee.metrics import METRICS, Metric, Output, normalize_answer
from unsee.metrics.letters import LETTER_RULES, stated_option
from unsee.types import Sample


@METRICS.register("accuracy", source="MLLMU-Bench, arXiv 2410.22108")
class Accuracy(Metric):
    """Accuracy: the right option of a classification, otherwise an exact match of the answer.

    The option is read from the answer by a letter rule, one of
    `unsee.metrics.letters.LETTER_RULES`; an answer that chooses none is wrong. The rule is "stated"
    ("B", "(B)", "The answer is B", or the option's text) unless the benchmark declares its own. A
    ranking is right if the true answer has the highest likelihood per token among the choices.
    Other answers are compared ignoring case, surrounding spaces and final punctuation.

    Source: MLLMU-Bench, arXiv 2410.22108, its classification task; exact match elsewhere.

    Example:
        >>> from unsee import Sample
        >>> from unsee.metrics import Output
        >>> from unsee.metrics.accuracy import Accuracy
        >>> sample = Sample("1", "Who is this?", "Ada Berg.")
        >>> Accuracy().score(sample, Output("ada berg"))
        1.0
        >>> Accuracy().score(sample, Output("Bo Lind"))
        0.0
    """

    rules: ClassVar[tuple[str, ...]] = tuple(LETTER_RULES)
    rule: str = "stated"

    def reads_answer(self, sample: Sample) -> bool:
        """Whether the score depends on the generated answer; that of a ranking does not."""
        return sample.task != "ranking"

    def needs_alternatives(self, sample: Sample) -> bool:
        """Whether the sample is a ranking, which compares the likelihoods of the choices."""
        return sample.task == "ranking"

    def undecided(self, sample: Sample, text: str) -> bool:
        """Whether the right answer could have been given at another length."""
        if sample.task == "classification":
            # The published scripts score what there is.
            return self.rule == "stated" and self._chosen(sample, text) is None
        answer, truth = normalize_answer(text), normalize_answer(sample.answer)
        return answer != truth and (truth.startswith(answer) or answer.startswith(truth))

    def score(self, sample: Sample, output: Output) -> float:
        """Returns 1 if the answer is right, 0 if it is wrong, NaN without a true answer."""
        if not normalize_answer(sample.answer):
            return float("nan")
        if sample.task == "ranking":
            if not output.choices or any(map(math.isnan, output.choices)):
                return float("nan")
            best = min(range(len(output.choices)), key=output.choices.__getitem__)
            return float(normalize_answer(sample.choices[best]) == normalize_answer(sample.answer))
        if sample.task == "classification":
            chosen = self._chosen(sample, output.text)
            return float(chosen is not None and chosen == true_option(sample))
        return float(normalize_answer(output.text) == normalize_answer(sample.answer))

    def _chosen(self, sample: Sample, text: str) -> int | None:
        return LETTER_RULES[self.rule](text, sample.choices)


def true_option(sample: Sample) -> int | None:
    """Returns the number of the option that is a classification's true answer; None if none is."""
    if len(sample.answer) > 1 and sample.answer in sample.choices:
        return sample.choices.index(sample.answer)
    return stated_option(sample.answer, sample.choices)


@METRICS.register("accuracy_mllmu", source="MLLMU-Bench, arXiv 2410.22108")
class AccuracyMLLMU(Accuracy):
    """Accuracy with MLLMU-Bench's letter rule: the first character of the answer is the option.

    So "banker" chooses B, and "(B)" chooses nothing.

    Source: MLLMU-Bench, arXiv 2410.22108, its evaluation script.

    Example:
        >>> from unsee import Sample
        >>> from unsee.metrics import Output
        >>> from unsee.metrics.accuracy import AccuracyMLLMU
        >>> options = ("nurse", "pilot")
        >>> sample = Sample("1", "Which job?", "B", choices=options, task="classification")
        >>> [AccuracyMLLMU().score(sample, Output(text)) for text in ("B", "banker", "(B)")]
        [1.0, 1.0, 0.0]
    """

    rules = ()
    rule = "mllmu"

    def applies(self, sample: Sample) -> bool:
        """Whether the task is classification."""
        return sample.task == "classification"


@METRICS.register("accuracy_mmunlearner", source="MMUnlearner, arXiv 2502.11051")
class AccuracyMMUnlearner(AccuracyMLLMU):
    """Accuracy with MMUnlearner's letter rule: the first ASCII letter or digit is the option.

    Source: MMUnlearner, arXiv 2502.11051, its evaluation script for MLLMU-Bench.

    Example:
        >>> from unsee import Sample
        >>> from unsee.metrics import Output
        >>> from unsee.metrics.accuracy import AccuracyMMUnlearner
        >>> options = ("nurse", "pilot")
        >>> sample = Sample("1", "Which job?", "B", choices=options, task="classification")
        >>> [AccuracyMMUnlearner().score(sample, Output(text)) for text in ("(B)", "The B")]
        [1.0, 0.0]
    """

    rule = "mmunlearner"
