"""Paired tests between the entries of a comparison, against values computed by hand."""

from __future__ import annotations

from pathlib import Path

import pytest

from unsee.studies.comparison import Cell
from unsee.studies.paired_tests import holm, paired_table, paired_test
from unsee.studies.results import Result, Row


def test_paired_test_counts_sign_flips_as_by_hand() -> None:
    # Differences 1, 2, 3, 4, 5, -6 sum to 9. Flips that reach +9: those whose negated numbers sum
    # to at most 6 out of {1..6}: {}, 1, 2, 3, 4, 5, 6, 12, 13, 14, 15, 23, 24, 123 = 14; and as
    # many reach -9: 28 of 64.
    test = paired_test([1, 2, 3, 4, 5, 0], [0, 0, 0, 0, 0, 6])
    assert test is not None
    assert (test.difference, test.pairs, test.p) == (1.5, 6, pytest.approx(28 / 64))


def test_paired_test_gives_no_p_value_to_few_people_and_one_to_equal_scores() -> None:
    few = paired_test([1.0] * 5, [0.0] * 5)
    assert few is not None
    assert (few.difference, few.p) == (1.0, None)
    equal = paired_test([0.3] * 8, [0.3] * 8)
    assert equal is not None
    assert (equal.difference, equal.p) == (0.0, 1.0)
    assert paired_test([], []) is None


def test_paired_test_gives_equal_p_values_when_flips_are_drawn() -> None:
    scores = [0.1 * i for i in range(20)]
    first, again = (paired_test(scores, [0.9] * 20) for _ in range(2))
    assert first == again
    assert first is not None
    assert first.p is not None
    assert 0.5 < first.p <= 1


def test_holm_never_lowers_a_p_value_and_keeps_their_order() -> None:
    assert holm([]) == []
    assert holm([0.5, 0.001, 0.9]) == [1.0, 0.003, 1.0]


def _row(name: str, by_seed: dict[int, dict[str, float]], distance: float) -> Row:
    results = [
        Result(
            Cell(name, "10", seed, Path(name)),
            numbers={"distance": distance + seed / 100},
            people={"retain_holdout/vqa": people},
        )
        for seed, people in by_seed.items()
    ]
    return Row(name, results)


def test_paired_table_pairs_people_and_seeds_that_both_have() -> None:
    people = {f"person {i}": 0.5 for i in range(6)}
    best = _row("vkd", {0: people, 1: people}, 0.1)
    worse = dict.fromkeys(people, 0.4)
    other = _row("npo", {0: worse, 1: people | {"stranger": 0.0}, 2: {"person 0": 0.0}}, 0.2)
    table = paired_table([best, other, Row("target", best.results, is_model=True)])
    assert table is not None
    # Over seeds 0 and 1, each person's mean is 0.45 against 0.5: 2 of 64 flips.
    assert table.rows == [["npo", "+0.100 (2 of 2 seeds)", "-0.050, p 0.031"]]
    assert table.head == ["", "distance", "retain_holdout/vqa"]


def test_paired_table_needs_two_entries() -> None:
    best = _row("vkd", {0: {"a": 1.0}}, 0.1)
    assert paired_table([best]) is None
    assert paired_table([best, Row("failed", [Result(best.results[0].cell)])]) is None
