"""Cloze accuracy: the answer contains the missing word."""

from __future__ import annotations

from typing import ClassVar

from unsee.metrics import METRICS, Metric, Output, normalize_answer
from unsee.types import Sample


@METRICS.register("cloze", source="MLLMU-Bench, arXiv 2410.22108")
class Cloze(Metric):
    """Cloze accuracy: whether the answer contains the true filling of the blank, ignoring case.

    Source: MLLMU-Bench, arXiv 2410.22108, its cloze task.

    Differs: a full stop at the end of the true filling, and repeated spaces, do not count. With the
    rule "mllmu", the default of MLLMU-Bench and UMU-Bench, they do, as in the published scripts.

    Example:
        >>> from unsee import Sample
        >>> from unsee.metrics import Output
        >>> from unsee.metrics.cloze import Cloze
        >>> sample = Sample("1", "Ada Berg works as a [Blank].", "baker", task="cloze")
        >>> Cloze().score(sample, Output("a Baker, I think"))
        1.0
    """

    rules: ClassVar[tuple[str, ...]] = ("contains", "mllmu")
    rule: str = "contains"

    def applies(self, sample: Sample) -> bool:
        """Whether the task is cloze."""
        return sample.task == "cloze"

    def undecided(self, sample: Sample, text: str) -> bool:
        """Whether the answer was cut within the filling."""
        # The published scripts score what there is.
        if self.rule == "mllmu":
            return False
        words = normalize_answer(text).split()
        wanted = normalize_answer(sample.answer).split()
        if " ".join(wanted) in " ".join(words):
            return False
        return any(
            words[-n:-1] == wanted[: n - 1] and wanted[n - 1].startswith(words[-1])
            for n in range(1, min(len(words), len(wanted)) + 1)
        )

    def score(self, sample: Sample, output: Output) -> float:
        """Returns 1 if the answer contains the filling, 0 if not, NaN without a true answer."""
        if not normalize_answer(sample.answer):
            return float("nan")
        if self.rule == "mllmu":
            return float(sample.answer.lower() in output.text.lower())
        return float(normalize_answer(sample.answer) in normalize_answer(output.text))
