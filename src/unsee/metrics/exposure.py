"""Exposure: how much of the true answer is left in the model's distribution."""

from __future__ import annotations

from typing import ClassVar

from unsee.metrics import METRICS, Metric, Output, Reads, normalize_answer
from unsee.types import Sample


@METRICS.register("exposure", source="ReMem, arXiv 2605.03759")
class Exposure(Metric):
    """Exposure: log-probability of the whole true answer, the sum over its tokens, in nats.

    It is 0 for a model that is certain of the answer, and the lower, the less of it is left. A
    model that has only learned to decline keeps a high exposure. Answers of different length are
    not comparable: long ones are less likely.

    Source: ReMem, arXiv 2605.03759: Exposure(a) = sum over i of log P(t_i | prefix).
    Differs: of the whole true answer after the question, not of the private string alone, of which
    the data does not say where in the answer it is.

    Example:
        Of an answer of three tokens, each has probability 1/2.

        >>> import math
        >>> from unsee import Sample
        >>> from unsee.metrics import Output
        >>> from unsee.metrics.exposure import Exposure
        >>> sample = Sample("1", "Where does she live?", "In Oslo.")
        >>> round(Exposure().score(sample, Output(nll=math.log(2), tokens=3)), 4)
        -2.0794
    """

    reads: ClassVar[Reads] = "logprobs"
    unit: ClassVar[str] = "nats"

    def score(self, sample: Sample, output: Output) -> float:
        """Returns a value of at most 0; NaN without a true answer."""
        if not normalize_answer(sample.answer) or not output.tokens:
            return float("nan")
        return -output.nll * output.tokens
