"""Bootstrap intervals."""

from __future__ import annotations

import math

import numpy as np

from unsee.evaluation.bootstrap import bootstrap_interval, estimate
from unsee.types import Estimate


def test_bootstrap_interval_draws_groups_in_turn_from_one_seeded_generator() -> None:
    drawn: list[tuple[list[int], list[int]]] = []

    def statistic(first: np.ndarray, second: np.ndarray) -> float:
        drawn.append((first.tolist(), second.tolist()))
        return float(first.sum())

    low, high = bootstrap_interval(statistic, [3, 2], value=-1.0, resamples=4, seed=5)
    rng = np.random.default_rng(5)
    expected = [(rng.integers(3, size=3), rng.integers(2, size=2)) for _ in range(4)]
    assert drawn == [(a.tolist(), b.tolist()) for a, b in expected]
    assert low == -1.0 and high <= max(sum(a) for a, _ in drawn)


def test_estimate_equals_hand_computed_values() -> None:
    found = estimate([1, 0, 1, 1, math.nan], ["a", "a", "b", "b", "b"], "lower")
    assert found.value == 0.75
    assert (found.n, found.n_unscored, found.better) == (4, 1, "lower")
    # Two people, scores .5 and 1: a resample is {.5, .75, 1}.
    assert (found.low, found.high) == (0.5, 1.0)
    assert estimate([math.nan], ["a"], "higher") == Estimate(None, None, None, 0, 1, "higher")


def test_estimate_resamples_people_and_not_questions() -> None:
    spread = estimate([1.0] * 50 + [0.0] * 50, ["a"] * 50 + ["b"] * 50, "higher")
    assert (spread.low, spread.high) == (0.0, 1.0)
    many = estimate([1.0, 0.0] * 50, [str(i) for i in range(100)], "higher")
    assert many.low is not None and many.high is not None
    assert 0.35 < many.low < 0.45 < 0.55 < many.high < 0.65


def test_estimate_does_not_depend_on_order() -> None:
    scores, people = [1.0, 0.0, 0.5, 0.25], ["a", "b", "a", "c"]
    forward = estimate(scores, people, "higher")
    backward = estimate(scores[::-1], people[::-1], "higher")
    assert forward.value == backward.value
