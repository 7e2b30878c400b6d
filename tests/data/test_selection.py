"""Choosing among samples."""

from __future__ import annotations

import pytest

from unsee.data.selection import evenly_spaced


@pytest.mark.parametrize(
    ("spacing", "expected"),
    [
        ("ends", [0, 3, 6, 9]),
        ("floor", [0, 2, 4, 6]),
        ("ceil", [0, 3, 6, 9]),
    ],
)
def test_evenly_spaced_equals_hand_computed_positions(spacing: str, expected: list[int]) -> None:
    samples = list(range(10))
    assert evenly_spaced(samples, 4, spacing) == expected  # type: ignore[arg-type]
    assert evenly_spaced(samples, 10, spacing) == samples  # type: ignore[arg-type]
    assert evenly_spaced(samples, 99, spacing) == samples  # type: ignore[arg-type]
    assert evenly_spaced([], 4, spacing) == []  # type: ignore[arg-type]
