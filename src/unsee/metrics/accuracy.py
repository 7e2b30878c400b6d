"""Accuracy: the right letter, or exactly the right answer."""

from __future__ import annotations

from typing import ClassVar

from unsee.metrics import METRICS, Metric, Output, plain
from unsee.types import Sample


@METRICS.register("accuracy")
class Accuracy(Metric):
    """Accuracy: the right letter of a classification, else the whole answer word for word.

    A classification's letter is the first character, upper-cased; anything that is no option is
    wrong. Other answers are compared without case, outer space and final punctuation.

    Source: MLLMU-Bench, arXiv 2410.22108, its classification task; exact match elsewhere.
    """

    name: ClassVar[str] = "accuracy"
    source: ClassVar[str] = "MLLMU-Bench, arXiv 2410.22108"

    def score(self, sample: Sample, output: Output) -> float:
        """1 if right, 0 if wrong, NaN without a true answer."""
        if not plain(sample.answer):
            return float("nan")
        if sample.task == "classification":
            return float(output.text.strip()[:1].upper() == sample.answer.strip()[:1].upper())
        return float(plain(output.text) == plain(sample.answer))
