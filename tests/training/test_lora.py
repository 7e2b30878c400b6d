"""LoRA adapters: for every method and part, and how they are saved."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from experiments.tiny.make import make
from peft import PeftModel
from transformers import AutoModelForImageTextToText

from support.cli import unsee
from support.training import lora_command
from unsee.errors import ConfigError
from unsee.methods import METHODS
from unsee.models.vlm import VLM
from unsee.training.lora import Lora, LoraAdapters
from unsee.training.settings import TrainingSettings
from unsee.training.trainer import Trainer
from unsee.types import Data

SETTINGS = TrainingSettings(steps=3, batch_size=4, lr=1e-2, lora=4)


@pytest.mark.parametrize("part", ["visual", "language", "all"])
@pytest.mark.parametrize("name", METHODS.names())
def test_lora_adapters_of_every_method_change_only_their_layers(
    name: str, part: str, tiny: VLM, data: Data
) -> None:
    method = replace(METHODS.get(name)(), trains=part)
    if name == "vkd" and part != "visual":
        pytest.skip("vkd freezes the language part (tests/methods/vkd/test_method.py)")
    before = {n: p.detach().clone() for n, p in tiny.parameters().items()}
    trainer = Trainer(SETTINGS)
    if method.weights_only:
        with pytest.raises(ConfigError, match="lora=0"):
            method.unlearn(tiny, data, trainer)
        assert all(torch.equal(p, before[n]) for n, p in tiny.parameters().items())
        return
    if part not in method.parts:
        with pytest.raises(ConfigError, match="Allowed: "):
            method.unlearn(tiny, data, trainer)
        assert all(torch.equal(p, before[n]) for n, p in tiny.parameters().items())
        return
    result = method.unlearn(tiny, data, trainer)
    if result.adapters is None:
        pytest.skip(f"{name} leaves no adapter (test_method_laws.py)")
    assert list(tiny.parameters()) == list(before)
    changed = {n for n, p in tiny.parameters().items() if not torch.equal(p, before[n])}
    assert changed
    assert changed <= {f"{target}.weight" for target in result.adapters.targets}
    assert changed <= set(tiny.parameters(part))
    for target in result.adapters.targets:
        weight = f"{target}.weight"
        change = tiny.parameters()[weight] - before[weight]
        assert torch.linalg.matrix_rank(change, rtol=1e-3) <= SETTINGS.lora
    assert not hasattr(tiny.model, "peft_config")


@pytest.mark.parametrize("name", ["npo", "vkd"])
def test_lora_teacher_shares_the_weights_under_the_adapters(
    name: str, tiny_folder: Path, data: Data, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No second model is in memory, and losses equal those with a full copy, bit for bit."""
    copied, share = [], VLM.frozen_copy

    def run(log: Path, whole: bool) -> tuple[list[Any], str]:
        def teacher(vlm: VLM, own: Iterable[str] | None = None) -> VLM:
            copied.append(share(vlm, None if whole else own))
            return copied[-1]

        vlm = VLM.load(tiny_folder)
        monkeypatch.setattr(VLM, "frozen_copy", teacher)
        METHODS.get(name)().unlearn(vlm, data, Trainer(SETTINGS, log=log))
        lines = [json.loads(line) for line in log.read_text().splitlines()]
        same = [p is vlm.parameters()[n] for n, p in copied[-1].parameters().items()]
        assert all(same) != whole
        return [(line["loss"], line["terms"]) for line in lines], vlm.hash()

    shared = run(tmp_path / "shared.jsonl", whole=False)
    assert len(shared[0]) == SETTINGS.steps
    assert shared == run(tmp_path / "copied.jsonl", whole=True)


def test_lora_resumed_run_matches_and_dropout_changes_the_result(
    tiny_folder: Path, data: Data, tmp_path: Path
) -> None:
    class Stop:
        def update(self, step: int, steps: int, terms: Any) -> None:
            if step == 2:
                raise KeyboardInterrupt

    def run(folder: Path, stop: Any = None, dropout: float = 0.3) -> str:
        vlm = VLM.load(tiny_folder)
        settings = replace(SETTINGS, save_every=1, lora_dropout=dropout)
        METHODS.get("grad_diff")().unlearn(vlm, data, Trainer(settings, folder, None, stop))
        return vlm.hash()

    whole = run(tmp_path / "a")
    assert run(tmp_path / "b", dropout=0.0) != whole
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "c", Stop())
    assert run(tmp_path / "c") == whole


def test_lora_adapters_without_a_matching_layer_raise(
    tiny: VLM, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(type(tiny.family), "lora_targets", "nowhere")
    with pytest.raises(ConfigError, match=r"'nowhere'.*matches no layer"):
        LoraAdapters(tiny, tiny.parameters("all"), Lora())
    norms = {n: p for n, p in tiny.parameters("visual").items() if "norm" in n}
    with pytest.raises(ConfigError, match="no layer of the visual part"):
        LoraAdapters(tiny, norms, Lora())


@pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing.:FutureWarning")
def test_lora_adapts_the_layers_that_the_family_names_and_no_others(tmp_path: Path) -> None:
    """Peft would adapt fused experts for a dense layer; the untied head is no visual layer."""
    vlm = VLM.load(make("glm4v_moe", tmp_path / "model"), check=False)
    before = {n: p.detach().clone() for n, p in vlm.parameters().items()}
    adapters = LoraAdapters(vlm, vlm.parameters("language"), Lora(rank=2))
    assert "lm_head.weight" in before and "lm_head" not in adapters.targets
    for parameter in adapters.parameters.values():
        torch.nn.init.ones_(parameter)
    adapters.merge()
    changed = {n for n, p in vlm.parameters().items() if not torch.equal(p, before[n])}
    assert changed == {f"{target}.weight" for target in adapters.targets}
    assert "model.language_model.layers.0.mlp.gate_proj.weight" in changed
    with pytest.raises(ConfigError, match=r"'glm4v_moe' for one of its experts.*--save model"):
        adapters.save(tmp_path / "adapter")


def test_lora_refuses_masks_of_single_weights(tiny: VLM, data: Data) -> None:
    method = METHODS.get("vkd")(saliency_fraction=0.5)
    with pytest.raises(ConfigError, match="LoRA trains none of the weights that saliency_fraction"):
        method.unlearn(tiny, data, Trainer(SETTINGS))


@pytest.fixture(scope="module")
def command(tiny_folder: Path, data: Data, tmp_path_factory: pytest.TempPathFactory) -> list[Any]:
    return lora_command(tmp_path_factory.mktemp("ada-berg"), tiny_folder, data)


# peft asks transformers by a name that is on its way out.
@pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing.:FutureWarning")
def test_lora_adapter_loads_with_peft(
    command: list[Any], tiny_folder: Path, data: Data, tmp_path: Path
) -> None:
    method = ["--method", "grad_diff", "--save", "adapter"]
    summary = unsee(*command, *method, "--out", tmp_path / "adapter")
    assert summary["artifacts"]["adapter"] == "adapter"
    unsee(*command, "--method", "grad_diff", "--save", "model", "--out", tmp_path / "model")
    ours = VLM.load(tmp_path / "model" / "model")
    assert ours.hash() == summary["provenance"]["result_weights_sha256"]
    base: Any = AutoModelForImageTextToText.from_pretrained(tiny_folder).eval()
    folder = tmp_path / "adapter" / "adapter"
    theirs = PeftModel.from_pretrained(base, str(folder)).eval()
    batch = ours.collate(list(data.forget)[:6])
    with torch.no_grad():
        assert torch.allclose(theirs(**batch.inputs).logits, ours.logits(batch), atol=1e-5)
    config = json.loads((folder / "adapter_config.json").read_text())
    assert config["r"] == 4 and config["base_model_name_or_path"] is None


@pytest.mark.parametrize("supervision", ["full", "features"])
def test_lora_of_the_visual_part_makes_a_patch_and_keeps_text_identical(
    supervision: str, command: list[Any], tiny_folder: Path, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    summary = unsee(*command, "--supervision", supervision, "--out", out)
    assert summary["guarantees"]["changed_outside_visual"] == 0
    assert summary["method"]["parameters"]["lora"] == 4
    unsee("apply", out / "patch", "--model", tiny_folder, "--out", tmp_path / "applied")
    found = unsee("verify", tiny_folder, tmp_path / "applied", "--json")
    assert found["text_identical"] is True and found["language_identical"] is True
    assert 0 < len(found["differing"]) == summary["guarantees"]["changed_tensors"]


def test_unlearn_refuses_wrong_save_options_before_training(
    command: list[Any], tmp_path: Path
) -> None:
    out = tmp_path / "run"
    for words, message in (
        (["--method", "npo", "--save", "patch"], "--save model, or --set trains=visual"),
        (["--save", "adapter", "--set", "lora=0"], "Type --set lora=16, or --save model"),
    ):
        assert message in unsee(*command, *words, "--out", out, code=2)
        assert not out.exists()
