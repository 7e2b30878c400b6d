"""Metrics of a whole split against hand-computed values and SciPy."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats
from scipy.spatial.distance import jensenshannon

from support.metrics import score_rows, set_estimate
from unsee.metrics.utility import harmonic_mean


def test_ks_js_and_forget_quality_equal_scipy() -> None:
    values = [0.05, 0.15, 0.35, 0.5, 0.55, 0.8, 0.9, 1.0]
    reference = [0.1, 0.9] * 4
    rows = score_rows(values)
    for row in rows:
        del row["scores"]["truth_ratio"]  # type: ignore[attr-defined]
    expected = stats.ks_2samp(values, reference)
    assert set_estimate("ks", rows).value == pytest.approx(expected.statistic)
    assert set_estimate("forget_quality", rows).value == pytest.approx(expected.pvalue)
    p, q = (np.histogram(v, 20, (0, 1))[0] for v in (values, reference))
    distance = jensenshannon(p, q, base=2)
    assert set_estimate("js", rows).value == pytest.approx(distance, abs=1e-9)


def test_ks_js_and_forget_quality_of_the_reference_itself_show_no_difference() -> None:
    same = score_rows([0.1, 0.9] * 4)
    assert (set_estimate("ks", same).value, set_estimate("js", same).value) == (0, 0)
    assert set_estimate("forget_quality", same).value == pytest.approx(1)


def test_joint_scores_equal_hand_computed_values() -> None:
    rows = score_rows([1, 1, 1, 0, 0, 0, 1, 1])
    assert set_estimate("joint_right", rows).value == 0.5
    assert set_estimate("joint_wrong", rows).value == 0.25
    pair = score_rows([0.2, 0.6])
    assert set_estimate("joint_rouge", pair, False).value == pytest.approx(2 * 0.12 / 0.8)
    assert set_estimate("joint_rouge", pair, True).value == pytest.approx(0.4 / 0.8)
    assert set_estimate("joint_rouge", score_rows([0, 0])).value == 0


def test_ape_averages_paraphrased_questions_of_each_group() -> None:
    rows = score_rows([1.0, 0.5, 0.0, 0.25, 0.25, 0.25])
    for row, group in zip(rows, "aaaabb", strict=True):
        row["group"] = group
    rows[0]["id"], rows[4]["id"] = "a", "b"
    # Group a: (0.5 + 0 + 0.25) / 3 = 0.25; group b: 0.25.
    assert set_estimate("ape", rows).value == pytest.approx(0.25)
    assert set_estimate("ape", rows).n == 2


def test_model_utility_is_a_harmonic_mean() -> None:
    # Probability and ROUGE 0.5, truth ratio max(0, 1 - 0.5) = 0.5; absent scores are left out.
    assert set_estimate("model_utility", score_rows([0.5, 0.5])).value == pytest.approx(0.5)
    assert harmonic_mean([0.5, 1.0]) == pytest.approx(2 / 3) == stats.hmean([0.5, 1.0])
    assert harmonic_mean([0.0, 1.0]) == 0 and math.isnan(harmonic_mean([]))
