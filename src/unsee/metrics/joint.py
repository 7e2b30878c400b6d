"""Joint scores: one fact asked by picture and by name, right or wrong in both."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar, Literal

from unsee.metrics import METRICS, Row, SetMetric, Unit, about, number
from unsee.types import Better

if TYPE_CHECKING:
    import numpy as np
    from jaxtyping import Float


class _Joint(SetMetric):
    """A score of groups that ask for one fact with a picture and without."""

    over: ClassVar[Literal["modality", "both"]] = "both"

    def units(self, rows: Sequence[Row], reference: Sequence[Row], forgetting: bool) -> list[Unit]:
        """One a group that has both modalities."""
        groups: dict[str, dict[str, Row]] = defaultdict(dict)
        for row in rows:
            if row.get("group") and any(name in row["scores"] for name in self.rests_on):
                groups[row["group"]].setdefault(row["modality"], row)
        found = []
        for pair in groups.values():
            if len(pair) == 2:
                a, b = self._read(pair["vqa"]), self._read(pair["text"])
                unscored = math.isnan(a) or math.isnan(b)
                value = math.nan if unscored else self._joined(a, b, forgetting)
                found.append(Unit(about(pair["vqa"]), (value,)))
        return found

    def combine(self, values: Float[np.ndarray, "units parts"], forgetting: bool) -> float:
        """The mean over groups."""
        return float(values.mean())

    def _read(self, row: Row) -> float:
        """The first score that applies to the row."""
        return next((number(row, n) for n in self.rests_on if n in row["scores"]), math.nan)

    def _joined(self, a: float, b: float, forgetting: bool) -> float:
        raise NotImplementedError


@METRICS.register("joint_right")
class JointRight(_Joint):
    """Joint right: the share of facts answered right both by picture and by name.

    Cloze where it applies, else accuracy.

    Source: UMU-Bench, joint scores of classification and cloze.
    """

    name: ClassVar[str] = "joint_right"
    source: ClassVar[str] = "UMU-Bench"
    rests_on: ClassVar[tuple[str, ...]] = ("cloze", "accuracy")

    def _joined(self, a: float, b: float, forgetting: bool) -> float:
        return float(a > 0.5 and b > 0.5)


@METRICS.register("joint_wrong")
class JointWrong(JointRight):
    """Joint wrong: the share of facts answered wrong both by picture and by name.

    Source: UMU-Bench, joint scores of classification and cloze.
    """

    name: ClassVar[str] = "joint_wrong"
    better: ClassVar[Better] = "lower"

    def _joined(self, a: float, b: float, forgetting: bool) -> float:
        return float(a <= 0.5 and b <= 0.5)


@METRICS.register("joint_rouge")
class JointRouge(_Joint):
    """Joint ROUGE-L of both modalities: forget (a^2+b^2)/(a+b), elsewhere 2ab/(a+b).

    On forget splits what is remembered in either counts; elsewhere both must be kept.

    Source: UMU-Bench, joint ROUGE.
    """

    name: ClassVar[str] = "joint_rouge"
    source: ClassVar[str] = "UMU-Bench"
    rests_on: ClassVar[tuple[str, ...]] = ("rouge_l",)

    def _joined(self, a: float, b: float, forgetting: bool) -> float:
        if a + b == 0:
            return 0.0
        return (a * a + b * b) / (a + b) if forgetting else 2 * a * b / (a + b)
