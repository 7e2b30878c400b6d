"""Where names stand in a chart, in its own units, so that they can be read."""

from __future__ import annotations

from collections.abc import Sequence


def width(name: str) -> float:
    """About how wide a name is."""
    return 6.2 * len(name)


def beside(spots: Sequence[tuple[float, float, str]], wide: float) -> list[tuple[float, float]]:
    """Where the names of points start: near them, clear of one another and of all points.

    Args:
        spots: Every point's place and name, in the order in which names are set.
        wide: How far right a name may reach.
    """
    taken = [(x - 5, y - 5, x + 5, y + 5) for x, y, _ in spots]
    found = []
    for x, y, name in spots:
        rows = sorted(range(-14, 15), key=lambda row: (abs(row), -row))
        sides = [(x + 8, y + 3.5), (x - 8 - width(name), y + 3.5)]
        offers = [(start, base + 12 * row) for row in rows for start, base in sides]
        boxes = [(start, base - 9, start + width(name), base + 2) for start, base in offers]
        free = (
            n for n, box in enumerate(boxes)
            if box[0] >= 0 and box[2] <= wide and not any(_meet(box, other) for other in taken)
        )  # fmt: skip
        chosen = next(free, 0)
        taken.append(boxes[chosen])
        found.append(offers[chosen])
    return found


def _meet(one: tuple[float, ...], two: tuple[float, ...]) -> bool:
    """Whether two boxes (left, top, right, bottom) overlap."""
    return one[0] < two[2] and two[0] < one[2] and one[1] < two[3] and two[1] < one[3]
