"""Probability: how likely the model finds the true answer."""

from __future__ import annotations

import math
from typing import ClassVar, Literal

from unsee.metrics import METRICS, Metric, Output, plain
from unsee.types import Sample


@METRICS.register("probability")
class Probability(Metric):
    """Answer probability: exp of minus the mean negative log-likelihood of its tokens.

    Source: TOFU, arXiv 2401.06121, section 2.3.
    """

    name: ClassVar[str] = "probability"
    source: ClassVar[str] = "TOFU, arXiv 2401.06121"
    reads: ClassVar[Literal["text", "logprobs"]] = "logprobs"

    def score(self, sample: Sample, output: Output) -> float:
        """0 to 1; NaN without a true answer."""
        return math.exp(-output.nll) if plain(sample.answer) else float("nan")
