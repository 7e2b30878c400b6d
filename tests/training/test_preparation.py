"""Preparing a model: precision, checkpointing, compilation and attention."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch._dynamo.utils import counters

from support.training import assert_near, unlearned
from unsee.errors import TrainingError
from unsee.models.vlm import VLM
from unsee.recipes.components import build_method
from unsee.training.loop import STATE
from unsee.training.settings import TrainingSettings
from unsee.training.trainer import Trainer
from unsee.types import Data

SETTINGS = TrainingSettings(steps=3, batch_size=3, accumulate=2, lr=1e-3, warmup=0.0, save_every=2)

# VKD without inner attacks, whose steps follow the sign of gradients, however small these are.
PLAIN: Mapping[str, Any] = {"relearn_steps": 0, "scale_erase": False}


@pytest.mark.parametrize("name", ["vkd", "grad_diff"])
def test_checkpointing_gives_the_same_weights(tiny_folder: Path, data: Data, name: str) -> None:
    plain = unlearned(tiny_folder, data, name, SETTINGS)
    again = unlearned(tiny_folder, data, name, replace(SETTINGS, checkpointing=True))
    assert all(torch.allclose(plain[n], again[n], atol=1e-6) for n in plain)


def test_checkpointing_recomputes_blocks(tiny: VLM, data: Data) -> None:
    block = tiny.model.get_submodule(tiny.family.language_layers(tiny.model)["language.0"])
    seen: list[int] = []
    block.self_attn.register_forward_hook(lambda *_: seen.append(1))
    settings = replace(SETTINGS, steps=1, accumulate=1, checkpointing=True)
    build_method("grad_diff", {}).unlearn(tiny, data, Trainer(settings))
    assert len(seen) == 4  # forget and retain, there and back
    assert not any(module.training for module in tiny.model.modules())


def test_precision_bf16_trains_weights_in_float32(
    tiny_folder: Path, data: Data, tmp_path: Path
) -> None:
    vlm, dtypes = VLM.load(tiny_folder, dtype=torch.bfloat16), set[torch.dtype]()
    head = vlm.model.get_output_embeddings()
    head.register_forward_hook(lambda _m, _i, output: dtypes.add(output.dtype))
    trainer = Trainer(replace(SETTINGS, precision="bf16"), tmp_path)
    build_method("vkd", {}).unlearn(vlm, data, trainer)
    assert dtypes == {torch.bfloat16}
    assert {p.dtype for p in vlm.parameters().values()} == {torch.bfloat16}
    stored = load_file(tmp_path / STATE)
    assert {t.dtype for n, t in stored.items() if n.startswith("parameter/")} == {torch.float32}
    exact = unlearned(tiny_folder, data, "vkd", SETTINGS)
    for name, parameter in vlm.parameters("visual").items():
        assert torch.allclose(parameter.float(), exact[name], atol=2e-2), name


@pytest.mark.parametrize("visual_only", [False, True])
def test_precision_fp32_trains_a_half_precision_checkpoint_in_float32(
    tiny_folder: Path, data: Data, tmp_path: Path, visual_only: bool
) -> None:
    """The result equals that of a model loaded in float32; frozen weights do not change."""
    VLM.load(tiny_folder, dtype=torch.bfloat16).save(tmp_path / "half")
    vlm = VLM.load(tmp_path / "half", visual_only=visual_only)
    exact = VLM.load(tmp_path / "half", visual_only=visual_only, dtype=torch.float32)
    frozen = vlm.hash("language") if not visual_only else ""
    method = build_method("vkd", {"supervision": "features"} if visual_only else {})
    method.unlearn(vlm, data, Trainer(replace(SETTINGS, precision="fp32")))
    method.unlearn(exact, data, Trainer(SETTINGS))
    assert {p.dtype for p in vlm.parameters().values()} == {torch.bfloat16}
    for name, parameter in exact.parameters("visual").items():
        assert torch.equal(vlm.parameters()[name], parameter.bfloat16()), name
    assert visual_only or vlm.hash("language") == frozen


@pytest.mark.parametrize("precision", ["no", "bf16"])
def test_float16_on_a_cpu_trains_in_float32(tiny_folder: Path, data: Data, precision: str) -> None:
    vlm = VLM.load(tiny_folder, dtype=torch.float16)
    before = vlm.hash("visual")
    settings = replace(SETTINGS, precision=precision)  # type: ignore[arg-type]
    build_method("vkd", {}).unlearn(vlm, data, Trainer(settings))
    assert {p.dtype for p in vlm.parameters().values()} == {torch.float16}
    assert all(bool(p.isfinite().all()) for p in vlm.parameters().values())
    assert vlm.hash("visual") != before


def test_fit_refuses_weights_that_are_not_finite(tiny: VLM, data: Data, tmp_path: Path) -> None:
    settings = replace(SETTINGS, lr=float("inf"), steps=1)
    with pytest.raises(TrainingError, match=r"not finite; nothing was saved\. Lower"):
        build_method("vkd", PLAIN).unlearn(tiny, data, Trainer(settings, tmp_path))
    assert not (tmp_path / STATE).exists()


def test_attention_setting_is_applied(tiny: VLM, tiny_folder: Path, data: Data) -> None:
    trainer = Trainer(replace(SETTINGS, attention="eager"))
    build_method("vkd", PLAIN).unlearn(tiny, data, trainer)
    assert tiny.model.config._attn_implementation == "eager"
    assert_near(unlearned(tiny_folder, data, "vkd", SETTINGS, **PLAIN), tiny.parameters())


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_compile_gives_the_same_weights(tiny_folder: Path, data: Data) -> None:
    plain = unlearned(tiny_folder, data, "vkd", SETTINGS)
    counters.clear()
    found = unlearned(tiny_folder, data, "vkd", replace(SETTINGS, compile=True))
    assert counters["stats"]["unique_graphs"] >= 4  # attention and MLP, of encoder and LLM
    assert_near(plain, found)
