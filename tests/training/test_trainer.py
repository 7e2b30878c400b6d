"""The trainer and the result of a training."""

from __future__ import annotations

from dataclasses import FrozenInstanceError, replace

import pytest

from unsee.methods import METHODS
from unsee.models.vlm import VLM
from unsee.training.settings import TrainingSettings
from unsee.training.state import TrainingHistory
from unsee.training.trainer import Trainer, TrainingResult
from unsee.types import Data

SETTINGS = TrainingSettings(steps=2, batch_size=2, lr=1e-3)


def test_trainer_is_frozen_and_may_be_used_again(tiny: VLM, data: Data) -> None:
    trainer = Trainer(SETTINGS)
    with pytest.raises(FrozenInstanceError):
        trainer.settings = SETTINGS  # type: ignore[misc]
    first = METHODS.get("grad_diff")().unlearn(tiny, data, trainer)
    second = METHODS.get("grad_diff")().unlearn(tiny, data, trainer)
    assert first is not second
    assert first.history.steps == second.history.steps == 2
    assert first.history.last != second.history.last


def test_fit_returns_the_merged_adapters(tiny: VLM, data: Data) -> None:
    before = tiny.hash()
    trainer = Trainer(replace(SETTINGS, lora=2))
    result = METHODS.get("grad_diff")().unlearn(tiny, data, trainer)
    assert result.adapters is not None
    assert result.adapters.lora.rank == 2
    assert tiny.hash() != before
    assert not any("lora_" in name for name in tiny.parameters())


def test_training_result_repr_is_one_short_line() -> None:
    history = TrainingHistory(steps=3, seconds=1.25, last={"forget": -0.5, "retain": 2.0})
    result = TrainingResult(history, choices={"mask": {"visual": {"chosen": 3, "of": 9}}})
    assert repr(result) == (
        "TrainingResult(steps=3, seconds=1.2, last=(forget=-0.5, retain=2), choices=[mask])"
    )
