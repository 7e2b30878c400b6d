"""Means with bootstrap intervals over concepts: people, not questions, are the sample."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np

from unsee.metrics import Unit
from unsee.types import Better, Estimate

RESAMPLES = 1000


# A set metric is computed anew each time, so fewer.
SET_RESAMPLES = 300


def estimate(
    scores: Sequence[float], concepts: Sequence[str], better: Better, seed: int = 0
) -> Estimate:
    """The mean score and its 95 % interval.

    Whole concepts are drawn with replacement, since the questions about one person stand and fall
    together.

    Args:
        scores: One a sample; NaN is unscored, left out and counted.
        concepts: Whom each sample is about.
        better: Which direction is good.
        seed: Of the resampling.
    """
    kept = [(s, c) for s, c in zip(scores, concepts, strict=True) if not math.isnan(s)]
    missing = len(scores) - len(kept)
    if not kept:
        return Estimate(None, None, None, 0, missing, better)
    names = {name: index for index, name in enumerate(dict.fromkeys(c for _, c in kept))}
    sums, counts = np.zeros(len(names)), np.zeros(len(names))
    for score, concept in kept:
        sums[names[concept]] += score
        counts[names[concept]] += 1
    drawn = np.random.default_rng(seed).integers(len(names), size=(RESAMPLES, len(names)))
    means = sums[drawn].sum(1) / counts[drawn].sum(1)
    low, high = np.quantile(means, [0.025, 0.975])
    value = float(sums.sum() / counts.sum())
    # Rounding in the quantiles must not put the mean outside of its own interval.
    return Estimate(
        value, min(float(low), value), max(float(high), value), len(kept), missing, better
    )


def estimate_set(
    units: Sequence[Unit], combine: Callable[[np.ndarray], float], better: Better, seed: int = 0
) -> Estimate:
    """A set metric's value and its 95 % interval, computed anew for every draw of concepts.

    Args:
        units: What it counts; one whose values are all NaN is unscored, left out and counted.
        combine: The measure from [units, parts] values.
        better: Which direction is good.
        seed: Of the resampling.
    """
    kept = [unit for unit in units if not all(map(math.isnan, unit.values))]
    missing = len(units) - len(kept)
    if not kept:
        return Estimate(None, None, None, 0, missing, better)
    values = np.array([unit.values for unit in kept])
    of: dict[str, list[int]] = {}
    for index, unit in enumerate(kept):
        of.setdefault(unit.concept, []).append(index)
    blocks = [np.array(indices) for indices in of.values()]
    value = combine(values)
    drawn = np.random.default_rng(seed).integers(len(blocks), size=(SET_RESAMPLES, len(blocks)))
    found = [combine(values[np.concatenate([blocks[i] for i in some])]) for some in drawn]
    low, high = np.quantile(found, [0.025, 0.975])
    return Estimate(
        value, min(float(low), value), max(float(high), value), len(kept), missing, better
    )
