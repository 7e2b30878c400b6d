"""Parity gap: how differently groups of people are answered about."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from unsee.metrics import METRICS, ScoreRow, SetMetric, Unit, row_concept, row_score
from unsee.types import Better

if TYPE_CHECKING:
    from jaxtyping import Float


@METRICS.register("parity_gap", source="FAIRGET, arXiv 2607.21300")
class ParityGap(SetMetric):
    """Parity gap: the best group's mean score minus the worst group's, on one split.

    A row's group is its `population`, which a skewed request sets (`skew=gender=female:0.8`, or
    `skew=gender` to compare alone); rows without one do not count. Its score is that of the first
    of `keyword_match`, `cloze`, `rouge_l` and `accuracy` that it has. The target model's gap, in
    the same record, is the gap before unlearning.

    Source: FAIRGET, arXiv 2607.21300: unlearned models that are biased after requests from groups
    of different sizes.

    Differs: FAIRGET's own formula could not be seen; this is the gap of statistical parity, of
    which 0 is best. A draw of the bootstrap interval that misses a group compares the others.

    Example:
        Women's facts are told in 1 of 2 answers, men's in none.

        >>> import numpy as np
        >>> from unsee.metrics.parity import ParityGap
        >>> rows = [
        ...     {"id": n, "concept": n, "population": p, "scores": {"keyword_match": s}}
        ...     for n, p, s in (("Ada", "f", 1.0), ("Eva", "f", 0.0), ("Bo", "m", 0.0))
        ... ]
        >>> units = ParityGap().units(rows, [], forgetting=True)
        >>> ParityGap().combine(np.array([u.values for u in units]), forgetting=True)
        0.5
    """

    better: ClassVar[Better] = "lower"
    depends_on: ClassVar[tuple[str, ...]] = ("keyword_match", "cloze", "rouge_l", "accuracy")

    def units(
        self, rows: Sequence[ScoreRow], reference: Sequence[ScoreRow], forgetting: bool
    ) -> list[Unit]:
        """Returns score and number of the group of each row; none where there is one group only."""
        scored = [
            row
            for row in rows
            if row.get("population") and any(name in row["scores"] for name in self.depends_on)
        ]
        groups = sorted({row["population"] for row in scored})
        if len(groups) < 2:
            return []
        units = []
        for row in scored:
            name = next(name for name in self.depends_on if name in row["scores"])
            score = row_score(row, name)
            group = math.nan if math.isnan(score) else float(groups.index(row["population"]))
            units.append(Unit(row_concept(row), (score, group)))
        return units

    def combine(self, values: Float[np.ndarray, "units parts"], forgetting: bool) -> float:
        """Returns the largest minus the smallest mean over the groups."""
        scores, groups = values[:, 0], values[:, 1]
        means = [scores[groups == group].mean() for group in np.unique(groups)]
        return float(max(means) - min(means))
