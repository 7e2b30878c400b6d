"""Paired tests of a comparison's entries against the one of rank 1: over people and over seeds.

Two methods answer the same questions about the same people, and are trained with the same seeds.
Their differences are therefore taken person by person, as means over the seeds that both have, and
the signs of these differences are flipped in every way (in 10,000 drawn ways from 14 people on):
the p-value is the share of flips whose mean difference is at least as large. p-values of all
entries on one measure are adjusted together (Holm).

Source: Fisher, The Design of Experiments, 1935; Holm, Scand. J. Stat. 6, 1979.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from unsee.records.markdown import Table
from unsee.studies.results import Result, Row

# Sign flips that are drawn where there are more of them.
RESAMPLES = 10_000
# Below this many pairs, no p-value can be smaller than 2 / 2^5 = 0.0625, so none is given.
MIN_PAIRS = 6


@dataclass(frozen=True)
class PairedTest:
    """The difference between two entries on one measure.

    Attributes:
        difference: Mean over pairs of the entry's score minus the other's.
        pairs: Number of people, or of seeds.
        p: The two-sided p-value; None below `MIN_PAIRS` pairs.
    """

    difference: float
    pairs: int
    p: float | None


def paired_test(scores: Sequence[float], others: Sequence[float]) -> PairedTest | None:
    """Tests whether two sets of paired scores differ in their mean, by flipping signs.

    Args:
        scores: The entry's scores.
        others: The other entry's, in the same order.

    Returns:
        None without pairs.

    Example:
        Of the 64 ways to give six differences of 0.1 their signs, two are as extreme.

        >>> paired_test([0.4] * 6, [0.3] * 6).p
        0.03125
    """
    from scipy.stats import permutation_test

    differences = np.asarray(scores, dtype=float) - np.asarray(others, dtype=float)
    count = len(differences)
    if count == 0:
        return None
    mean = float(differences.mean())
    if count < MIN_PAIRS:
        return PairedTest(mean, count, None)
    if not differences.any():
        return PairedTest(0.0, count, 1.0)
    result = permutation_test(
        (differences,),
        np.mean,
        permutation_type="samples",
        vectorized=True,
        n_resamples=RESAMPLES,
        rng=np.random.default_rng(0),
    )
    return PairedTest(mean, count, float(result.pvalue))


def holm(p_values: Sequence[float]) -> list[float]:
    """Returns p-values that are adjusted for being tested together, in the same order.

    Example:
        >>> holm([0.01, 0.04, 0.03])
        [0.03, 0.06, 0.06]
    """
    adjusted, largest = [0.0] * len(p_values), 0.0
    for place, i in enumerate(sorted(range(len(p_values)), key=lambda i: p_values[i])):
        largest = max(largest, min(1.0, (len(p_values) - place) * p_values[i]))
        adjusted[i] = largest
    return adjusted


def paired_table(rows: Sequence[Row]) -> Table | None:
    """Returns how every entry differs from the one of rank 1, or None if there is nothing to pair.

    Args:
        rows: The rows of one forget ratio, the best first.
    """
    entries = [row for row in rows if not row.is_model and any(r.people for r in row.results)]
    if len(entries) < 2:
        return None
    best, *rest = entries
    columns = list(dict.fromkeys(key for r in best.results for key in r.people))
    cells = [[_over_seeds(row, best) for row in rest]]
    cells += [_column(best, rest, key) for key in columns]
    lines = [[row.name, *(column[i] for column in cells)] for i, row in enumerate(rest)]
    return Table(["", "distance", *columns], lines, f"Differences from {best.name}, paired")


def _over_seeds(row: Row, best: Row) -> str:
    """The difference in distance to the reference, and in how many seeds it has that sign."""
    own, other = _by_seed(row), _by_seed(best)
    distances = [(own[seed].numbers, other[seed].numbers) for seed in own if seed in other]
    differences = [
        a - b
        for entry, first in distances
        if (a := entry.get("distance")) is not None and (b := first.get("distance")) is not None
    ]
    if not differences:
        return ""
    mean = sum(differences) / len(differences)
    if len(differences) == 1:
        return f"{mean:+.3f}"
    alike = sum(1 for difference in differences if difference * mean > 0)
    return f"{mean:+.3f} ({alike} of {len(differences)} seeds)"


def _column(best: Row, rest: Sequence[Row], key: str) -> list[str]:
    """The cells of one measure: the difference and the adjusted p-value of every entry."""
    tests = [_compare(row, best, key) for row in rest]
    given = [test.p for test in tests if test is not None and test.p is not None]
    adjusted = iter(holm(given))
    cells = []
    for test in tests:
        if test is None:
            cells.append("")
        elif test.p is None:
            cells.append(f"{test.difference:+.3f}")
        else:
            cells.append(f"{test.difference:+.3f}, p {_p(next(adjusted))}")
    return cells


def _compare(row: Row, best: Row, key: str) -> PairedTest | None:
    """The test of an entry against the best one, over the people that both were asked about."""
    own, other = _by_seed(row), _by_seed(best)
    seeds = [seed for seed in own if seed in other]
    pairs: dict[str, list[tuple[float, float]]] = {}
    for seed in seeds:
        scores, others = own[seed].people.get(key, {}), other[seed].people.get(key, {})
        for person in scores:
            if person in others:
                pairs.setdefault(person, []).append((scores[person], others[person]))
    means = [np.mean(some, axis=0) for some in pairs.values()]
    return paired_test([float(m[0]) for m in means], [float(m[1]) for m in means])


def _by_seed(row: Row) -> dict[int, Result]:
    return {result.cell.seed: result for result in row.results}


def _p(value: float) -> str:
    return "< 0.001" if value < 0.001 else f"{value:.3f}"
