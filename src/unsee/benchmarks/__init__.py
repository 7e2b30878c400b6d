"""Benchmarks: one file or folder each, with splits of samples and what is measured on them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from unsee.registry import Registry
from unsee.types import Better, Sample

BENCHMARKS: Registry[type[Benchmark]] = Registry("benchmark", "unsee.benchmarks")


@dataclass(frozen=True)
class Measure:
    """What is measured where, and which direction is good.

    Attributes:
        metric: A registered metric's name.
        split: A split's name.
        modality: "vqa" or "text".
        better: Which direction is good.
    """

    metric: str
    split: str
    modality: str
    better: Better


class Benchmark:
    """A set of splits.

    Attributes:
        name: Its registered name.
        source: Where it comes from.
        splits: The names of its reported splits.
        measures: What is measured.
    """

    name: ClassVar[str]
    source: ClassVar[str] = ""
    splits: ClassVar[tuple[str, ...]]
    measures: ClassVar[tuple[Measure, ...]] = ()

    def load(self, split: str) -> Sequence[Sample]:
        """The samples of a split.

        Raises:
            UnknownNameError: If there is no such split.
        """
        raise NotImplementedError
