"""Accuracy: the right letter, or exactly the right answer."""

from __future__ import annotations

from typing import ClassVar

from unsee.metrics import METRICS, Metric, Output, plain
from unsee.types import Sample


@METRICS.register("accuracy")
class Accuracy(Metric):
    """Accuracy: the right letter of a classification, else the whole answer word for word.

    A classification's letter is the first character, upper-cased; anything that is no option is
    wrong. A ranking is right if the true answer is the likeliest a token of the choices. Other
    answers are compared without case, outer space and final punctuation.

    Source: MLLMU-Bench, arXiv 2410.22108, its classification task; exact match elsewhere.
    """

    name: ClassVar[str] = "accuracy"
    source: ClassVar[str] = "MLLMU-Bench, arXiv 2410.22108"

    def compares(self, sample: Sample) -> bool:
        """A ranking is decided by the choices' likelihoods."""
        return sample.task == "ranking"

    def score(self, sample: Sample, output: Output) -> float:
        """1 if right, 0 if wrong, NaN without a true answer."""
        if not plain(sample.answer):
            return float("nan")
        if sample.task == "ranking":
            if not output.choices:
                return float("nan")
            best = min(range(len(output.choices)), key=output.choices.__getitem__)
            return float(plain(sample.choices[best]) == plain(sample.answer))
        if sample.task == "classification":
            return float(output.text.strip()[:1].upper() == sample.answer.strip()[:1].upper())
        return float(plain(output.text) == plain(sample.answer))
