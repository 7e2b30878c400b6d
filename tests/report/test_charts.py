"""Charts: ticks, thinned lines, and labels without overlaps."""

from __future__ import annotations

from itertools import combinations

import pytest

from unsee.report import charts
from unsee.report.charts import place_labels, text_width


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (0, 40, [0, 10, 20, 30, 40]),
        (0, 1.8, [0, 0.5, 1, 1.5, 2]),
        (-0.55, 0.1, [-0.6, -0.4, -0.2, 0, 0.2]),
        (3, 3, [3, 3.5, 4]),
    ],
)
def test_ticks_are_round_and_span_the_values(
    low: float, high: float, expected: list[float]
) -> None:
    assert charts.ticks(low, high) == pytest.approx(expected)


def test_thin_keeps_means_and_ranges() -> None:
    dots = [charts.Dot(x, float(x)) for x in range(10)]
    assert charts.thin(dots, 10) == dots
    thinned = charts.thin(dots, 5)
    assert [dot.y for dot in thinned] == [0.5, 2.5, 4.5, 6.5, 8.5]
    assert [(dot.low, dot.high) for dot in thinned][:2] == [(0, 1), (2, 3)]
    assert charts.thin([charts.Dot(x, None) for x in range(10)], 5) == []


def test_line_chart_draws_a_line_at_its_numbers() -> None:
    dots = [charts.Dot(0, 0.0), charts.Dot(5, None), charts.Dot(10, 1.0)]
    line = charts.Line("a", "unlearned", dots)
    drawn = charts.line_chart([line], uid="u", title="t", desc="d", x_label="x", share=True)
    bottom, right = charts.HEIGHT - charts.BOTTOM, charts.WIDTH - charts.RIGHT
    assert f"M{charts.LEFT:.2f} {bottom:.2f}L{right:.2f} {charts.TOP:.2f}" in drawn
    assert drawn.count("<circle") == 2
    empty = charts.line_chart([], uid="u", title="t", desc="d", x_label="x", share=False)
    assert "<path" not in empty


def test_place_labels_leaves_no_overlap() -> None:
    spots = [(500.0 + 9 * (n % 4), 90.0 + 5 * n, f"method number {n}") for n in range(16)]
    starts = place_labels(spots, 640)
    boxes = [
        (x, y - 9, x + text_width(name), y + 2)
        for (x, y), (_, _, name) in zip(starts, spots, strict=True)
    ]
    for one, two in combinations(boxes, 2):
        apart = one[2] <= two[0] or two[2] <= one[0] or one[3] <= two[1] or two[3] <= one[1]
        assert apart, (one, two)
    assert all(left >= 0 and right <= 640 for left, _, right, _ in boxes)
    # One that stands alone is named on its right, as everybody expects.
    assert place_labels([(100.0, 100.0, "alone")], 640) == [(108.0, 103.5)]
