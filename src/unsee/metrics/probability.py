"""Probability: how likely the model finds the true answer."""

from __future__ import annotations

import math
from typing import ClassVar

from unsee.metrics import METRICS, Metric, Output, Reads, plain
from unsee.types import Sample


@METRICS.register("probability")
class Probability(Metric):
    """Answer probability: exp of minus the mean negative log-likelihood of its tokens.

    Of a ranking, its share among the choices: true / (true + sum of the false).

    Source: TOFU, arXiv 2401.06121, section 2.2; CLEAR, arXiv 2410.18057.
    """

    name: ClassVar[str] = "probability"
    source: ClassVar[str] = "TOFU, arXiv 2401.06121"
    reads: ClassVar[Reads] = "logprobs"

    def compares(self, sample: Sample) -> bool:
        """A ranking needs the choices' likelihoods."""
        return sample.task == "ranking"

    def score(self, sample: Sample, output: Output) -> float:
        """0 to 1; NaN without a true answer."""
        if sample.task == "ranking" and plain(sample.answer):
            low = min(output.choices, default=0.0)
            shares = [math.exp(low - nll) for nll in output.choices]
            truth = [
                share
                for share, choice in zip(shares, sample.choices, strict=bool(shares))
                if plain(choice) == plain(sample.answer)
            ]
            return sum(truth) / sum(shares) if truth else float("nan")
        return math.exp(-output.nll) if plain(sample.answer) else float("nan")
