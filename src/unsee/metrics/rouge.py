"""ROUGE-L: the longest common subsequence of the answer and the true answer."""

from __future__ import annotations

from functools import cache
from typing import Any, ClassVar

from unsee.metrics import METRICS, Metric, Output, plain
from unsee.types import Sample


@cache
def _scorer() -> Any:
    from rouge_score.rouge_scorer import RougeScorer

    return RougeScorer(["rougeL"], use_stemmer=True)


@METRICS.register("rouge_l")
class RougeL(Metric):
    """ROUGE-L f-measure with stemmer, as MLLMU-Bench reports it.

    Source: Lin, 2004; MLLMU-Bench, arXiv 2410.22108.
    """

    name: ClassVar[str] = "rouge_l"
    source: ClassVar[str] = "MLLMU-Bench, arXiv 2410.22108"

    def applies(self, sample: Sample) -> bool:
        """Generation and caption tasks only."""
        return sample.task in ("generation", "caption")

    def score(self, sample: Sample, output: Output) -> float:
        """0 to 1; NaN without a true answer."""
        if not plain(sample.answer):
            return float("nan")
        return float(self._part(_scorer().score(sample.answer, output.text)["rougeL"]))

    def _part(self, scores: Any) -> float:
        return float(scores.fmeasure)


@METRICS.register("rouge_l_recall")
class RougeLRecall(RougeL):
    """ROUGE-L recall with stemmer, as CLEAR and FIUBench report it.

    Source: Lin, 2004; CLEAR, arXiv 2410.18057.
    """

    name: ClassVar[str] = "rouge_l_recall"
    source: ClassVar[str] = "CLEAR, arXiv 2410.18057"

    def _part(self, scores: Any) -> float:
        return float(scores.recall)
