"""Probability of the true answer."""

from __future__ import annotations

import math
from typing import ClassVar

from unsee.metrics import METRICS, Metric, Output, Reads, normalize_answer
from unsee.types import Sample


@METRICS.register("probability", source="TOFU, arXiv 2401.06121")
class Probability(Metric):
    """Answer probability per token: exp(-mean negative log-likelihood of the answer's tokens).

    For a ranking: the true answer's probability divided by the sum over all choices. With the rule
    "relative", the default on FIUBench's retain split: by the sum over it and the false answers.

    Source: TOFU, arXiv 2401.06121, section 2.2; CLEAR, arXiv 2410.18057; FIUBench, arXiv
    2411.03554, its script for the retain set.

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
    rules: ClassVar[tuple[str, ...]] = ("answer", "relative")
    rule: str = "answer"

    def needs_alternatives(self, sample: Sample) -> bool:
        """Whether the sample is a ranking, or is compared with its false answers."""
        relative = self.rule == "relative" and bool(sample.perturbed)
        return sample.task == "ranking" or relative

    def score(self, sample: Sample, output: Output) -> float:
        """Returns a value in 0..1; NaN without a true answer."""
        if not normalize_answer(sample.answer):
            return float("nan")
        if sample.task != "ranking":
            true = math.exp(-output.nll)
            if self.rule != "relative" or not output.perturbed:
                return true
            total = true + sum(math.exp(-nll) for nll in output.perturbed)
            return true / total if total > 0 else float("nan")
        lowest = min(output.choices, default=0.0)
        weights = [math.exp(lowest - nll) for nll in output.choices]
        weights_of_truth = [
            weight
            for weight, choice in zip(weights, sample.choices, strict=bool(weights))
            if normalize_answer(choice) == normalize_answer(sample.answer)
        ]
        return sum(weights_of_truth) / sum(weights) if weights_of_truth else float("nan")
