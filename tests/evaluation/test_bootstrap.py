"""Bootstrap intervals."""

from __future__ import annotations

import math

import numpy as np
import pytest

from unsee.evaluation.bootstrap import (
    bootstrap_interval,
    concept_interval,
    estimate,
    estimate_set,
)
from unsee.metrics import Unit
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
    people = ["a", "a", *"bcdee"]
    found = estimate([1, 0, 1, 1, 1, 1, math.nan], people, "lower")
    assert found.value == 5 / 6
    assert (found.n, found.n_unscored, found.better) == (6, 1, "lower")
    assert found.low is not None and 0.5 < found.low < 5 / 6 and found.high == 1.0
    assert estimate([math.nan], ["a"], "higher") == Estimate(None, None, None, 0, 1, "higher")


@pytest.mark.parametrize("value", [0.0, 0.5, 1.0])
def test_estimate_has_no_interval_below_five_concepts(value: float) -> None:
    few = estimate([value] * 8, list("abcdabcd"), "lower")
    assert (few.value, few.low, few.high, few.n) == (value, None, None, 8)
    assert estimate([value] * 5, list("abcde"), "lower").low is not None


@pytest.mark.parametrize("people", [5, 20, 100])
def test_estimate_at_the_edge_has_exact_bounds_over_people(people: int) -> None:
    names = [str(i // 3) for i in range(3 * people)]
    none, all_right = (estimate([v] * len(names), names, "lower") for v in (0.0, 1.0))
    upper = 1 - 0.025 ** (1 / people)
    assert none.low == 0 and none.high == pytest.approx(upper)
    assert all_right.high == 1 and all_right.low == pytest.approx(1 - upper)


def test_estimate_between_the_edges_is_the_bootstrap_to_the_bit() -> None:
    rng = np.random.default_rng(3)
    scores, people = rng.integers(0, 2, 40).astype(float), np.repeat(np.arange(8), 5)
    sums = np.array([scores[people == p].sum() for p in range(8)])
    found = estimate(scores.tolist(), [str(p) for p in people], "lower")
    expected = bootstrap_interval(lambda d: float(sums[d].sum() / (5 * len(d))), [8])
    assert (found.low, found.high) == expected


def test_estimate_set_bounds_shares_and_not_comparisons_at_the_edge() -> None:
    shares = [Unit(str(i), (0.0,)) for i in range(6)]
    share = estimate_set(shares, lambda values: float(values.mean()), "lower")
    assert share.low == 0 and share.high == pytest.approx(1 - 0.025 ** (1 / 6))
    pairs = [Unit(str(i), (0.5, 0.5)) for i in range(6)]
    gap = estimate_set(pairs, lambda v: float(abs(v[:, 0] - v[:, 1]).max()), "lower")
    assert (gap.value, gap.low, gap.high) == (0.0, None, None)


def test_estimate_resamples_people_and_not_questions() -> None:
    people = [*"abcdefgh"]
    spread = estimate([1.0] * 40 + [0.0] * 40, [p for p in people for _ in range(10)], "higher")
    assert spread.low is not None and spread.high is not None
    assert spread.low < 0.2 and spread.high > 0.8
    many = estimate([1.0, 0.0] * 50, [str(i) for i in range(100)], "higher")
    assert many.low is not None and many.high is not None
    assert 0.35 < many.low < 0.45 < 0.55 < many.high < 0.65


def test_estimate_does_not_depend_on_order() -> None:
    scores, people = [1.0, 0.0, 0.5, 0.25], ["a", "b", "a", "c"]
    forward = estimate(scores, people, "higher")
    backward = estimate(scores[::-1], people[::-1], "higher")
    assert forward.value == backward.value


def test_concept_interval_of_two_groups_counts_the_smaller() -> None:
    def separation(first: np.ndarray, second: np.ndarray) -> float:
        return 1.0

    low, high = concept_interval(separation, [6, 30], value=1.0, all_equal=True)
    assert low == pytest.approx(0.025 ** (1 / 6)) and high == 1
    assert concept_interval(separation, [4, 30], value=1.0, all_equal=True) == (None, None)
