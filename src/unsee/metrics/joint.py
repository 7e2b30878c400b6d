"""Joint scores: one fact asked with a picture and by name."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar

from unsee.metrics import METRICS, ScoreRow, SetMetric, Unit, row_concept, row_score
from unsee.types import Better

if TYPE_CHECKING:
    import numpy as np
    from jaxtyping import Float


class _JointMetric(SetMetric):
    """A score of groups of two questions for one fact: with a picture, and without.

    A row's score is that of the first metric in `depends_on` that applies to it.
    """

    joins_modalities: ClassVar[bool] = True

    def units(
        self, rows: Sequence[ScoreRow], reference: Sequence[ScoreRow], forgetting: bool
    ) -> list[Unit]:
        """Returns one observation for each group that has both modalities."""
        groups: dict[str, dict[str, ScoreRow]] = defaultdict(dict)
        for row in rows:
            if row.get("group") and any(name in row["scores"] for name in self.depends_on):
                groups[row["group"]].setdefault(row["modality"], row)
        units = []
        for pair in groups.values():
            if len(pair) == 2:
                visual, textual = self._score(pair["vqa"]), self._score(pair["text"])
                unscored = math.isnan(visual) or math.isnan(textual)
                value = math.nan if unscored else self._joint_score(visual, textual, forgetting)
                units.append(Unit(row_concept(pair["vqa"]), (value,)))
        return units

    def combine(self, values: Float[np.ndarray, "units parts"], forgetting: bool) -> float:
        """Returns the mean over the groups."""
        return float(values.mean())

    def _score(self, row: ScoreRow) -> float:
        names = (name for name in self.depends_on if name in row["scores"])
        return next((row_score(row, name) for name in names), math.nan)

    def _joint_score(self, visual: float, textual: float, forgetting: bool) -> float:
        raise NotImplementedError


@METRICS.register("joint_right", source="UMU-Bench")
class JointRight(_JointMetric):
    """Joint right: the share of facts answered right both with the picture and by name.

    Uses `cloze` for cloze questions, otherwise `accuracy`.

    Source: UMU-Bench, joint scores of classification and cloze.

    Example:
        Of two facts, one is answered right both ways.

        >>> import numpy as np
        >>> from unsee.metrics.joint import JointRight
        >>> rows = [
        ...     {"concept": "Ada", "group": g, "modality": m, "scores": {"accuracy": s}}
        ...     for g, m, s in [
        ...         ("job", "vqa", 1.0), ("job", "text", 1.0),
        ...         ("city", "vqa", 0.0), ("city", "text", 1.0),
        ...     ]
        ... ]
        >>> units = JointRight().units(rows, [], forgetting=False)
        >>> JointRight().combine(np.array([unit.values for unit in units]), forgetting=False)
        0.5
    """

    depends_on: ClassVar[tuple[str, ...]] = ("cloze", "accuracy")

    def _joint_score(self, visual: float, textual: float, forgetting: bool) -> float:
        return float(visual > 0.5 and textual > 0.5)


@METRICS.register("joint_wrong")
class JointWrong(JointRight):
    """Joint wrong: the share of facts answered wrong both with the picture and by name.

    Source: UMU-Bench, joint scores of classification and cloze.

    Example:
        >>> from unsee.metrics.joint import JointWrong
        >>> rows = [
        ...     {"concept": "Ada", "group": "job", "modality": m, "scores": {"accuracy": 0.0}}
        ...     for m in ("vqa", "text")
        ... ]
        >>> JointWrong().units(rows, [], forgetting=True)
        [Unit(concept='Ada', values=(1.0,))]
    """

    better: ClassVar[Better] = "lower"

    def _joint_score(self, visual: float, textual: float, forgetting: bool) -> float:
        return float(visual <= 0.5 and textual <= 0.5)


@METRICS.register("joint_rouge", source="UMU-Bench")
class JointRouge(_JointMetric):
    """Joint ROUGE-L of scores a and b: (a^2 + b^2) / (a + b) on forget splits, else 2ab / (a + b).

    On forget splits, what is remembered in either modality counts; on others, both must be right.

    Source: UMU-Bench, joint ROUGE.

    Example:
        >>> from unsee.metrics.joint import JointRouge
        >>> rows = [
        ...     {"concept": "Ada", "group": "job", "modality": m, "scores": {"rouge_l": s}}
        ...     for m, s in (("vqa", 0.25), ("text", 0.75))
        ... ]
        >>> JointRouge().units(rows, [], forgetting=True)
        [Unit(concept='Ada', values=(0.625,))]
        >>> JointRouge().units(rows, [], forgetting=False)
        [Unit(concept='Ada', values=(0.375,))]
    """

    depends_on: ClassVar[tuple[str, ...]] = ("rouge_l",)

    def _joint_score(self, visual: float, textual: float, forgetting: bool) -> float:
        total = visual + textual
        if total == 0:
            return 0.0
        if forgetting:
            return (visual * visual + textual * textual) / total
        return 2 * visual * textual / total
