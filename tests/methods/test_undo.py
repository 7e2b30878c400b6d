"""UNDO: its noise, its distillation, and its two stages."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from support.fixed_model import STUDENT, TEACHER, kl, loss_of
from unsee.methods import METHODS
from unsee.methods.undo import UNDO, shrink_and_perturb
from unsee.models.vlm import VLM
from unsee.training.settings import TrainingSettings
from unsee.training.trainer import Trainer
from unsee.types import Data

SETTINGS = TrainingSettings(steps=2, batch_size=4, lr=1e-3)


class Stopped(Exception):
    """Breaks a run off."""


def test_shrink_and_perturb_matches_hand_computation() -> None:
    """Vectors and scalars only shrink; a matrix of 3 x 5 gets noise of at most sqrt(6 / 8)."""
    start = {"w": torch.ones(3, 5), "b": torch.full((5,), 2.0), "s": torch.tensor(4.0)}
    moved = {name: nn.Parameter(value.clone()) for name, value in start.items()}
    shrink_and_perturb(moved, alpha=0.25, beta=0.5, seed=1)
    assert moved["b"].tolist() == [1.5] * 5
    assert float(moved["s"].detach()) == 3.0
    noise = (moved["w"].detach() - 0.75) / (0.25 * 0.5)
    by_hand = torch.empty(3, 5)
    nn.init.xavier_uniform_(by_hand, generator=torch.Generator().manual_seed(1))
    assert torch.allclose(noise, by_hand, atol=1e-5)
    assert 0.1 < float(noise.abs().max()) <= math.sqrt(6 / 8) + 1e-5
    again = {name: nn.Parameter(value.clone()) for name, value in start.items()}
    shrink_and_perturb(again, alpha=0.25, beta=0.5, seed=2)
    assert not torch.equal(again["w"], moved["w"])


def test_undo_loss_is_the_divergence_from_the_unlearned_model() -> None:
    drift = (kl(0.5, 0.25) + kl(0.25, 0.5)) / 2
    assert loss_of("undo", STUDENT, TEACHER) == pytest.approx({"forget": drift, "retain": drift})


def test_undo_distils_the_model_that_the_forget_loss_unlearned(
    tiny: VLM, tiny_folder: Path, data: Data, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its teacher has the weights that NPO alone gives in as many steps at the same rate."""
    teachers: list[str] = []
    real: Callable[..., Any] = UNDO.loss

    def watch(self: Any, student: VLM, forget: Any, retain: Any, teacher: VLM) -> Any:
        teachers.append(teacher.hash())
        return real(self, student, forget, retain, teacher)

    monkeypatch.setattr(UNDO, "loss", watch)
    result = UNDO(unlearn_steps=3, unlearn_lr=2e-3).unlearn(tiny, data, Trainer(SETTINGS))
    alone = VLM.load(tiny_folder)
    METHODS.get("npo")().unlearn(alone, data, Trainer(replace(SETTINGS, steps=3, lr=2e-3)))
    assert set(teachers) == {alone.hash()}
    assert result.choices["unlearning"]["steps"] == 3
    assert result.history.steps == SETTINGS.steps
    assert tiny.hash() != alone.hash()


def test_undo_resumes_in_its_first_stage(tiny_folder: Path, data: Data, tmp_path: Path) -> None:
    """The stage's state is in a folder of its own; what it trained is not trained again."""
    settings = replace(SETTINGS, steps=3, save_every=1)
    seen: list[int] = []

    class Stop:
        def update(self, step: int, steps: int, terms: Mapping[str, float]) -> None:
            seen.append(step)
            if step == 2 and len(seen) == 2:
                raise Stopped

    def run(folder: Path, progress: Any = None) -> str:
        vlm = VLM.load(tiny_folder)
        trainer = Trainer(settings, folder, folder / "log.jsonl", progress)
        UNDO(unlearn_steps=2).unlearn(vlm, data, trainer)
        return vlm.hash()

    whole = run(tmp_path / "whole")
    with pytest.raises(Stopped):
        run(tmp_path / "broken", Stop())
    first = (tmp_path / "broken" / "unlearning" / "state").read_bytes()
    assert run(tmp_path / "broken", Stop()) == whole
    assert (tmp_path / "broken" / "unlearning" / "state").read_bytes() == first
    assert seen == [1, 2, 3]
