"""ROUGE-L: longest common subsequence of the answer and the true answer."""

from __future__ import annotations

from functools import cache
from typing import Any

from unsee.metrics import METRICS, Metric, Output, normalize_answer
from unsee.types import Sample


@cache
def _scorer() -> Any:
    from rouge_score.rouge_scorer import RougeScorer

    return RougeScorer(["rougeL"], use_stemmer=True)


@METRICS.register("rouge_l", source="MLLMU-Bench, arXiv 2410.22108")
class RougeL(Metric):
    """ROUGE-L F-measure with stemming, as reported by MLLMU-Bench.

    Source: Lin, 2004; MLLMU-Bench, arXiv 2410.22108.

    Example:
        Three of the four words of the answer are, in order, among the five of the true answer:
        precision 3/4, recall 3/5.

        >>> from unsee import Sample
        >>> from unsee.metrics import Output
        >>> from unsee.metrics.rouge import RougeL
        >>> sample = Sample("1", "Where does Ada Berg live?", "Ada Berg lives in Oslo.")
        >>> round(RougeL().score(sample, Output("Ada lives near Oslo")), 3)
        0.667
    """

    def applies(self, sample: Sample) -> bool:
        """Whether the task is generation or caption."""
        return sample.task in ("generation", "caption")

    def score(self, sample: Sample, output: Output) -> float:
        """Returns a value in 0..1; NaN without a true answer."""
        if not normalize_answer(sample.answer):
            return float("nan")
        return float(self._statistic(_scorer().score(sample.answer, output.text)["rougeL"]))

    def _statistic(self, scores: Any) -> float:
        return float(scores.fmeasure)


@METRICS.register("rouge_l_recall", source="CLEAR, arXiv 2410.18057")
class RougeLRecall(RougeL):
    """ROUGE-L recall with stemming, as reported by CLEAR and FIUBench.

    Source: Lin, 2004; CLEAR, arXiv 2410.18057.

    Example:
        >>> from unsee import Sample
        >>> from unsee.metrics import Output
        >>> from unsee.metrics.rouge import RougeLRecall
        >>> sample = Sample("1", "Where does Ada Berg live?", "Ada Berg lives in Oslo.")
        >>> RougeLRecall().score(sample, Output("Ada lives near Oslo"))
        0.6
    """

    def _statistic(self, scores: Any) -> float:
        return float(scores.recall)
