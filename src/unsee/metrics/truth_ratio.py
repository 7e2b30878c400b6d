"""Truth ratio: likelihood of false answers relative to a paraphrase of the true one."""

from __future__ import annotations

import math
from typing import ClassVar

from unsee.metrics import METRICS, Metric, Output, Reads, normalize_answer
from unsee.types import Sample

# Bounds the logarithm of the ratio, so that the ratio stays finite.
_MAX_LOG_RATIO = 700.0


@METRICS.register("truth_ratio", source="TOFU, arXiv 2401.06121, equation 1")
class TruthRatio(Metric):
    """Truth ratio: R = mean P(false)^(1/length) / mean P(paraphrase)^(1/length).

    The score of a sample is R, from 0 to infinity. On forget splits a measure averages
    min(R, 1/R), which is 1 for a model that cannot tell true from false answers; on other splits,
    max(0, 1 - R).

    Source: TOFU, arXiv 2401.06121, section 2.2, equation 1.
    Differs: without a paraphrase the true answer is used, as TOFU does for real authors. The
    probabilities of false answers are averaged as in the paper. With the rule "logarithms", the
    default of FIUBench and CLEAR, their logarithms are, as in the published scripts.

    Example:
        The false answers have probability 1/2 and 1/4 per token, the paraphrase 3/4.

        >>> import math
        >>> from unsee import Sample
        >>> from unsee.metrics import Output
        >>> from unsee.metrics.truth_ratio import TruthRatio
        >>> sample = Sample("1", "Where?", "In Oslo.", perturbed=("In Lima.", "In Bonn."))
        >>> output = Output(
        ...     nll=0.3, paraphrases=(math.log(4 / 3),), perturbed=(math.log(2), math.log(4))
        ... )
        >>> ratio = TruthRatio().score(sample, output)
        >>> round(ratio, 3), round(TruthRatio().reported(ratio, forgetting=False), 3)
        (0.5, 0.5)
    """

    reads: ClassVar[Reads] = "alternatives"
    rules: ClassVar[tuple[str, ...]] = ("probabilities", "logarithms")
    rule: str = "probabilities"

    def applies(self, sample: Sample) -> bool:
        """Whether the sample has false answers."""
        return bool(sample.perturbed)

    def score(self, sample: Sample, output: Output) -> float:
        """Returns R; NaN without likelihoods or without a true answer."""
        true = output.paraphrases or (output.nll,)
        if (
            not normalize_answer(sample.answer)
            or not output.perturbed
            or any(map(math.isnan, true))
        ):
            return float("nan")
        if self.rule == "logarithms":
            log_ratio = sum(true) / len(true) - sum(output.perturbed) / len(output.perturbed)
        else:
            log_ratio = _log_mean_probability(output.perturbed) - _log_mean_probability(true)
        return math.exp(max(-_MAX_LOG_RATIO, min(_MAX_LOG_RATIO, log_ratio)))

    def reported(self, score: float, forgetting: bool) -> float:
        """Returns min(R, 1/R) on forget splits, max(0, 1 - R) on others."""
        if math.isnan(score):
            return score
        return min(score, 1 / score) if forgetting else max(0.0, 1 - score)


def _log_mean_probability(nlls: tuple[float, ...]) -> float:
    """Returns the logarithm of the mean of exp(-nll)."""
    lowest = min(nlls)
    return -lowest + math.log(sum(math.exp(lowest - nll) for nll in nlls) / len(nlls))
