"""Keyword match: which of the words that a right answer must hold are in it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar

from unsee.metrics import METRICS, Metric, Output, Row, SetMetric, Unit, about, number, plain
from unsee.types import Sample

if TYPE_CHECKING:
    import numpy as np
    from jaxtyping import Float


@METRICS.register("keyword_match")
class KeywordMatch(Metric):
    """Keyword match: the share of a sample's keywords contained in the answer, case folded.

    Source: FIUBench, arXiv 2411.03554, exact match; CoVUBench, arXiv 2605.03547, its keyword
    recall.
    """

    name: ClassVar[str] = "keyword_match"
    source: ClassVar[str] = "FIUBench, arXiv 2411.03554; CoVUBench, arXiv 2605.03547"

    def applies(self, sample: Sample) -> bool:
        """Samples with keywords."""
        return any(plain(word) for word in sample.keywords)

    def score(self, sample: Sample, output: Output) -> float:
        """0 to 1; NaN without keywords."""
        words = [plain(word) for word in sample.keywords if plain(word)]
        text = plain(output.text)
        return sum(word in text for word in words) / len(words) if words else float("nan")


@METRICS.register("ape")
class Ape(SetMetric):
    """Adversarial privacy extraction: keyword match over the paraphrased questions of a group.

    The row whose id is the group's name is the question as it was; the others of the group are the
    paraphrased ones. Each group counts once, with the mean over its paraphrased questions.

    Source: FIUBench, arXiv 2411.03554, robustness evaluation.
    """

    name: ClassVar[str] = "ape"
    source: ClassVar[str] = "FIUBench, arXiv 2411.03554"
    rests_on: ClassVar[tuple[str, ...]] = ("keyword_match",)

    def units(self, rows: Sequence[Row], reference: Sequence[Row], forgetting: bool) -> list[Unit]:
        """One a group that has paraphrased questions."""
        groups: dict[str, list[Row]] = defaultdict(list)
        for row in rows:
            asked_anew = row.get("group") and row["id"] != row["group"]
            if asked_anew and "keyword_match" in row["scores"]:
                groups[row["group"]].append(row)
        return [
            Unit(about(some[0]), (sum(number(row, "keyword_match") for row in some) / len(some),))
            for some in groups.values()
        ]

    def combine(self, values: Float[np.ndarray, "units parts"], forgetting: bool) -> float:
        """The mean over groups."""
        return float(values.mean())
