"""Unlearning runs whose weights tests compare, and a command that trains adapters."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from support.tables import table
from unsee.models.vlm import VLM
from unsee.recipes.components import build_method
from unsee.training.loop import Progress
from unsee.training.settings import TrainingSettings
from unsee.training.trainer import Trainer
from unsee.types import Data


def unlearned(
    folder: Path,
    data: Data,
    name: str,
    settings: TrainingSettings,
    state: Path | None = None,
    progress: Progress | None = None,
    **fields: Any,
) -> dict[str, Tensor]:
    """Returns copies of the weights of a checkpoint after unlearning.

    Args:
        folder: The checkpoint.
        data: What to forget and what to keep.
        name: The method.
        settings: How to train.
        state: Folder of the training state and the log; None keeps neither.
        progress: What is told of every step.
        **fields: Fields of the method.
    """
    vlm = VLM.load(folder)
    trainer = Trainer(settings, state, state / "log.jsonl" if state else None, progress)
    build_method(name, fields).unlearn(vlm, data, trainer)
    return {n: p.detach().clone() for n, p in vlm.parameters().items()}


def assert_near(expected: Mapping[str, Tensor], weights: Mapping[str, Tensor]) -> None:
    """Equal within rounding; k_proj.bias has no true gradient, so Adam amplifies its noise."""
    for name, value in expected.items():
        if not name.endswith("k_proj.bias"):
            assert torch.allclose(value, weights[name], atol=1e-4), name


def lora_command(folder: Path, checkpoint: Path, data: Data) -> list[Any]:
    """Returns an `unsee unlearn` command that trains LoRA adapters for three steps.

    Args:
        folder: Where the tables of the data are written; a new folder.
        checkpoint: The model.
        data: What to forget and what to keep.
    """
    forget = table(folder / "bo-lind.jsonl", list(data.forget))
    retain = table(folder / "others.jsonl", list(data.retain))
    command = ["unlearn", "--model", checkpoint, "--forget", forget, "--retain", retain, "--json"]
    for setting in ("steps=3", "batch_size=4", "lr=1e-2", "lora=4"):
        command += ["--set", setting]
    return command
