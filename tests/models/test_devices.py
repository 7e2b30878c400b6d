"""Devices and quantization: what is recorded and what is refused, for every family."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
import torch

from support.families import folder, photos, unsee  # noqa: F401
from unsee.attacks.relearn import Relearn
from unsee.errors import ConfigError, ModelError
from unsee.losses import IGNORE
from unsee.methods import METHODS
from unsee.models import quantization
from unsee.models.devices import pick_device
from unsee.models.quantization import LIBRARIES, quantization_for
from unsee.models.vlm import VLM
from unsee.training.settings import TrainingSettings
from unsee.training.trainer import Trainer
from unsee.types import Data

Unsee = Callable[..., Any]


@pytest.fixture(params=sorted(LIBRARIES))
def bits(request: pytest.FixtureRequest) -> str:
    """A quantization width whose library is installed."""
    library = LIBRARIES[request.param]
    pytest.importorskip(library, reason=f"{library} is not installed: unsee[quantized]")
    return str(request.param)


def test_pick_device_refuses_unknown_and_absent_devices(tiny_folder: Path) -> None:
    with pytest.raises(ConfigError, match="device 'tpu' is unknown. Allowed: auto, cpu, cuda"):
        VLM.load(tiny_folder, device="tpu")
    assert pick_device("cpu") == "cpu"
    if torch.cuda.is_available():
        assert pick_device("auto") == "cuda"
        return
    assert pick_device("auto") == "cpu"
    # The checkpoint does not exist: the error comes before anything is read.
    with pytest.raises(ConfigError, match="torch finds no GPU here. Type cpu, or auto"):
        VLM.load("absent", device="cuda")


@pytest.mark.parametrize("arguments", [["unlearn", "--forget", "f"], ["evaluate", "--data", "d"]])
def test_cli_reports_an_absent_device(
    arguments: list[str],
    tiny_folder: Path,
    photos: dict[str, Path],
    unsee: Unsee,
    tmp_path: Path,
) -> None:
    if torch.cuda.is_available():
        pytest.skip("there is a CUDA device")
    command = [photos["forget"] if a in ("f", "d") else a for a in arguments]
    out = tmp_path / "run"
    told = unsee(*command, "--model", tiny_folder, "--out", out, "--device", "cuda", code=2)
    assert "torch finds no GPU here" in told
    assert not out.exists()


@pytest.mark.parametrize("wanted", sorted(LIBRARIES))
def test_load_in_reports_a_missing_library_before_reading(
    wanted: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(quantization, "_installed_version", lambda library: None)
    with pytest.raises(ConfigError, match=rf"needs {LIBRARIES[wanted]}, which is not installed"):
        VLM.load("absent", load_in=wanted)
    with pytest.raises(ConfigError, match="load_in '2bit' is unknown. Allowed: 8bit, 4bit"):
        quantization_for("2bit")


def test_load_in_every_type_of_checkpoint_answers(
    folder: Path,
    photos: dict[str, Path],
    bits: str,
    unsee: Unsee,
    tmp_path: Path,
) -> None:
    whole, fewer = VLM.load(folder), VLM.load(folder, load_in=bits)
    adapted = [
        module.weight
        for name, module in fewer.model.named_modules()
        if re.fullmatch(fewer.family.lora_targets, name)
    ]
    assert adapted
    assert all(type(weight) is not torch.nn.Parameter for weight in adapted)
    assert fewer.hash() == whole.hash()
    found = unsee(
        "evaluate",
        "--model",
        folder,
        "--data",
        photos["retain"],
        "--load-in",
        bits,
        "--out",
        tmp_path / "run",
    )
    library = LIBRARIES[bits]
    assert found["provenance"]["quantization"] == {
        "load_in": bits,
        "library": library,
        "version": version(library),
    }
    assert found["provenance"]["start_weights_sha256"] == whole.hash()
    assert found["measures"]


def test_load_in_logits_stay_close(tiny_folder: Path, data: Data, bits: str) -> None:
    whole, fewer = VLM.load(tiny_folder), VLM.load(tiny_folder, load_in=bits)
    batch = whole.collate(data.retain)
    answer = batch.labels != IGNORE
    with torch.no_grad():
        one, two = (vlm.logits(batch)[answer].flatten() for vlm in (whole, fewer))
    assert not torch.equal(one, two)
    near = float(torch.corrcoef(torch.stack([one, two]))[0, 1])
    assert near > {"8bit": 0.99, "4bit": 0.9}[bits]


def test_quantized_weights_are_not_trained(
    tiny_folder: Path, data: Data, bits: str, tmp_path: Path
) -> None:
    vlm = VLM.load(tiny_folder, load_in=bits)
    settings = TrainingSettings(steps=1, batch_size=2)
    for name in METHODS.names():
        with pytest.raises(ModelError, match="can be evaluated, not trained"):
            METHODS.get(name)().unlearn(vlm, data, Trainer(settings))
    with pytest.raises(ModelError, match="can be evaluated, not trained"):
        Relearn(steps=1).curve(vlm, data.forget, lambda _: {"value": 0.5})
    with pytest.raises(ModelError, match="as a whole only"):
        VLM.load(tiny_folder, load_in=bits, visual_only=True)


def test_checkpoint_stored_in_4_bits_loads(
    tiny_folder: Path,
    photos: dict[str, Path],
    unsee: Unsee,
    tmp_path: Path,
) -> None:
    pytest.importorskip("bitsandbytes", reason="bitsandbytes is not installed: unsee[quantized]")
    VLM.load(tiny_folder, load_in="4bit").save(tmp_path / "stored")
    stored = VLM.load(tmp_path / "stored")
    assert stored.quantization is not None
    assert asdict(stored.quantization) == {
        "load_in": None,
        "library": "bitsandbytes",
        "version": version("bitsandbytes"),
    }
    with pytest.raises(ModelError, match="is quantized already"):
        VLM.load(tmp_path / "stored", load_in="4bit")
    told = unsee(
        "unlearn",
        "--model",
        tmp_path / "stored",
        "--forget",
        photos["forget"],
        "--retain",
        photos["retain"],
        "--out",
        tmp_path / "run",
        code=2,
    )
    assert "can be evaluated, not trained" in told
    assert not (tmp_path / "run").exists()
    found = unsee(
        "evaluate",
        "--model",
        tmp_path / "stored",
        "--data",
        photos["retain"],
        "--out",
        tmp_path / "e",
    )
    assert found["provenance"]["quantization"]["library"] == "bitsandbytes"
    recorded = json.loads((tmp_path / "e" / "environment.json").read_text())
    assert recorded["quantization"] == found["provenance"]["quantization"]
