"""Model utility: one number for how well the knowledge to keep is kept."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from unsee.metrics import METRICS, ScoreRow, SetMetric, Unit, row_concept, row_score
from unsee.metrics.truth_ratio import TruthRatio

if TYPE_CHECKING:
    from jaxtyping import Float


def harmonic_mean(values: Sequence[float]) -> float:
    """Returns the harmonic mean; 0 if a value is 0, NaN without values.

    Example:
        >>> round(harmonic_mean([0.5, 1.0]), 3)
        0.667
    """
    if not values or any(value <= 0 for value in values):
        return 0.0 if values else float("nan")
    return len(values) / sum(1 / value for value in values)


@METRICS.register("model_utility", source="TOFU, arXiv 2401.06121")
class ModelUtility(SetMetric):
    """Model utility: harmonic mean of probability, ROUGE-L recall and truth ratio of a split.

    A part that does not apply to the split is left out.

    Source: TOFU, arXiv 2401.06121, section 2.2.
    Differs: computed within one split. TOFU's model utility is over retain, real authors and world
    facts together, which is the harmonic mean of the three splits' values.

    Example:
        >>> import numpy as np
        >>> from unsee.metrics.utility import ModelUtility
        >>> parts = np.array([[1.0, 0.5, np.nan], [1.0, 0.5, np.nan]])
        >>> round(ModelUtility().combine(parts, forgetting=False), 3)
        0.667
    """

    depends_on: ClassVar[tuple[str, ...]] = ("probability", "rouge_l_recall", "truth_ratio")

    def units(
        self, rows: Sequence[ScoreRow], reference: Sequence[ScoreRow], forgetting: bool
    ) -> list[Unit]:
        """Returns (probability, ROUGE-L recall, 1 - R) for each row; NaN where not applicable."""
        ratio = TruthRatio()
        return [
            Unit(
                row_concept(row),
                (
                    row_score(row, "probability"),
                    row_score(row, "rouge_l_recall"),
                    ratio.reported(row_score(row, "truth_ratio"), forgetting=False),
                ),
            )
            for row in rows
        ]

    def combine(self, values: Float[np.ndarray, "units parts"], forgetting: bool) -> float:
        """Returns the harmonic mean of the parts' means over their scored rows."""
        parts = [part[~np.isnan(part)] for part in values.T]
        return harmonic_mean([float(part.mean()) for part in parts if len(part)])
