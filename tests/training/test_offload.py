"""Optimizer state in a file: the same result with less memory."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

import unsee.files
import unsee.models.memory
import unsee.training.offload
from support.memory import resident_bytes
from unsee.errors import ConfigError, RunError
from unsee.models.vlm import VLM
from unsee.recipes.components import build_method
from unsee.training.distributed import DistributedContext
from unsee.training.offload import OffloadedOptimizerState
from unsee.training.settings import TrainingSettings
from unsee.training.trainer import Trainer
from unsee.types import Data

SETTINGS = TrainingSettings(steps=4, batch_size=3, lr=1e-3, save_every=0)


FEATURES = {"supervision": "features"}


def tuned(
    folder: Path,
    data: Data,
    settings: TrainingSettings,
    dtype: Any = "auto",
    state: Path | None = None,
) -> str:
    vlm = VLM.load(folder, dtype=dtype)
    build_method("vkd", FEATURES).unlearn(vlm, data, Trainer(settings, state))
    return vlm.hash()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_offload_gives_the_same_bits(
    dtype: torch.dtype,
    tiny_folder: Path,
    data: Data,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(unsee.training.offload, "CHUNK", 5000)
    kept: list[int] = []
    keep = OffloadedOptimizerState.store

    def watched(self: OffloadedOptimizerState, state: Any) -> None:
        keep(self, state)
        kept.append(sum(mapping.nbytes for mapping in self._mappings))

    monkeypatch.setattr(OffloadedOptimizerState, "store", watched)
    shelf = tmp_path / "new" / "shelf"
    alone = tuned(tiny_folder, data, SETTINGS, dtype)
    assert not kept
    assert tuned(tiny_folder, data, replace(SETTINGS, offload=str(shelf)), dtype) == alone
    # Updated in chunks and stored once: two values for each weight with a gradient.
    assert len(kept) > 3 * SETTINGS.steps
    weights = VLM.load(tiny_folder, dtype=dtype).parameters("visual").values()
    assert kept[-1] == kept[len(kept) // SETTINGS.steps - 1] > 1.5 * sum(w.nbytes for w in weights)
    assert not list(shelf.iterdir())


@pytest.mark.parametrize("first", [True, False])
def test_offload_may_change_on_resume(
    first: bool, tiny_folder: Path, data: Data, tmp_path: Path
) -> None:
    alone = tuned(tiny_folder, data, SETTINGS)
    away = replace(SETTINGS, offload=str(tmp_path / "shelf"), save_every=2)

    class Broken(Exception):
        pass

    class Break:
        def update(self, step: int, *_: Any) -> None:
            if step == 2:
                raise Broken

    begun, goes_on = (away, SETTINGS) if first else (replace(SETTINGS, save_every=2), away)
    vlm = VLM.load(tiny_folder)
    with pytest.raises(Broken):
        trainer = Trainer(begun, tmp_path / "run", progress=Break())
        build_method("vkd", FEATURES).unlearn(vlm, data, trainer)
    assert tuned(tiny_folder, data, goes_on, state=tmp_path / "run") == alone


def test_offload_keeps_no_state_in_memory_between_updates(tmp_path: Path) -> None:
    weight = torch.nn.Parameter(torch.randn(1000, 1000))
    optimizer = torch.optim.AdamW([weight])
    weight.grad = torch.randn(1000, 1000)
    shelf = OffloadedOptimizerState(tmp_path)
    shelf.step(optimizer, [weight])
    assert weight.grad is None
    average = optimizer.state[weight]["exp_avg"]
    assert resident_bytes(average) == 0
    assert float(average.norm()) > 0
    assert resident_bytes(average) > 0
    shelf.evict()
    assert resident_bytes(average) == 0


def test_offload_refuses_a_file_or_a_full_disk(
    tiny: VLM, data: Data, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    method, before = build_method("vkd", FEATURES), tiny.hash()
    (tmp_path / "file").write_text("mine")
    settings = replace(SETTINGS, offload=str(tmp_path / "file"))
    with pytest.raises(ConfigError, match="offload .*file is a file"):
        method.unlearn(tiny, data, Trainer(settings))
    with pytest.raises(RunError, match="cannot be written"):
        OffloadedOptimizerState(tmp_path / "file" / "shelf").store({0: {"exp_avg": torch.zeros(8)}})
    monkeypatch.setattr(unsee.files, "free_space", lambda path: (path.parent, 1000))
    settings = replace(SETTINGS, offload=str(tmp_path / "shelf"))
    with pytest.raises(ConfigError, match=r"GB are needed and 0\.0 GB are free"):
        method.unlearn(tiny, data, Trainer(settings))
    assert tiny.hash() == before
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_offload_space_depends_on_adapters_and_precision(
    tiny_folder: Path, data: Data, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Adapters need little space; with bf16, the state is in float32 and twice as large."""
    vlm = VLM.load(tiny_folder, dtype=torch.bfloat16)
    room = 5 * sum(weight.numel() for weight in vlm.parameters("visual").values())
    monkeypatch.setattr(unsee.files, "free_space", lambda path: (path.parent, room))
    method = build_method("vkd", FEATURES)
    settings = replace(SETTINGS, offload=str(tmp_path / "shelf"))
    method.validate(data, settings, vlm)
    with pytest.raises(ConfigError, match="GB are needed"):
        method.validate(data, replace(settings, precision="bf16"), vlm)
    method.validate(data, replace(settings, precision="bf16", lora=4), vlm)


def test_offload_is_refused_on_gpus_and_several_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = replace(SETTINGS, offload="shelf", accumulate=2)
    with pytest.raises(ConfigError, match="one process on a CPU"):
        DistributedContext.initialize(settings, "cuda")
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ConfigError, match="parallel=fsdp"):
        DistributedContext.initialize(settings, "cpu")
