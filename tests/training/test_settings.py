"""Training settings: the learning rate at every step."""

from __future__ import annotations

import pytest

from unsee.training.settings import TrainingSettings


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [("constant", 1.0), ("linear", 0.5), ("cosine", 0.5)],
)
def test_rate_half_way_through_each_schedule(schedule: str, expected: float) -> None:
    settings = TrainingSettings(steps=100, lr=1.0, warmup=0.0, schedule=schedule)
    # Without warm-up one step still counts as the start.
    assert settings.rate(50) == pytest.approx(expected, abs=0.02)
    assert TrainingSettings(steps=100, lr=1.0, warmup=0.1).rate(4) == pytest.approx(0.5)
