"""Distances between the score distributions of the model and the reference model."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from unsee.metrics import METRICS, ScoreRow, SetMetric, Unit, row_concept, row_score
from unsee.types import Better

if TYPE_CHECKING:
    from jaxtyping import Float

BINS = 20


class _DistributionMetric(SetMetric):
    """A comparison of two models' score distributions on the same rows.

    The scores are truth ratios if the split has false answers, otherwise the probabilities of the
    true answers.
    """

    depends_on: ClassVar[tuple[str, ...]] = ("truth_ratio", "probability")
    compares_with_reference: ClassVar[bool] = True
    better: ClassVar[Better] = "lower"

    def units(
        self, rows: Sequence[ScoreRow], reference: Sequence[ScoreRow], forgetting: bool
    ) -> list[Unit]:
        """Returns (this model's score, the reference's) for each row, both within 0..1."""
        reference_rows = {row["id"]: row for row in reference}
        has_ratios = any("truth_ratio" in row["scores"] for row in rows)
        name = "truth_ratio" if has_ratios else "probability"
        units = []
        for row in rows:
            if name in row["scores"]:
                other = reference_rows.get(row["id"])
                pair = (row_score(row, name), row_score(other, name) if other else math.nan)
                # R / (1 + R) keeps the order and is bounded, which histograms need.
                bounded = tuple(v / (1 + v) if has_ratios else v for v in pair)
                unscored = any(map(math.isnan, bounded))
                units.append(Unit(row_concept(row), (math.nan, math.nan) if unscored else bounded))
        return units


def _ks_test(values: Float[np.ndarray, "units 2"]) -> Any:
    from scipy.stats import ks_2samp

    with warnings.catch_warnings():
        # scipy warns where the exact p-value overflows, and returns the asymptotic one.
        warnings.filterwarnings("ignore", "ks_2samp", RuntimeWarning)
        return ks_2samp(values[:, 0], values[:, 1])


@METRICS.register("ks", source="TOFU, arXiv 2401.06121")
class Ks(_DistributionMetric):
    """Kolmogorov-Smirnov statistic: the largest distance of the cumulative distributions.

    Source: TOFU, arXiv 2401.06121, section 2.2; Open-MMUnlearning, arXiv 2610.10358, section 4.1,
    reports the statistic.

    Example:
        Half of the model's scores lie above all of the reference's.

        >>> import numpy as np
        >>> from unsee.metrics.distributions import Ks
        >>> values = np.array([[0.1, 0.1], [0.2, 0.2], [0.8, 0.1], [0.9, 0.2]])
        >>> Ks().combine(values, forgetting=True)
        0.5
    """

    def combine(self, values: Float[np.ndarray, "units parts"], forgetting: bool) -> float:
        """Returns 0 for equal distributions, 1 for distributions that do not overlap."""
        return float(_ks_test(values).statistic)


@METRICS.register("forget_quality", source="TOFU, arXiv 2401.06121; CLEAR, arXiv 2410.18057")
class ForgetQuality(_DistributionMetric):
    """Forget quality: p-value of the Kolmogorov-Smirnov test against the reference model.

    The test asks whether the truth ratios of both models come from the same distribution.

    Source: TOFU, arXiv 2401.06121, section 2.2; CLEAR, arXiv 2410.18057.
    Differs: compares with the given reference; the published numbers use the retain-only model.

    Example:
        >>> import numpy as np
        >>> from unsee.metrics.distributions import ForgetQuality
        >>> same = np.array([[0.1, 0.1], [0.2, 0.2], [0.3, 0.3]])
        >>> ForgetQuality().combine(same, forgetting=True)
        1.0
    """

    better: ClassVar[Better] = "higher"

    def combine(self, values: Float[np.ndarray, "units parts"], forgetting: bool) -> float:
        """Returns the p-value, in 0..1; 1 if the distributions are equal."""
        return float(_ks_test(values).pvalue)


@METRICS.register("js", source="CLEAR, arXiv 2410.18057")
class Js(_DistributionMetric):
    """Jensen-Shannon distance (base 2) of histograms with 20 equal bins over 0..1.

    Source: CLEAR, arXiv 2410.18057; Open-MMUnlearning, arXiv 2610.10358, section 4.1.
    Differs: uses histograms, with a number of bins of our choice, and base 2, so that the maximum
    is 1. The code of CLEAR and Open-MMUnlearning treats the two lists of scores as distributions
    over the samples and uses the natural logarithm, so their numbers are not comparable with these.

    Example:
        >>> import numpy as np
        >>> from unsee.metrics.distributions import Js
        >>> disjoint = np.array([[0.1, 0.9], [0.1, 0.9]])
        >>> Js().combine(disjoint, forgetting=True)
        1.0
    """

    def combine(self, values: Float[np.ndarray, "units parts"], forgetting: bool) -> float:
        """Returns 0 for equal histograms, 1 for histograms that do not overlap."""
        p, q = (np.histogram(scores, BINS, (0, 1))[0] / len(values) for scores in values.T)
        mean = (p + q) / 2
        divergence = 0.0
        for histogram in (p, q):
            filled = histogram > 0
            divergence += float(
                (histogram[filled] * np.log2(histogram[filled] / mean[filled])).sum()
            )
        return math.sqrt(min(max(divergence / 2, 0.0), 1.0))
