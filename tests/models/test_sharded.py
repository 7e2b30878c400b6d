"""Unlearning a sharded bfloat16 checkpoint from pictures only: which files are opened."""

from __future__ import annotations

import ctypes
import json
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from unsee.artifacts.patch import apply_patch
from unsee.errors import ConfigError, ModelError
from unsee.models.checkpoint import weight_map
from unsee.models.devices import refuse_dtype
from unsee.models.vlm import VLM
from unsee.progress import Bar
from unsee.recipes.plan import plan
from unsee.recipes.unlearn import make_recipe
from unsee.runs.run import run

SHORT = {"steps": 3, "batch_size": 4, "lr": 1e-2}
IN_OPEN = 0x20


@pytest.fixture(scope="module")
def sharded(tiny_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny checkpoint in bfloat16 and many shards."""
    folder = tmp_path_factory.mktemp("sharded") / "model"
    vlm = VLM.load(tiny_folder, dtype=torch.bfloat16)
    vlm.model.save_pretrained(folder, max_shard_size="12KB")
    vlm.processor.save_pretrained(folder)
    return folder


@pytest.fixture
def copied(sharded: Path, tmp_path: Path) -> Path:
    """A copy of the sharded checkpoint, to break."""
    return Path(shutil.copytree(sharded, tmp_path / "broken"))


def language_shards(folder: Path) -> list[Path]:
    """The shards without any visual tensor."""
    files = weight_map(folder)
    visual = {file for name, file in files.items() if "language_model" not in name}
    found = sorted(set(files.values()) - visual)
    assert len(found) > 1
    assert visual
    return found


@pytest.fixture
def opened() -> Iterator[Callable[..., list[str]]]:
    """Watches files with inotify; later returns the names of those that any code has opened."""
    libc = ctypes.CDLL(None, use_errno=True)
    handle = libc.inotify_init1(os.O_NONBLOCK)
    names: dict[int, str] = {}

    def watch(*paths: Path) -> list[str]:
        for path in paths:
            names[libc.inotify_add_watch(handle, os.fsencode(path), IN_OPEN)] = path.name
        try:
            events = os.read(handle, 1 << 20)
        except BlockingIOError:
            return []
        found = [
            int.from_bytes(events[i : i + 4], sys.byteorder) for i in range(0, len(events), 16)
        ]
        return [names[number] for number in found]

    yield watch
    os.close(handle)


def unlearn(folder: Path, photos: Path, out: Path, whole: bool = False) -> Path:
    """Runs the job of `unsee unlearn --model FOLDER --forget PHOTOS`; returns the patch."""
    recipe = make_recipe(
        {
            "method": "vkd",
            "model": str(folder),
            "forget": str(photos),
            "ask": "none",
            "set": SHORT,
        }
    )
    job, _ = plan(recipe, "unlearn", "unsee unlearn")
    assert job.visual_only
    run(replace(job, visual_only=not whole), out, Bar(None))
    return out / "patch"


@pytest.mark.skipif(sys.platform != "linux", reason="watches files by inotify")
def test_unlearn_features_never_opens_language_shards(
    sharded: Path, copied: Path, photos: Path, tmp_path: Path, opened: Callable[..., list[str]]
) -> None:
    """Replacing them by noise changes nothing; the result equals that of the whole model."""
    language = language_shards(copied)
    visual = sorted(set(copied.glob("*.safetensors")) - set(language))
    for shard in language:
        shard.write_bytes(b"\xff" * shard.stat().st_size)
    assert opened(*language, *visual) == []
    patch = unlearn(copied, photos, tmp_path / "run")
    assert set(opened()) == {shard.name for shard in visual}
    whole = unlearn(sharded, photos, tmp_path / "whole", whole=True)
    tensors = "patch.safetensors"
    assert (patch / tensors).read_bytes() == (whole / tensors).read_bytes()
    manifests = [json.loads((folder / "manifest.json").read_text()) for folder in (patch, whole)]
    assert all(manifest.pop("made") for manifest in manifests)
    assert manifests[0] == manifests[1]
    apply_patch(patch, sharded, tmp_path / "applied")
    found = json.loads((tmp_path / "whole" / "summary.json").read_text("utf-8"))
    applied = VLM.load(tmp_path / "applied")
    assert applied.model.dtype == torch.bfloat16
    assert (
        applied.hash() == found["provenance"]["result_weights_sha256"] != VLM.load(sharded).hash()
    )


@pytest.mark.parametrize("damage", ["missing", "truncated", "ghost"])
def test_run_refuses_a_damaged_checkpoint_before_it_starts(
    copied: Path, photos: Path, tmp_path: Path, damage: str
) -> None:
    shard = language_shards(copied)[0]
    words = f"shard {shard.name} is {damage}"
    if damage == "missing":
        shard.unlink()
    elif damage == "truncated":
        shard.write_bytes(shard.read_bytes()[: shard.stat().st_size // 2])
    else:
        index = copied / "model.safetensors.index.json"
        content = json.loads(index.read_text("utf-8"))
        name = next(n for n in content["weight_map"] if "vision_tower" in n)
        content["weight_map"][name] = shard.name
        index.write_text(json.dumps(content), "utf-8")
        words = f"the index places {name} in {shard.name}, which does not have it"
    with pytest.raises(ModelError, match=words) as caught:
        unlearn(copied, photos, tmp_path / "run")
    assert "ownload" in str(caught.value)
    assert not (tmp_path / "run").exists()


def test_refuse_dtype_names_the_dtype() -> None:
    for dtype in (torch.float32, torch.bfloat16):
        refuse_dtype(dtype, "cpu")
    with pytest.raises(ConfigError, match="device 'cpu' cannot compute in float8_e4m3fn .* Save"):
        refuse_dtype(torch.float8_e4m3fn, "cpu")


def test_load_refuses_a_checkpoint_in_an_unsupported_dtype(
    copied: Path, photos: Path, tmp_path: Path
) -> None:
    config = json.loads((copied / "config.json").read_text("utf-8"))
    (copied / "config.json").write_text(json.dumps(config | {"dtype": "float8_e4m3fn"}))
    with pytest.raises(ConfigError, match="cannot compute in float8_e4m3fn"):
        unlearn(copied, photos, tmp_path / "run")
    assert not (tmp_path / "run").exists()
