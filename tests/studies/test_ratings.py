"""Ratings of metrics, computed by hand."""

from __future__ import annotations

import pytest

from support.ratings import record
from unsee.metrics import METRICS
from unsee.studies.ratings import (
    RISING,
    knowledge,
    quantization_rating,
    rate,
    relearning_rating,
    threshold,
)
from unsee.studies.ratings_page import PUBLISHED

POOLS = [
    record("reference", 0.1, 0.4),
    record("target", 0.9),
    *(record(f"saw-{i}", v) for i, v in enumerate((0.8, 0.6, 0.3))),
    *(record(f"unseen-{i}", v) for i, v in enumerate((0.1, 0.2, 0.4))),
]


def test_rate_follows_the_formulas() -> None:
    """8 of 9 pairs are in order; the threshold is 0.25, the lower of two that miss one each."""
    unlearned = [
        # R = 0.3 / 0.4, Q = 0.2 / 0.6
        record("unlearned-0", 0.2, 0.6),
        # R = Q = 1: nothing comes back
        record("unlearned-1", 0.24, 0.1),
        # Left out: the metric says that it knows; the model is broken; the metric is missing.
        record("unlearned-2", 0.7, 0.9),
        record("unlearned-3", 0.0, 0.0, utility=0.7),
        record("unlearned-4", 0.0, relearned={}),
    ]
    for rating in rate([*POOLS, *unlearned]):
        assert rating.metric in ("bleu", "truth_ratio")
        assert rating.faithfulness == pytest.approx(8 / 9)
        assert rating.low <= rating.faithfulness <= rating.high
        assert rating.models == 2
        assert rating.relearning == pytest.approx((0.75 + 1) / 2)
        assert rating.quantization == pytest.approx((1 / 3 + 1) / 2)
        robust = 2 / (1 / 0.875 + 1.5)
        assert rating.robustness == pytest.approx(robust)
        assert rating.overall == pytest.approx(2 / (9 / 8 + 1 / robust))
    assert knowledge("bleu", {"bleu": 0.2}) == 0.2
    assert knowledge("truth_ratio", {"truth_ratio": 0.2}) == pytest.approx(0.8)


def test_rate_without_unlearned_models_gives_no_robustness() -> None:
    (first, *_) = rate(POOLS)
    assert first.models == 0
    assert first.relearning is first.quantization is first.robustness is first.overall is None


def test_relearning_and_quantization_rating_at_their_limits() -> None:
    assert relearning_rating(0.2, 0.4) == pytest.approx(0.5)
    assert (
        relearning_rating(0.4, 0.2)
        == relearning_rating(0.2, 0.0)
        == relearning_rating(0.0, -0.1)
        == 1
    )
    # The reference gains nothing, or loses; the unlearned model gains.
    assert relearning_rating(0.0, 0.1) == relearning_rating(-0.1, 0.1) == 0
    # Both lose.
    assert relearning_rating(-0.2, -0.1) == 1
    assert quantization_rating(0.2, 0.8) == pytest.approx(0.25)
    assert quantization_rating(0.2, 0.1) == quantization_rating(0.0, 0.0) == 1
    assert quantization_rating(0.0, 0.1) == 0


def test_threshold_separates_the_pools() -> None:
    assert threshold([0.8, 0.9], [0.1, 0.2]) == pytest.approx(0.5)
    assert threshold([0.5], [0.5]) == 0.5
    # Two cuts miss one each: the lower one, which calls fewer models unlearned.
    assert threshold([0.2, 0.8], [0.1, 0.3]) == pytest.approx(0.15)


# Of unsafe questions, mixed by split, and of groups beside each other.
APART = ("attack_success", "truth_ratio", "parity_gap")


def test_rising_names_all_metrics_that_rise_with_forgetting() -> None:
    """A metric whose direction is not that of its `better` must be named, or be forgotten here."""
    for name in METRICS.names():
        kind = METRICS.get(name)
        compares = getattr(kind, "compares_with_reference", False)
        if kind.__module__.startswith("unsee.") and name not in APART:
            falls = (kind.better == "lower") != compares
            assert falls == (name in RISING), name
    assert set(PUBLISHED) - set(METRICS.names()) == {
        "loss",
        "zlib",
        "min_k",
        "min_k_plus",
        "grad_norm",
    }
