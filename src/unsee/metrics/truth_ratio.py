"""Truth ratio: how likely false answers are beside a paraphrase of the true one."""

from __future__ import annotations

import math
from typing import ClassVar

from unsee.metrics import METRICS, Metric, Output, Reads, plain
from unsee.types import Sample

# Keeps the ratio a finite number where a paraphrase's probability is next to nothing.
_MOST = 700.0


@METRICS.register("truth_ratio")
class TruthRatio(Metric):
    """Truth ratio: R = mean P(false)^(1/len) / mean P(paraphrase)^(1/len).

    A sample's score is R itself, 0 to infinity. A measure averages min(R, 1/R) on forget splits,
    where 1 is a model that cannot tell truth from falsehood, and max(0, 1 - R) elsewhere.

    Source: TOFU, arXiv 2401.06121, section 2.2, equation 1.
    Differs: without a paraphrase the true answer stands in, as TOFU does for real authors;
    false answers are averaged as the paper does (its code averages their logarithms).
    """

    name: ClassVar[str] = "truth_ratio"
    source: ClassVar[str] = "TOFU, arXiv 2401.06121, equation 1"
    reads: ClassVar[Reads] = "alternatives"

    def applies(self, sample: Sample) -> bool:
        """Samples with false answers beside the true one."""
        return bool(sample.perturbed)

    def score(self, sample: Sample, output: Output) -> float:
        """R, the unreported ratio; NaN without likelihoods or a true answer."""
        truth = output.paraphrases or (output.nll,)
        if not plain(sample.answer) or not output.perturbed or any(map(math.isnan, truth)):
            return float("nan")
        gap = _log_mean(output.perturbed) - _log_mean(truth)
        return math.exp(max(-_MOST, min(_MOST, gap)))

    def reported(self, score: float, forgetting: bool) -> float:
        """min(R, 1/R) on forget splits, max(0, 1 - R) elsewhere."""
        if math.isnan(score):
            return score
        return min(score, 1 / score) if forgetting else max(0.0, 1 - score)


def _log_mean(nlls: tuple[float, ...]) -> float:
    """Logarithm of the mean probability."""
    low = min(nlls)
    return -low + math.log(sum(math.exp(low - nll) for nll in nlls) / len(nlls))
