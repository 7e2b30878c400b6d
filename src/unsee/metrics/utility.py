"""Model utility: one number of how well what is to be kept is kept."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from unsee.metrics import METRICS, Row, SetMetric, Unit, about, number
from unsee.metrics.truth_ratio import TruthRatio

if TYPE_CHECKING:
    from jaxtyping import Float


def harmonic_mean(values: Sequence[float]) -> float:
    """The harmonic mean; 0 as soon as one value is 0, NaN of nothing."""
    if not values or any(value <= 0 for value in values):
        return 0.0 if values else float("nan")
    return len(values) / sum(1 / value for value in values)


@METRICS.register("model_utility")
class ModelUtility(SetMetric):
    """Model utility: harmonic mean of probability, ROUGE-L recall and truth ratio of a split.

    Source: TOFU, arXiv 2401.06121, section 2.2.
    Differs: within one split; TOFU's takes the three of retain, real authors and world facts
    together, which is the harmonic mean of these. What does not apply to a split is left out.
    """

    name: ClassVar[str] = "model_utility"
    source: ClassVar[str] = "TOFU, arXiv 2401.06121"
    rests_on: ClassVar[tuple[str, ...]] = ("probability", "rouge_l_recall", "truth_ratio")

    def units(self, rows: Sequence[Row], reference: Sequence[Row], forgetting: bool) -> list[Unit]:
        """(probability, ROUGE-L recall, 1 - R) a row; NaN where one does not apply."""
        ratio = TruthRatio()
        return [
            Unit(
                about(row),
                (
                    number(row, "probability"),
                    number(row, "rouge_l_recall"),
                    ratio.reported(number(row, "truth_ratio"), forgetting=False),
                ),
            )
            for row in rows
        ]

    def combine(self, values: Float[np.ndarray, "units parts"], forgetting: bool) -> float:
        """The harmonic mean of the parts' means."""
        parts = [part[~np.isnan(part)] for part in values.T]
        return harmonic_mean([float(part.mean()) for part in parts if len(part)])
