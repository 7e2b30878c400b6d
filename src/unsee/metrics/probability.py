"""Probability of the true answer."""

from __future__ import annotations

import math
from typing import ClassVar

from unsee.metrics import METRICS, Metric, Output, Reads, normalize_answer
from unsee.types import Sample


@METRICS.register("probability", source="TOFU, arXiv 2401.06121")
class Probability(Metric):
    """Answer probability per token: exp(-mean negative log-likelihood of the answer's tokens).

    For a ranking: the true answer's probability divided by the sum over all choices.

    Source: TOFU, arXiv 2401.06121, section 2.2; CLEAR, arXiv 2410.18057.

    Example:
        >>> import math
        >>> from unsee import Sample
        >>> from unsee.metrics import Output
        >>> from unsee.metrics.probability import Probability
        >>> sample = Sample("1", "Who is this?", "Ada Berg.")
        >>> Probability().score(sample, Output(nll=math.log(2)))
        0.5
    """

    reads: ClassVar[Reads] = "logprobs"

    def needs_alternatives(self, sample: Sample) -> bool:
        """Whether the sample is a ranking, which compares the likelihoods of the choices."""
        return sample.task == "ranking"

    def score(self, sample: Sample, output: Output) -> float:
        """Returns a value in 0..1; NaN without a true answer."""
        if not normalize_answer(sample.answer):
            return float("nan")
        if sample.task != "ranking":
            return math.exp(-output.nll)
        lowest = min(output.choices, default=0.0)
        weights = [math.exp(lowest - nll) for nll in output.choices]
        true = [
            weight
            for weight, choice in zip(weights, sample.choices, strict=bool(weights))
            if normalize_answer(choice) == normalize_answer(sample.answer)
        ]
        return sum(true) / sum(weights) if true else float("nan")
