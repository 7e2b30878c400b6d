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
    """Returns the mean score with its 95 % bootstrap interval.

    Whole concepts are resampled, since the answers to questions about one person depend on each
    other.

    Args:
        scores: One score per sample; NaN means unscored, which is left out and counted.
        concepts: The concept that each sample is about.
        better: The direction that is better.
        seed: Seed of the resampling.

    Example:
        Two people, with mean scores of 0.5 and 1.

        >>> measure = estimate([1, 0, 1, 1], ["Ada", "Ada", "Bo", "Bo"], "lower")
        >>> measure.value, measure.low, measure.high, measure.n
        (0.75, 0.5, 1.0, 4)
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
    low, high = bootstrap_interval(mean, [len(positions)], value=value, seed=seed)
    return Estimate(value, low, high, len(scored), unscored, better)


def estimate_set(
    units: Sequence[Unit], combine: Callable[[np.ndarray], float], better: Better, seed: int = 0
) -> Estimate:
    """Returns a set metric's value with its 95 % bootstrap interval over concepts.

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
    low, high = bootstrap_interval(
        resampled, [len(groups)], value=value, resamples=SET_RESAMPLES, seed=seed
    )
    return Estimate(value, low, high, len(scored), unscored, better)
