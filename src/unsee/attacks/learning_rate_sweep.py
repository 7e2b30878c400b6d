"""Sweeps of an attacker's learning rate and steps, and the worst point that one finds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from unsee.records.schema import CurvePoint

SweepName = Literal["off", "quick", "full"]

# A rate whose best score is no further above the start has learned nothing.
FLAT = 0.02


@dataclass(frozen=True)
class Sweep:
    """Learning rates to try, and the steps after which each is scored.

    Attributes:
        rates: Learning rates, highest first.
        checkpoints: Steps after which the model is scored, in order; a rate ends at the last.
        always: Number of rates that are tried in any case; the further ones only while the rate
            before them has learned something.
        stops_after: A rate is stopped from this step on once its last two checkpoints brought no
            new maximum; None goes to the end.
    """

    rates: tuple[float, ...]
    checkpoints: tuple[int, ...]
    always: int
    stops_after: int | None

    def is_over(self, points: Sequence[CurvePoint]) -> bool:
        """Whether a rate with these points, the start first, is stopped.

        Example:
            >>> values = [(0, 0.1), (10, 0.4), (20, 0.3), (50, 0.4)]
            >>> points = [CurvePoint(step=step, value=value) for step, value in values]
            >>> SWEEPS["quick"].is_over(points), SWEEPS["quick"].is_over(points[:3])
            (True, False)
        """
        if self.stops_after is None or points[-1].step < self.stops_after or len(points) < 3:
            return False
        values = [-1.0 if point.value is None else point.value for point in points]
        return max(values[-2:]) <= max(values[:-2])


SWEEPS: dict[str, Sweep] = {
    # With the default rate of `relearn`, so that its points are among those of the sweep.
    "quick": Sweep((1e-3, 2e-4, 1e-5, 1e-6), (1, 2, 5, 10, 20, 50, 100, 200), 2, 50),
    # Ten rates in equal ratios, as in the repository of UNDO (arXiv 2506.06278).
    "full": Sweep(
        tuple(float(f"{10 ** (-3 - i / 3):.2g}") for i in range(10)),
        (1, 2, 5, 10, 20, 50, 100, 200, 300, 400, 500),
        10,
        None,
    ),
}


def has_learned(points: Sequence[CurvePoint]) -> bool:
    """Whether some point is more than `FLAT` above the first, the start."""
    values = [point.value for point in points if point.value is not None]
    return len(values) > 1 and max(values) > values[0] + FLAT


def worst_point(points: Sequence[CurvePoint]) -> CurvePoint:
    """Returns the point with the highest score, of equal ones the first.

    Args:
        points: Points of any rates, at least one.
    """
    return max(points, key=lambda point: -1.0 if point.value is None else point.value)


def envelope(points: Sequence[CurvePoint]) -> list[CurvePoint]:
    """Returns for every step the worst point that some rate has reached by then.

    Args:
        points: Points of all rates of a sweep, with the start.

    Example:
        >>> start = CurvePoint(step=0, value=0.1)
        >>> fast = [CurvePoint(step=s, value=v, lr=1e-3) for s, v in ((1, 0.3), (2, 0.2))]
        >>> slow = [CurvePoint(step=s, value=v, lr=1e-4) for s, v in ((1, 0.1), (2, 0.4))]
        >>> [(p.step, p.value, p.lr) for p in envelope([start, *fast, *slow])]
        [(0, 0.1, None), (1, 0.3, 0.001), (2, 0.4, 0.0001)]
    """
    steps = sorted({point.step for point in points})
    return [
        worst_point([point for point in points if point.step <= step]).model_copy(
            update={"step": step}
        )
        for step in steps
    ]
