"""Distances between the model's and the reference's distributions of truth ratios."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np

from unsee.metrics import METRICS, Row, SetMetric, Unit, about, number
from unsee.types import Better

if TYPE_CHECKING:
    from jaxtyping import Float

BINS = 20


class _Compared(SetMetric):
    """A distance between two models' scores on the same rows.

    Truth ratios where the split has them, else the true answers' probabilities.
    """

    rests_on: ClassVar[tuple[str, ...]] = ("truth_ratio", "probability")
    against: ClassVar[Literal["nothing", "reference"]] = "reference"
    better: ClassVar[Better] = "lower"

    def units(self, rows: Sequence[Row], reference: Sequence[Row], forgetting: bool) -> list[Unit]:
        """(this model's score, the reference's) a row; both mapped into 0..1."""
        theirs = {row["id"]: row for row in reference}
        ratios = any("truth_ratio" in row["scores"] for row in rows)
        name = "truth_ratio" if ratios else "probability"
        found = []
        for row in rows:
            if name in row["scores"]:
                other = theirs.get(row["id"])
                pair = (number(row, name), number(other, name) if other else math.nan)
                # R / (1 + R) keeps the order and is bounded, which histograms need.
                both = tuple(v / (1 + v) if ratios else v for v in pair)
                unscored = any(map(math.isnan, both))
                found.append(Unit(about(row), (math.nan, math.nan) if unscored else both))
        return found


def _ks(values: Float[np.ndarray, "units 2"]) -> Any:
    from scipy.stats import ks_2samp

    with warnings.catch_warnings():
        # Where the exact p-value overflows, scipy says so and gives the asymptotic one.
        warnings.filterwarnings("ignore", "ks_2samp", RuntimeWarning)
        return ks_2samp(values[:, 0], values[:, 1])


@METRICS.register("ks")
class Ks(_Compared):
    """Kolmogorov-Smirnov statistic: the largest gap between the two cumulative distributions.

    Source: TOFU, arXiv 2401.06121, section 2.2; Open-MMUnlearning,
    arXiv 2610.10358, section 4.1, reports the statistic.
    """

    name: ClassVar[str] = "ks"
    source: ClassVar[str] = "TOFU, arXiv 2401.06121"

    def combine(self, values: Float[np.ndarray, "units parts"], forgetting: bool) -> float:
        """0 where the distributions are the same, 1 where they do not overlap."""
        return float(_ks(values).statistic)


@METRICS.register("forget_quality")
class ForgetQuality(_Compared):
    """Forget quality: the p-value that both models' truth ratios are of one distribution.

    Source: TOFU, arXiv 2401.06121, section 2.2; CLEAR, arXiv 2410.18057.
    Differs: beside the reference given, which for the published numbers is the retain-only model.
    """

    name: ClassVar[str] = "forget_quality"
    source: ClassVar[str] = "TOFU, arXiv 2401.06121; CLEAR, arXiv 2410.18057"
    better: ClassVar[Better] = "higher"

    def combine(self, values: Float[np.ndarray, "units parts"], forgetting: bool) -> float:
        """1 where nothing tells the models apart."""
        return float(_ks(values).pvalue)


@METRICS.register("js")
class Js(_Compared):
    """Jensen-Shannon distance, base 2, between histograms of 20 equal bins over 0..1.

    Source: CLEAR, arXiv 2410.18057; Open-MMUnlearning, arXiv 2610.10358, section 4.1.
    Differs: histograms, whose number of bins is ours, and base 2, so that 1 is the most. CLEAR's
    code and Open-MMUnlearning's take the two lists of scores themselves for distributions over the
    samples, and the natural logarithm, so their numbers are not comparable with these.
    """

    name: ClassVar[str] = "js"
    source: ClassVar[str] = "CLEAR, arXiv 2410.18057"

    def combine(self, values: Float[np.ndarray, "units parts"], forgetting: bool) -> float:
        """0 where the histograms are the same, 1 where they do not overlap."""
        p, q = (np.histogram(some, BINS, (0, 1))[0] / len(values) for some in values.T)
        m = (p + q) / 2
        divergence = sum(
            float((some[some > 0] * np.log2(some[some > 0] / m[some > 0])).sum()) for some in (p, q)
        )
        return math.sqrt(min(max(divergence / 2, 0.0), 1.0))
