"""Memory-mapped weights that are dropped from memory after use."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

import unsee.files
import unsee.models.memory
import unsee.training.offload
from support.memory import resident_bytes
from unsee.features.capture import layer_outputs
from unsee.features.layers import choose_layers
from unsee.models.vlm import VLM
from unsee.types import Data


@pytest.fixture
def teacher(tiny_folder: Path, monkeypatch: pytest.MonkeyPatch) -> VLM:
    monkeypatch.setattr(unsee.models.memory, "MIN_EVICTED", 1)
    return VLM.load(tiny_folder, visual_only=True)


def looked(vlm: VLM, data: Data) -> list[Tensor]:
    inputs = vlm.collate_pictures([s.picture.open() for s in data.forget[:2] if s.picture])
    return list(layer_outputs(vlm, inputs, choose_layers(vlm, ["all"])).values())


@torch.no_grad()
def test_evict_after_forward_frees_memory_and_keeps_outputs(teacher: VLM, data: Data) -> None:
    before = looked(teacher, data)
    weight = max(teacher.parameters("visual").values(), key=lambda p: p.nbytes)
    there = resident_bytes(weight)
    teacher.evict_after_forward()
    again = looked(teacher, data)
    assert resident_bytes(weight) < there
    assert all(torch.equal(a, b) for a, b in zip(before, again, strict=True))
    # A copy keeps its own weights, which are not evicted with those of the original.
    twin = teacher.copy()
    del teacher
    assert all(torch.equal(a, b) for a, b in zip(before, looked(twin, data), strict=True))


@torch.no_grad()
def test_evict_after_forward_keeps_changed_weights(teacher: VLM, data: Data) -> None:
    for parameter in teacher.parameters("visual").values():
        parameter.mul_(1.5)
    before, digest = looked(teacher, data), teacher.hash("visual")
    teacher.evict_after_forward()
    again = looked(teacher, data)
    assert teacher.hash("visual") == digest
    assert all(torch.equal(a, b) for a, b in zip(before, again, strict=True))
