"""Tests of equivalence: values computed by hand, and the three outcomes."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from unsee.evaluation.equivalence import (
    PersonScores,
    compare_intervals,
    compare_people,
    equivalence,
    measured_people,
    people_needed,
    person_scores,
    unsigned_gaps,
)


def test_equivalence_is_the_paired_t_interval_at_90_percent() -> None:
    """Differences 3, 0, -1, 2 %: mean 1 %, variance (4+1+4+1)/3, t(0.95, 3) = 2.3534."""
    test = equivalence([0.03, 0.0, -0.01, 0.02])
    error = math.sqrt(10 / 3) / 100 / 2
    assert test.difference == pytest.approx(0.01)
    ends = (0.01 - 2.35336 * error, 0.01 + 2.35336 * error)
    assert (test.low, test.high) == pytest.approx(ends, rel=1e-5)
    assert (test.outcome, test.people, test.test) == ("indistinguishable", 4, "paired t")
    # The larger of the two one-sided p-values, as scipy computes them.
    low = stats.ttest_1samp([0.03, 0.0, -0.01, 0.02], -0.05, alternative="greater").pvalue
    high = stats.ttest_1samp([0.03, 0.0, -0.01, 0.02], 0.05, alternative="less").pvalue
    assert test.p == pytest.approx(max(low, high))


@pytest.mark.parametrize(
    ("differences", "outcome"),
    [
        ([0.0] * 4, "indistinguishable"),
        ([0.2, 0.3, 0.25, 0.3], "distinguishable"),
        ([-0.2, -0.3, -0.25, -0.3], "distinguishable"),
        ([0.2, -0.2, 0.1, 0.0], "too_few"),
        ([0.05] * 4, "too_few"),
        ([0.0], "too_few"),
    ],
)
def test_equivalence_is_decided_by_the_interval_and_the_margin(
    differences: list[float], outcome: str
) -> None:
    assert equivalence(differences).outcome == outcome


def test_equivalence_is_two_sided_and_a_wider_margin_lets_more_pass() -> None:
    differences = [0.04, 0.05, 0.06, 0.05]
    for sign in (1, -1):
        values = [sign * value for value in differences]
        assert equivalence(values, 0.02).outcome == "distinguishable"
        assert equivalence(values, 0.05).outcome == "too_few"
        assert equivalence(values, 0.10).outcome == "indistinguishable"


def test_equivalence_takes_no_few_equal_answers_for_certain() -> None:
    """Q equal answers bound the share of others by 1 - 0.05^(1/Q), which 59 bring below 0.05."""
    test = equivalence([0.0] * 4, resolution=1.0)
    assert (test.outcome, test.needed) == ("too_few", 59)
    assert test.high == pytest.approx(1 - 0.05**0.25)
    assert test.p == pytest.approx(0.95**4)
    assert equivalence([0.0] * 58, resolution=1.0).outcome == "too_few"
    assert equivalence([0.0] * 59, resolution=1.0).outcome == "indistinguishable"
    # Four people with 15 questions each are enough, two with 10 are not: six would be.
    assert equivalence([0.0] * 4, resolution=1 / 15).outcome == "indistinguishable"
    few = equivalence([0.0] * 2, resolution=1 / 10)
    assert (few.outcome, few.needed) == ("too_few", 6)


@pytest.mark.parametrize("difference", [0.0, 0.02, 0.1, -0.1])
def test_people_needed_reaches_the_power_that_it_promises(difference: float) -> None:
    needed, spread = people_needed(difference, 0.1, 0.05), 0.1
    assert needed is not None
    rng = np.random.default_rng(0)
    draws = rng.normal(difference, spread, (2000, needed))
    error = draws.std(axis=1, ddof=1) / math.sqrt(needed)
    half = stats.t.ppf(0.95, needed - 1) * error
    low, high = draws.mean(axis=1) - half, draws.mean(axis=1) + half
    inside = (low > -0.05) & (high < 0.05)
    decided = inside if abs(difference) < 0.05 else (low > 0.05) | (high < -0.05)
    assert decided.mean() == pytest.approx(0.8, abs=0.03)


def test_people_needed_by_hand() -> None:
    """Normal approximation of a gap of 0.001 and a spread of 0.1: ((1.6449 + 0.8416) * 100)^2."""
    assert people_needed(0.049, 0.1, 0.05) == math.ceil((100 * (1.6448536 + 0.8416212)) ** 2)
    assert people_needed(0.05, 0.1, 0.05) is None
    assert people_needed(0.01, 0.0, 0.05) == 2


def test_person_scores_leave_out_what_is_unscored() -> None:
    scores = person_scores([1.0, 0.0, None, float("nan"), 1.0], ["a", "a", "a", "b", "c"])
    assert scores == PersonScores({"a": 0.5, "c": 1.0}, 1.0)
    # Scores between 0 and 1 take any value.
    assert person_scores([0.25, 1.0], ["a", "b"]).resolution == 0.0
    assert person_scores([], []) == PersonScores()


def test_compare_people_pairs_those_that_both_models_were_asked_about() -> None:
    test = compare_people(
        PersonScores({"a": 0.3, "b": 0.2, "c": 0.9}), PersonScores({"b": 0.1, "a": 0.1, "d": 0.0})
    )
    assert test is not None
    assert (test.people, test.difference) == (2, pytest.approx(0.15))
    assert compare_people(PersonScores({"a": 0.3}), PersonScores({"b": 0.1})) is None


def test_compare_people_finds_a_model_like_itself() -> None:
    rng = np.random.default_rng(0)
    scores = PersonScores(dict(zip("abcdef", rng.random(6), strict=True)), 0.02)
    test = compare_people(scores, scores)
    assert test is not None and test.outcome == "indistinguishable"


def test_compare_intervals_takes_the_errors_from_their_widths() -> None:
    """Half widths of 3.92 % are errors of 2 %: the difference has one of 2.83 %."""
    ours, theirs = (0.6, 0.5608, 0.6392), (0.5, 0.4608, 0.5392)
    test = compare_intervals(ours, theirs, 20, margin=0.2)
    assert test.difference == pytest.approx(0.1)
    assert test.high == pytest.approx(0.1 + 1.6449 * math.hypot(0.02, 0.02), rel=1e-3)
    assert (test.outcome, test.test) == ("indistinguishable", "unpaired normal")
    assert compare_intervals(ours, theirs, 20, margin=0.05).outcome == "distinguishable"
    unknown = compare_intervals((0.6, None, None), theirs, 4)
    assert (unknown.outcome, unknown.needed, unknown.low) == ("too_few", 5, None)


def test_measured_people_read_rows_by_measure() -> None:
    rows = [
        {
            "split": "forget",
            "modality": "vqa",
            "id": name,
            "concept": person,
            "scores": {"accuracy": score},
        }
        for name, person, score in (("1", "a", 1.0), ("2", "a", 0.0), ("3", None, None))
    ]
    people = measured_people(rows, ["accuracy", "ks"])
    assert people == {"forget/vqa/accuracy": PersonScores({"a": 0.5}, 0.5)}


def test_unsigned_gaps_do_not_cancel() -> None:
    """Two triangles of 0.3 / 2: the signed mean is 0. The largest gap is the first of equals."""
    assert unsigned_gaps([0, 10], [0.3, -0.3]) == (pytest.approx(0.15), (0, 0.3))
    assert unsigned_gaps([0, 10], [0.1, 0.3]) == (pytest.approx(0.2), (10, 0.3))
    assert unsigned_gaps([5], [-0.2]) == (0.2, (5, -0.2))
    assert unsigned_gaps([], []) is None
