"""Training and evaluation on a GPU give the results of a CPU; unsupported settings are refused."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.profiler import ProfilerActivity, profile

from support.families import make_or_skip, photos, unsee  # noqa: F401
from support.tiny import RECIPES
from unsee.attacks.relearn import Relearn
from unsee.benchmarks.pocket import Pocket
from unsee.errors import ConfigError
from unsee.evaluation.evaluate import evaluate
from unsee.features.capture import picture_features
from unsee.features.layers import choose_layers
from unsee.methods import METHODS
from unsee.models.vlm import VLM
from unsee.recipes.components import build_method
from unsee.training.distributed import require_supported
from unsee.training.loop import Progress
from unsee.training.settings import TrainingSettings
from unsee.training.trainer import Trainer
from unsee.types import Data

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="torch finds no CUDA device"),
]
Unsee = Callable[..., Any]
SETTINGS = TrainingSettings(
    steps=3, batch_size=3, lr=1e-3, warmup=0.0, save_every=0, lora_dropout=0.0
)
CASES: Mapping[str, tuple[str, dict[str, Any], dict[str, Any]]] = {
    "vkd": ("vkd", {}, {}),
    "features": ("vkd", {"supervision": "features"}, {}),
    "cached": ("vkd", {"supervision": "features", "augment": 0.0}, {}),
    "relearning-aware": ("vkd", {"relearn_steps": 1, "relearn_every": 1}, {}),
    "grad_diff": ("grad_diff", {"trains": "all"}, {}),
    "lora": ("grad_diff", {"trains": "language"}, {"lora": 4, "checkpointing": True}),
}
"""Method, its fields, and its settings."""
LIKE = {"bf16": 0.9, "fp16": 0.9}  # cosine of what the weights moved by


def unlearned(
    folder: Path,
    data: Data,
    case: str,
    device: str,
    state: Path | None = None,
    progress: Progress | None = None,
    more: Mapping[str, Any] | None = None,
    **settings: Any,
) -> tuple[VLM, dict[str, Tensor]]:
    """The model after training on `device`, and copies of its weights on the CPU."""
    name, fields, own = CASES[case]
    vlm = VLM.load(folder, device=device)
    trainer = Trainer(replace(SETTINGS, **own, **settings), state, None, progress)
    build_method(name, {**fields, **(more or {})}).unlearn(vlm, data, trainer)
    return vlm, {n: p.detach().cpu().clone() for n, p in vlm.parameters().items()}


def moved(start: Mapping[str, Tensor], end: Mapping[str, Tensor]) -> Tensor:
    """The change of all weights as one vector, without k_proj.bias, which has no true gradient."""
    names = [name for name in start if not name.endswith("k_proj.bias")]
    return torch.cat([(end[n].double() - start[n].double()).detach().flatten() for n in names])


def likeness(a: Tensor, b: Tensor) -> float:
    return float(torch.nn.functional.cosine_similarity(a, b, dim=0))


@pytest.mark.parametrize("case", CASES)
def test_gpu_trains_to_the_weights_of_a_cpu(tiny_folder: Path, data: Data, case: str) -> None:
    start = VLM.load(tiny_folder).parameters()
    vlm, gpu = unlearned(tiny_folder, data, case, "cuda")
    _, cpu = unlearned(tiny_folder, data, case, "cpu")
    assert vlm.device.type == "cuda"
    assert float(moved(start, gpu).norm()) > 0
    assert likeness(moved(start, gpu), moved(start, cpu)) > 0.99


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
@pytest.mark.parametrize("case", ["vkd", "features", "grad_diff"])
def test_gpu_half_precision_updates_are_similar(
    tiny_folder: Path, data: Data, case: str, precision: str
) -> None:
    # The loss scaler skips the first fp16 steps, until gradients do not overflow.
    still: dict[str, Any] = {"steps": 12, "batch_size": 6, "lr": 1e-5, "schedule": "constant"}
    more = {} if case == "grad_diff" else {"augment": 0.0}
    start = VLM.load(tiny_folder).parameters()
    _, half = unlearned(tiny_folder, data, case, "cuda", more=more, precision=precision, **still)
    _, whole = unlearned(tiny_folder, data, case, "cuda", more=more, **still)
    assert likeness(moved(start, half), moved(start, whole)) > LIKE[precision]
    if case != "grad_diff":
        vlm = VLM.load(tiny_folder)
        for name in vlm.parameters("language"):
            assert torch.equal(half[name], start[name]), name


def test_gpu_loads_only_the_visual_part(tiny_folder: Path, data: Data) -> None:
    there = VLM.load(tiny_folder, visual_only=True, device="cuda")
    here = VLM.load(tiny_folder, visual_only=True)
    image = there.image(data.forget[0].pictures[0])
    layers = choose_layers(here, ["all"])
    with torch.no_grad():
        found, wanted = (
            picture_features(vlm, vlm.collate_pictures([image]), layers) for vlm in (there, here)
        )
    for layer in layers:
        value = found[layer]
        assert isinstance(value, Tensor)
        assert value.device.type == "cuda"
        assert torch.allclose(value.cpu(), wanted[layer], atol=1e-4)
    before = there.hash("visual")
    build_method("vkd", {"supervision": "features"}).unlearn(there, data, Trainer(SETTINGS))
    assert there.hash("visual") != before
    assert all(p.is_meta for p in there.parameters("language").values())


def test_gpu_prefetched_batches_are_the_same(tiny_folder: Path, data: Data) -> None:
    start = VLM.load(tiny_folder).parameters()
    _, waited = unlearned(tiny_folder, data, "vkd", "cuda", workers=0)
    _, ahead = unlearned(tiny_folder, data, "vkd", "cuda", workers=3)
    assert likeness(moved(start, waited), moved(start, ahead)) > 0.9999


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("setting", ["checkpointing", "compile"])
def test_gpu_checkpointing_or_compiling_gives_the_same_weights(
    tiny_folder: Path, data: Data, setting: str
) -> None:
    start = VLM.load(tiny_folder).parameters()
    _, plain = unlearned(tiny_folder, data, "vkd", "cuda")
    _, other = unlearned(tiny_folder, data, "vkd", "cuda", **{setting: True})
    assert likeness(moved(start, plain), moved(start, other)) > 0.99


def test_gpu_run_resumes(tiny_folder: Path, data: Data, tmp_path: Path) -> None:
    class Cut(Exception):
        """Interrupts a run."""

    class Stop:
        def update(self, step: int, steps: int, terms: Mapping[str, float]) -> None:
            if step == 2:
                raise Cut

    start = VLM.load(tiny_folder).parameters()
    _, unbroken = unlearned(tiny_folder, data, "vkd", "cuda", save_every=1)
    with pytest.raises(Cut):
        unlearned(tiny_folder, data, "vkd", "cuda", tmp_path, Stop(), save_every=1)
    _, resumed = unlearned(tiny_folder, data, "vkd", "cuda", tmp_path, save_every=1)
    assert likeness(moved(start, unbroken), moved(start, resumed)) > 0.9999


@pytest.mark.parametrize("name", METHODS.names())
def test_gpu_trains_every_method(tiny_folder: Path, data: Data, name: str) -> None:
    vlm = VLM.load(tiny_folder, device="cuda")
    before = vlm.hash()
    build_method(name, {}).unlearn(vlm, data, Trainer(replace(SETTINGS, steps=2)))
    assert vlm.hash() != before
    assert vlm.device.type == "cuda"


@pytest.mark.parametrize("kind", RECIPES)
def test_gpu_trains_every_family(kind: str, data: Data, tmp_path: Path) -> None:
    made = make_or_skip(kind, tmp_path / kind)
    vlm = VLM.load(made, device="cuda")
    before = vlm.hash()
    language = vlm.hash("language")
    build_method("vkd", {}).unlearn(vlm, data, Trainer(replace(SETTINGS, steps=2, batch_size=2)))
    assert vlm.hash() != before
    assert vlm.hash("language") == language


def test_gpu_answers_equal_those_of_a_cpu() -> None:
    pocket = Pocket()
    samples = pocket.data().forget[:64]
    found = {}
    for device in ("cpu", "cuda"):
        vlm = VLM.load(pocket.checkpoint("target"), device=device)
        found[device] = evaluate(vlm, {"forget": samples}, metrics=["accuracy"])
    rows = [[row["output"] for row in found[device].rows] for device in ("cpu", "cuda")]
    same = sum(a == b for a, b in zip(*rows, strict=True))
    assert len(rows[0]) == len(samples)
    assert same >= 0.95 * len(samples)


def test_gpu_relearning_recovers(tiny_folder: Path, data: Data) -> None:
    vlm = VLM.load(tiny_folder, device="cuda")
    before = vlm.hash()
    hashes: list[str] = []

    def score(model: VLM) -> dict[str, float]:
        assert model.device.type == "cuda"
        hashes.append(model.hash())
        return {"value": 0.5}

    Relearn(steps=2, checkpoints=(0, 1, 2)).curve(vlm, data.forget, score)
    assert len(set(hashes)) == 3
    assert vlm.hash() == before


def test_gpu_attention_is_torchs_own(tmp_path: Path) -> None:
    vlm = VLM.load(Pocket().checkpoint("target"), device="cuda", dtype=torch.bfloat16)
    assert vlm.model.config._attn_implementation == "sdpa"
    inputs = vlm.collate_pictures([Pocket().data().forget[0].pictures[0].open()])
    with profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]) as seen:
        picture_features(vlm, inputs, choose_layers(vlm, ["projector"]))
    names = {event.name for event in seen.events() or ()}
    assert any(re.search("flash_attention|efficient_attention|cudnn_attention", n) for n in names)


def test_gpu_run_records_device_and_memory(
    tiny_folder: Path, photos: dict[str, Path], unsee: Unsee, tmp_path: Path
) -> None:
    found = unsee(
        "unlearn",
        "--model",
        tiny_folder,
        "--forget",
        photos["forget"],
        "--retain",
        photos["retain"],
        "--out",
        tmp_path / "run",
        "--device",
        "cuda",
        "--set",
        "steps=2",
    )
    assert found["provenance"]["device"].startswith("cuda")
    assert found["guarantees"]["language_part_sha256_unchanged"]


def test_gpu_run_under_a_launcher(
    tiny_folder: Path, photos: dict[str, Path], tmp_path: Path
) -> None:
    """With one GPU, one process runs, and two are refused before anything is loaded."""

    def launch(processes: int, out: Path) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [
                sys.executable,
                "-m",
                "torch.distributed.run",
                "--nproc_per_node",
                str(processes),
                "-m",
                "unsee",
                "unlearn",
                "--model",
                str(tiny_folder),
                "--forget",
                str(photos["forget"]),
                "--retain",
                str(photos["retain"]),
                "--set",
                "steps=2",
                "--set",
                f"accumulate={processes}",
                "--device",
                "cuda",
                "--out",
                str(out),
                "--json",
            ],
            capture_output=True,
            text=True,
            check=False,
            env=os.environ | {"OMP_NUM_THREADS": "1"},
        )

    done = launch(1, tmp_path / "one")
    assert done.returncode == 0, done.stderr
    summary = json.loads((tmp_path / "one" / "summary.json").read_text())
    assert summary["provenance"]["device"].startswith("cuda")
    many = torch.cuda.device_count() + 1
    refused = launch(many, tmp_path / "many")
    assert refused.returncode != 0
    assert f"{many} processes were started here" in refused.stderr + refused.stdout


def test_gpu_refuses_unsupported_settings() -> None:
    with pytest.raises(ConfigError, match="offload is for one process on a CPU"):
        require_supported(replace(SETTINGS, offload="shelf"), "cuda")
    require_supported(replace(SETTINGS, precision="fp16"), "cuda")
