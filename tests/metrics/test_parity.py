"""Parity gap: values against hand-computed numbers."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from unsee.metrics.parity import ParityGap


def row(who: str, population: str | None, **scores: float | None) -> dict[str, Any]:
    named = {} if population is None else {"population": population}
    return {"id": who, "concept": who, "scores": scores, **named}


def gap(rows: list[dict[str, Any]]) -> float:
    units = [u for u in ParityGap().units(rows, [], True) if not math.isnan(u.values[0])]
    return ParityGap().combine(np.array([u.values for u in units]), forgetting=True)


def test_parity_gap_is_the_difference_of_the_extreme_group_means() -> None:
    # Means: f (1 + 0.5 + 0) / 3 = 0.5, m (1 + 1) / 2 = 1, x 0.25: the gap is 0.75.
    rows = [
        row("a", "f", rouge_l=1.0),
        row("b", "f", rouge_l=0.5),
        row("c", "f", rouge_l=0.0),
        row("d", "m", rouge_l=1.0),
        row("e", "m", rouge_l=1.0),
        row("g", "x", rouge_l=0.25),
    ]
    assert gap(rows) == pytest.approx(0.75)
    assert gap([*rows[:2], row("d", "m", rouge_l=0.75)]) == 0.0


def test_parity_gap_takes_the_first_score_and_leaves_out_what_has_none() -> None:
    rows = [
        row("a", "f", keyword_match=1.0, rouge_l=0.0),
        row("b", "m", cloze=0.5, accuracy=0.0),
        row("c", "m", keyword_match=None),
        row("d", None, keyword_match=0.0),
        row("e", "m", probability=0.1),
    ]
    units = ParityGap().units(rows, [], forgetting=True)
    assert [unit.concept for unit in units] == ["a", "b", "c"]
    # The unscored answer is unscored, not 0.
    assert all(map(math.isnan, units[2].values))
    assert gap(rows) == pytest.approx(0.5)


def test_parity_gap_needs_two_groups() -> None:
    assert (
        ParityGap().units([row("a", "f", rouge_l=1.0), row("b", "f", rouge_l=0.0)], [], True) == []
    )
