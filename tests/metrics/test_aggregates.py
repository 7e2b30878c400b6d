"""Published aggregates of measures."""

from __future__ import annotations

import pytest

from unsee.errors import ConfigError
from unsee.metrics import aggregates


def test_aggregates_equal_hand_computed_values() -> None:
    assert aggregates.task_forgetting(0.2, 0.5, 0.8) == pytest.approx(0.5)
    assert aggregates.forgetting_quality(0.5, 0.5, 0.5, 0.2, 0.3) == pytest.approx(0.6)
    assert aggregates.utility(0.4, 0.6) == aggregates.robustness(0.25, 0.5, 0.75) == 0.5
    # The retain-only model of the paper: .696, .444 and .776 make .638 (rounded: .639).
    assert aggregates.overall(0.696, 0.444, 0.776) == pytest.approx(0.638, abs=1e-3)
    assert [aggregates.membership_score(auc) for auc in (0, 0.5, 0.75, 1)] == [0, 1, 0.5, 0]
    with pytest.raises(ConfigError, match="0..1"):
        aggregates.utility(40, 0.5)


def test_lifelong_drift_equals_hand_computed_values() -> None:
    # GA on LLaVA-v1.6-7B: request A falls from .38 to .01, and D keeps its .06.
    assert aggregates.lifelong_drift([0.38, 0.06], [0.01, 0.06]) == pytest.approx(0.37)
    with pytest.raises(ConfigError, match="compares 2 scores with 1"):
        aggregates.lifelong_drift([0.5, 0.5], [0.5])
    with pytest.raises(ConfigError, match="0..1"):
        aggregates.lifelong_drift([50], [0.5])
