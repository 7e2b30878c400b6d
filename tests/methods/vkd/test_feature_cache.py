"""The feature cache and the frozen prefix: same results with fewer passes, within bounds."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

import unsee.methods.vkd.feature_cache
import unsee.methods.vkd.method
from unsee.data.selection import one_sample_per_picture
from unsee.errors import ConfigError, RunError
from unsee.features.capture import layer_outputs
from unsee.features.pictures import picture_batches
from unsee.methods import METHODS
from unsee.methods.vkd.feature_cache import GIGABYTE, FeatureCache, refuse_small, used
from unsee.models.checkpoint import hash_tensors
from unsee.models.vlm import VLM
from unsee.training.settings import TrainingSettings
from unsee.training.trainer import Trainer
from unsee.types import Data

SETTINGS = TrainingSettings(steps=4, batch_size=3, lr=1e-3)
# Without an inner attacker, whose pictures the teacher sees too.
STILL = {
    "supervision": "features",
    "augment": 0.0,
    "relearn_steps": 0,
}
MOVED = {"supervision": "features"}
UPPER = {"train_layers": ("upper",)}
NAMES = ["encoder.0", "encoder.1", "projector"]


@pytest.fixture
def passes(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Counts the teacher's forward passes in training steps."""
    count = [0]

    def counted(vlm: VLM, inputs: dict[str, Tensor], names: Sequence[str]) -> Mapping[str, Tensor]:
        count[0] += 1
        return layer_outputs(vlm, inputs, names)

    monkeypatch.setattr(unsee.methods.vkd.feature_cache, "layer_outputs", counted)
    return count


def trained(
    folder: Path, data: Data, settings: TrainingSettings = SETTINGS, **fields: Any
) -> tuple[VLM, Mapping[str, float]]:
    """The model that a run leaves, and its last loss terms."""
    vlm, trainer = VLM.load(folder), Trainer(settings)
    result = METHODS.get("vkd")(**fields).unlearn(vlm, data, trainer)
    return vlm, result.history.last


def unlearned(*given: Any, **fields: Any) -> tuple[str, Mapping[str, float]]:
    """The hash of the weights that a run leaves, and its last loss terms."""
    vlm, last = trained(*given, **fields)
    return vlm.hash(), last


def limit_memory(monkeypatch: pytest.MonkeyPatch, gigabytes: float) -> None:
    """Lets the methods' caches hold so much in memory."""
    limited = partial(FeatureCache, memory=gigabytes)
    monkeypatch.setattr(unsee.methods.vkd.method, "FeatureCache", limited)


@pytest.mark.parametrize("fields", [STILL, STILL | UPPER, STILL | {"erase": "push"}])
def test_cache_runs_the_teacher_once_for_pictures_that_are_not_augmented(
    fields: dict[str, Any],
    tiny_folder: Path,
    data: Data,
    tmp_path: Path,
    passes: list[int],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    limit_memory(monkeypatch, 0.0)
    plain, last = trained(tiny_folder, data, **fields)
    assert passes[0] == 2 * SETTINGS.steps
    passes[0] = 0
    limit_memory(monkeypatch, 1.0)
    once, terms = trained(tiny_folder, data, **fields)
    # Six pictures a side, three a step: all are known after two steps.
    assert passes[0] == 4
    # Equal up to rounding: a picture stands at another place in another batch.
    assert terms == pytest.approx(last, rel=1e-4)
    start, one, two = (
        torch.cat([p.detach().flatten() for p in vlm.parameters("visual").values()])
        for vlm in (VLM.load(tiny_folder), plain, once)
    )
    assert float((one - two).norm()) <= 0.01 * float((one - start).norm())
    for memory in (0.0, 1.0):
        limit_memory(monkeypatch, memory)
        assert unlearned(tiny_folder, data, **fields, cache=str(tmp_path)) == (once.hash(), terms)
        assert passes[0] == 8


@pytest.mark.parametrize("fields", [MOVED | UPPER, {"w_forget": 0.0}])
def test_cache_folder_serves_augmented_views_to_another_run(
    fields: dict[str, Any], tiny_folder: Path, data: Data, tmp_path: Path, passes: list[int]
) -> None:
    plain = unlearned(tiny_folder, data, **fields)
    for expected in (2 * SETTINGS.steps, 0):
        passes[0] = 0
        assert unlearned(tiny_folder, data, **fields, cache=str(tmp_path)) == plain
        assert passes[0] == expected
    # A student that goes another way has the same teacher; other views or weights have not.
    assert unlearned(tiny_folder, data, **fields, w_keep=5.0, cache=str(tmp_path)) != plain
    assert passes[0] == 0
    other = replace(SETTINGS, seed=1)
    assert unlearned(tiny_folder, data, other, **fields, cache=str(tmp_path)) == unlearned(
        tiny_folder, data, other, **fields
    )


@pytest.mark.parametrize("settings", [SETTINGS, replace(SETTINGS, lora=2)])
@pytest.mark.parametrize("fields", [{}, {"relearn_steps": 1}])
def test_frozen_prefix_replays_what_the_student_would_compute(
    fields: dict[str, Any],
    settings: TrainingSettings,
    tiny_folder: Path,
    data: Data,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    shared = unlearned(tiny_folder, data, settings, **MOVED, **UPPER, **fields)
    calls: list[Any] = []
    monkeypatch.setattr(
        unsee.methods.vkd.method, "frozen_prefix", lambda *given: calls.append(given) or []
    )
    assert unlearned(tiny_folder, data, settings, **MOVED, **UPPER, **fields) == shared
    assert calls


@pytest.fixture
def inputs(tiny: VLM, data: Data) -> dict[str, Tensor]:
    """Six pictures in a batch."""
    pictures = [s.picture for s in one_sample_per_picture(data.forget) if s.picture is not None]
    (batch,) = picture_batches(tiny, pictures)
    return batch


def test_cache_replaces_and_names_damaged_and_swapped_files(
    tiny: VLM,
    inputs: dict[str, Tensor],
    tmp_path: Path,
    passes: list[int],
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The hash of a file covers its key, so that a valid file of another picture is noticed."""
    first = FeatureCache(tiny, tmp_path, memory=0, disk=1).outputs(inputs, NAMES)
    path, other = sorted(tmp_path.iterdir())[:2]
    whole = path.read_bytes()
    unbound = {"sha256": hash_tensors(load_file(path))}
    damages: dict[str, Callable[[], object]] = {
        "flipped": lambda: path.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1])),
        "cut": lambda: path.write_bytes(whole[:-9]),
        "no safetensors": lambda: path.write_bytes(b"x"),
        "empty": lambda: path.write_bytes(b""),
        "swapped": lambda: shutil.copyfile(other, path),
        "of an earlier version": lambda: save_file(load_file(path), path, unbound),
        "a pipe": lambda: (path.unlink(), os.mkfifo(path)),
    }
    for damage, apply in damages.items():
        apply()
        passes[0] = 0
        for expected, warnings in ((1, 1), (1, 0)):
            caplog.clear()
            again = FeatureCache(tiny, tmp_path, memory=0, disk=1).outputs(inputs, NAMES)
            assert all(torch.equal(first[name], again[name]) for name in NAMES), damage
            assert passes[0] == expected, damage
            assert [path.name in r.getMessage() for r in caplog.records] == [True] * warnings
        assert path.read_bytes() == whole, damage


def test_cache_of_a_model_with_other_settings_is_another(
    tiny_folder: Path, inputs: dict[str, Tensor], tmp_path: Path, passes: list[int]
) -> None:
    """The same weights with another activation have other features."""
    vlm = VLM.load(tiny_folder)
    FeatureCache(vlm, tmp_path, memory=0, disk=1).outputs(inputs, NAMES)
    vlm.model.config.vision_config.hidden_act = "gelu"
    FeatureCache(vlm, tmp_path, memory=0, disk=1).outputs(inputs, NAMES)
    assert passes[0] == 2


def test_cache_stays_within_its_sizes(
    tiny: VLM, inputs: dict[str, Tensor], tmp_path: Path, passes: list[int]
) -> None:
    plain = layer_outputs(tiny, inputs, NAMES)
    one = sum(plain[name][0].nbytes for name in NAMES)
    held = FeatureCache(tiny, memory=2.5 * one / GIGABYTE)
    kept = FeatureCache(tiny, tmp_path, memory=0, disk=3.5 * one / GIGABYTE)
    for cache in (held, kept):
        for _ in range(2):
            found = cache.outputs(inputs, NAMES)
            assert list(found) == NAMES
            assert all(torch.equal(found[name], plain[name]) for name in NAMES)
    assert passes[0] == 4
    assert held.held == 2 * one
    assert len(list(tmp_path.iterdir())) == 3
    assert used(tmp_path) < 4 * one + 3000
    # Other weights do not find them, nor does another batch size.
    full = FeatureCache(tiny, tmp_path, memory=1, disk=1)
    full.outputs(inputs, NAMES)
    full.outputs({name: tensor[:2] for name, tensor in inputs.items()}, NAMES)
    with torch.no_grad():
        next(iter(tiny.parameters("encoder").values())).add_(1)
    FeatureCache(tiny, tmp_path, disk=1).outputs(inputs, NAMES)
    assert passes[0] == 7


def test_cache_folder_takes_half_of_what_is_free(
    tiny: VLM, inputs: dict[str, Tensor], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = layer_outputs(tiny, inputs, NAMES)
    one = sum(plain[name][0].nbytes for name in NAMES)
    monkeypatch.setattr(
        unsee.methods.vkd.feature_cache, "free_space", lambda folder: (folder, 5 * one)
    )
    FeatureCache(tiny, tmp_path, memory=0).outputs(inputs, NAMES)
    assert len(list(tmp_path.iterdir())) == 2


def test_cache_refuses_a_disk_with_too_little_space(
    tiny: VLM,
    data: Data,
    inputs: dict[str, Tensor],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(unsee.methods.vkd.feature_cache, "LEAST", 1e9)
    with pytest.raises(ConfigError, match=r"needs 1000000000 GB, and .* Free some space, name"):
        refuse_small(tmp_path / "new" / "cache")
    before = tiny.hash()
    method = METHODS.get("vkd")(cache=str(tmp_path / "cache"))
    with pytest.raises(ConfigError, match="Free some space"):
        method.unlearn(tiny, data, Trainer(SETTINGS))
    assert tiny.hash() == before
    assert not list(tmp_path.iterdir())
    (tmp_path / "file").write_text("mine")
    with pytest.raises(ConfigError, match="is a file"):
        refuse_small(tmp_path / "file")
    with pytest.raises(RunError, match="cannot be written"):
        FeatureCache(tiny, tmp_path / "file" / "cache", disk=1).outputs(inputs, NAMES)


@pytest.mark.parametrize(
    ("fields", "lora"), [(UPPER, 0), (UPPER, 2), (UPPER | {"prune": 0.2}, 0), ({}, 0)]
)
def test_train_copies_only_weights_that_change(
    fields: dict[str, Any], lora: int, tiny: VLM, data: Data, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[VLM] = []
    copy = VLM.frozen_copy

    def watched(self: VLM, own: Iterable[str] | None = None) -> VLM:
        made.append(copy(self, own))
        return made[-1]

    monkeypatch.setattr(VLM, "frozen_copy", watched)
    before = {name: parameter.clone() for name, parameter in tiny.parameters().items()}
    same = dict(tiny.parameters())
    METHODS.get("vkd")(**MOVED, **fields).unlearn(tiny, data, Trainer(replace(SETTINGS, lora=lora)))
    (teacher,) = made
    changed = {n for n, p in tiny.parameters().items() if not torch.equal(p, before[n])}
    own = {n for n, p in teacher.parameters().items() if p is not same[n]}
    assert changed
    if lora:
        # Adapters were beside the weights until they were folded in.
        assert not own
        return
    assert changed <= own
    assert all(torch.equal(p, before[n]) for n, p in teacher.parameters().items())
    # Pruning may zero weights of any layer; else only what is trained is there twice.
    if fields == UPPER:
        assert not any("layers.0." in name for name in own)
