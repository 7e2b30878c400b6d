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
