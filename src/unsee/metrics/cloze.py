"""Cloze: the true word is somewhere in the answer."""

from __future__ import annotations

from typing import ClassVar

from unsee.metrics import METRICS, Metric, Output, plain
from unsee.types import Sample


@METRICS.register("cloze")
class Cloze(Metric):
    """Cloze accuracy: the true filling is contained in the answer, case folded.

    Source: MLLMU-Bench, arXiv 2410.22108, its cloze task.
    """

    name: ClassVar[str] = "cloze"
    source: ClassVar[str] = "MLLMU-Bench, arXiv 2410.22108"

    def applies(self, sample: Sample) -> bool:
        """Cloze tasks only."""
        return sample.task == "cloze"

    def score(self, sample: Sample, output: Output) -> float:
        """1 if contained, 0 if not, NaN without a true answer."""
        if not plain(sample.answer):
            return float("nan")
        return float(plain(sample.answer) in plain(output.text))
