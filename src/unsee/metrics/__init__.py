"""Metrics: one file each; each scores one sample's output, and applies to some tasks only."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from unsee.registry import Registry
from unsee.types import Sample

METRICS: Registry[type[Metric]] = Registry("metric", "unsee.metrics")


@dataclass(frozen=True)
class Output:
    """What a model gave for a sample.

    Attributes:
        text: Its greedy answer.
        nll: Mean negative log-likelihood (nats a token) of the true answer; NaN if not computed.
    """

    text: str = ""
    nll: float = float("nan")


class Metric:
    """What all metrics have in common.

    Attributes:
        name: Its registered name.
        source: Where its definition comes from.
        reads: "text" scores the greedy answer, "logprobs" the true answer's likelihood.
        unit: Of the score.
    """

    name: ClassVar[str]
    source: ClassVar[str] = ""
    reads: ClassVar[Literal["text", "logprobs"]] = "text"
    unit: ClassVar[str] = "0..1"

    def applies(self, sample: Sample) -> bool:
        """Whether samples of this task are scored by it."""
        return True

    def score(self, sample: Sample, output: Output) -> float:
        """The sample's score; NaN where it cannot be scored, such as without a true answer."""
        raise NotImplementedError


def plain(text: str) -> str:
    """A text without outer space, final punctuation, doubled space, and case."""
    return " ".join(text.split()).rstrip(".!?,;: ").casefold()
