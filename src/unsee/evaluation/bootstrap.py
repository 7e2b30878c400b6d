"""Means with bootstrap intervals over concepts: people are resampled, not questions."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence

import numpy as np
from jaxtyping import Int

from unsee.metrics import Unit
from unsee.types import Better, Estimate

RESAMPLES = 1000

# A set metric is computed again for every resample, which takes longer.
SET_RESAMPLES = 300

# Fewer people than this are too few to resample: there is no interval then.
MIN_CONCEPTS = 5


def bootstrap_interval(
    statistic: Callable[..., float],
    sizes: Sequence[int],
    *,
    value: float | None = None,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> tuple[float, float]:
    """Returns the 95 % percentile bootstrap interval of a statistic of one or more groups.

    Args:
        statistic: Called with one index array per group: the units that were drawn from it, with
            replacement.
        sizes: Number of units in each group.
        value: The statistic of the data itself. If given, the interval is widened to contain it,
            which rounding may otherwise prevent.
        resamples: Number of resamples.
        seed: Seed of the resampling.

    Example:
        >>> ages = np.array([30.0, 40.0, 50.0])
        >>> bootstrap_interval(lambda drawn: ages[drawn].mean(), [3])
        (30.0, 50.0)
    """
    rng = np.random.default_rng(seed)
    draws = [
        statistic(*(rng.integers(size, size=size) for size in sizes)) for _ in range(resamples)
    ]
    low, high = (float(end) for end in np.quantile(draws, [0.025, 0.975]))
    return (low, high) if value is None else (min(low, value), max(high, value))


def exact_bounds(value: float, count: int) -> tuple[float, float]:
    """Returns the exact 95 % interval (Clopper-Pearson) of a mean of 0 or 1, as (low, high).

    All resamples of equal scores are equal, so that the bootstrap would call a score of 0 or 1
    certain. The bounds hold for any scores in 0..1.

    Args:
        value: The mean: 0 or 1.
        count: Number of independent observations, such as people.

    Source: Clopper and Pearson, Biometrika 26, 1934.

    Example:
        >>> low, high = exact_bounds(0.0, 10)
        >>> low, round(high, 3)
        (0.0, 0.308)
    """
    from scipy.stats import binomtest

    interval = binomtest(round(value * count), count).proportion_ci(0.95, method="exact")
    return float(interval.low), float(interval.high)


def concept_interval(
    statistic: Callable[..., float],
    sizes: Sequence[int],
    *,
    value: float,
    all_equal: bool,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> tuple[float | None, float | None]:
    """Returns the 95 % interval of a measure over people, as (low, high).

    It is bootstrapped; of scores that are all 0 or all 1 it is exact, with people as the
    observations. There is none for fewer than `MIN_CONCEPTS` people, nor for a value of 0 or 1
    that is not a mean of equal scores and that no resample changes.

    Args:
        statistic: As in `bootstrap_interval`.
        sizes: Number of people in each group.
        value: The measure.
        all_equal: Whether `value` is the mean of scores that all equal it.
        resamples: Number of resamples.
        seed: Seed of the resampling.
    """
    if min(sizes) < MIN_CONCEPTS:
        return None, None
    at_edge = value in (0.0, 1.0)
    if at_edge and all_equal:
        return exact_bounds(value, min(sizes))
    low, high = bootstrap_interval(statistic, sizes, value=value, resamples=resamples, seed=seed)
    return (None, None) if at_edge and low == high else (low, high)


def group_rows(concepts: Iterable[str]) -> list[Int[np.ndarray, " rows"]]:
    """Returns the row numbers of each concept, in order of first appearance.

    Example:
        >>> [rows.tolist() for rows in group_rows(["Ada", "Bo", "Ada"])]
        [[0, 2], [1]]
    """
    groups: dict[str, list[int]] = {}
    for row, concept in enumerate(concepts):
        groups.setdefault(concept, []).append(row)
    return [np.array(rows) for rows in groups.values()]


def estimate(
    scores: Sequence[float], concepts: Sequence[str], better: Better, seed: int = 0
) -> Estimate:
    """Returns the mean score with its 95 % interval.

    Whole concepts are resampled, since the answers to questions about one person depend on each
    other. See `concept_interval` for means of 0 and 1, and for few concepts.

    Args:
        scores: One score per sample; NaN means unscored, which is left out and counted.
        concepts: The concept that each sample is about.
        better: The direction that is better.
        seed: Seed of the resampling.

    Example:
        Five people, of whom one answers half of the questions right.

        >>> people = ["Ada", "Ada", "Bo", "Cy", "Di", "Ed"]
        >>> measure = estimate([1, 0, 0, 0, 0, 0], people, "lower")
        >>> round(measure.value, 3), measure.low, round(measure.high, 3), measure.n
        (0.167, 0.0, 0.375, 6)
    """
    scored = [(s, c) for s, c in zip(scores, concepts, strict=True) if not math.isnan(s)]
    unscored = len(scores) - len(scored)
    if not scored:
        return Estimate(None, None, None, 0, unscored, better)
    positions = {
        concept: index for index, concept in enumerate(dict.fromkeys(c for _, c in scored))
    }
    sums, counts = np.zeros(len(positions)), np.zeros(len(positions))
    for score, concept in scored:
        sums[positions[concept]] += score
        counts[positions[concept]] += 1

    def mean(drawn: Int[np.ndarray, " concepts"]) -> float:
        return float(sums[drawn].sum() / counts[drawn].sum())

    value = float(sums.sum() / counts.sum())
    all_equal = all(score == value for score, _ in scored)
    low, high = concept_interval(
        mean, [len(positions)], value=value, all_equal=all_equal, seed=seed
    )
    return Estimate(value, low, high, len(scored), unscored, better)


def estimate_set(
    units: Sequence[Unit], combine: Callable[[np.ndarray], float], better: Better, seed: int = 0
) -> Estimate:
    """Returns a set metric's value with its 95 % interval over concepts.

    Args:
        units: The observations. One whose values are all NaN is unscored: left out and counted.
        combine: Computes the measure from the observations' values [units, parts].
        better: The direction that is better.
        seed: Seed of the resampling.
    """
    scored = [unit for unit in units if not all(map(math.isnan, unit.values))]
    unscored = len(units) - len(scored)
    if not scored:
        return Estimate(None, None, None, 0, unscored, better)
    values = np.array([unit.values for unit in scored])
    groups = group_rows(unit.concept for unit in scored)

    def resampled(drawn: Int[np.ndarray, " concepts"]) -> float:
        return combine(values[np.concatenate([groups[i] for i in drawn])])

    value = combine(values)
    low, high = concept_interval(
        resampled,
        [len(groups)],
        value=value,
        # The mean of one score per unit; a comparison of two models is no such mean.
        all_equal=values.shape[1] == 1 and bool((values == value).all()),
        resamples=SET_RESAMPLES,
        seed=seed,
    )
    return Estimate(value, low, high, len(scored), unscored, better)
