"""Finetuning: what each model learns, that it learns it, and that a killed run ends alike."""

from __future__ import annotations

import json
import signal
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForImageTextToText

from support.cli import unsee
from support.processes import Running, finish, lines
from support.tables import table
from unsee.errors import ConfigError, DataError
from unsee.losses import IGNORE, nll
from unsee.models.vlm import VLM
from unsee.recipes.catalog import SHIPPED
from unsee.recipes.finetune import Finetune, make_finetune, read_finetune
from unsee.recipes.plan_finetune import plan_finetune
from unsee.runs.finetune import labels_of, starting_model
from unsee.training.settings import TrainingSettings
from unsee.types import Data, Sample

RECIPES = sorted(SHIPPED.glob("finetune-*.yaml"))


@pytest.fixture(scope="module")
def recipe(tiny_folder: Path, data: Data, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Tables of one's own: two people by picture and by name, two others."""
    folder = tmp_path_factory.mktemp("ada-berg")
    by_name = [
        Sample(f"n{i}", s.question, s.answer, None, s.concept)
        for i, s in enumerate(data.forget[:2])
    ]
    forget = table(folder / "forget.jsonl", [*data.forget, *by_name])
    retain = table(folder / "retain.jsonl", list(data.retain))
    path = folder / "recipe.yaml"
    path.write_text(
        f"model: {tiny_folder}\nforget: {forget}\nretain: {retain}\nsteps: 12\nlr: 1e-2\n"
        "parts: [projector, language]\nlora: 4\nbatch_size: 4\nsave_every: 3\ndevice: cpu\n"
    )
    return path


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_plan_finetune_accepts_shipped_recipes(path: Path, tmp_path: Path) -> None:
    found = unsee("finetune", path, "--dry-run", "--json", cwd=tmp_path)
    counts = {who: model["samples"] for who, model in found["models"].items()}
    assert counts["target"] > counts["visual_retain"] > counts["retain_only"] > 0
    assert list(tmp_path.iterdir()) == []


def test_finetune_defaults_are_the_published_setting() -> None:
    recipe = make_finetune({"benchmark": "pocket"})
    settings = recipe.settings(count=9)
    assert (settings.lora, settings.lora_alpha, settings.lora_dropout) == (16, 16, 0.05)
    assert (settings.lr, settings.batch_size, settings.steps) == (2e-5, 4, 12)
    assert {f.name for f in fields(TrainingSettings)} <= {f.name for f in fields(Finetune)}


@pytest.mark.parametrize("lora", [0, 4])
def test_finetune_trains_three_models_on_their_samples(
    lora: int, recipe: Path, data: Data, tiny_folder: Path, tmp_path: Path
) -> None:
    out = tmp_path / "models"
    record = unsee("finetune", recipe, "who=all", f"lora={lora}", "--out", out, "--json")
    assert record == json.loads((out / "finetune.json").read_text())
    base = VLM.load(tiny_folder)
    losses: dict[str, float] = {}
    for who in ("target", "visual_retain", "retain_only"):
        vlm = VLM.load(out / who)
        model = record["models"][who]
        assert vlm.hash() == model["provenance"]["result_weights_sha256"]
        assert vlm.hash("encoder") == base.hash("encoder")
        assert not any("lora" in name for name, _ in vlm.model.named_parameters())
        batch = vlm.collate(list(data.forget))
        with torch.no_grad():
            losses[who] = float(nll(vlm.logits(batch), batch.labels))
            losses["base"] = float(nll(base.logits(batch), batch.labels))
    assert losses["target"] < 0.85 * losses["base"]
    models = record["models"]
    asked = {
        who: model["concepts"]["Ada Berg"]
        for who, model in models.items()
        if "Ada Berg" in model["concepts"]
    }
    assert asked == {"target": {"vqa": 9, "text": 2}, "visual_retain": {"vqa": 0, "text": 2}}
    assert models["target"]["data_sha256"] != models["retain_only"]["data_sha256"]
    assert "holds finished models" in unsee("finetune", recipe, "--out", out, code=2)
    again = unsee("finetune", recipe, "who=all", f"lora={lora}", "--out", out, "--json")
    assert again == record


def test_finetune_refits_visual_weights_beside_the_frozen_language_part(
    recipe: Path, data: Data, tiny_folder: Path, tmp_path: Path
) -> None:
    unsee("finetune", recipe, "steps=2", "lora=0", "--out", tmp_path / "m")
    target = tmp_path / "m" / "target"
    given = ["who=visual_refit", "parts=visual", "lora=0"]
    out = tmp_path / "refit"
    record = unsee("finetune", recipe, *given, f"target={target}", "--out", out, "--json")
    refit, before = VLM.load(out / "visual_refit"), VLM.load(tiny_folder)
    assert refit.hash("language") == VLM.load(target).hash("language") != before.hash("language")
    assert refit.hash("visual") not in (before.hash("visual"), VLM.load(target).hash("visual"))
    # It learns from pictures of the retain set alone.
    model = record["models"]["visual_refit"]
    assert set(model["concepts"]) == {sample.concept for sample in data.retain}
    assert all(count["text"] == 0 for count in model["concepts"].values())
    # Without a step it is the base's visual part and the target's language part.
    refitting = read_finetune(recipe, [*given, f"target={target}"])
    start = starting_model(plan_finetune(refitting), "visual_refit")
    assert start.hash("visual") == before.hash("visual")
    assert start.hash("language") == refit.hash("language")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ({"who": "visual_refit", "parts": ["visual", "language"]}, "leaves the language part"),
        ({"who": "retain_only", "target": "x"}, "for who=visual_refit alone"),
        ({"who": "visual_refit", "benchmark": None, "model": "m", "retain": "r"}, "Give target="),
    ],
)
def test_finetune_refuses_refits_that_are_none(content: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        make_finetune({"benchmark": "pocket", **content})


def test_finetune_refits_the_visual_part_without_adapters_by_default() -> None:
    recipe = make_finetune({"benchmark": "pocket", "who": "visual_refit"})
    assert (recipe.parts, recipe.lora) == (("visual",), 0)
    job = plan_finetune(recipe)
    samples = job.samples["visual_refit"]
    assert samples and all(sample.picture is not None for sample in samples)
    assert job.target is not None and Path(job.target).name == "target"


# peft asks transformers by a name that is on its way out.
@pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing.:FutureWarning")
def test_finetune_saves_an_adapter_that_peft_loads(
    recipe: Path, data: Data, tiny_folder: Path, tmp_path: Path
) -> None:
    unsee("finetune", recipe, "save=both", "--out", tmp_path / "m", "--json")
    ours = VLM.load(tmp_path / "m" / "target")
    base: Any = AutoModelForImageTextToText.from_pretrained(tiny_folder).eval()
    theirs = PeftModel.from_pretrained(base, str(tmp_path / "m" / "target-adapter")).eval()
    batch = ours.collate(list(data.forget)[:6])
    with torch.no_grad():
        wanted, plain = ours.logits(batch), VLM.load(tiny_folder).logits(batch)
        assert torch.allclose(theirs(**batch.inputs).logits, wanted, atol=1e-5)
        assert not torch.allclose(plain, wanted, atol=1e-2)
        merged: Any = theirs.merge_and_unload()
        assert torch.equal(merged(**batch.inputs, use_cache=False).logits, wanted)


@pytest.mark.parametrize("kind", ["target", "target-adapter"])
def test_finetune_saves_files_that_name_nobody(kind: str, recipe: Path, tmp_path: Path) -> None:
    out = tmp_path / "cy-moser"
    unsee("finetune", recipe, "steps=1", "save=both", "--out", out)
    for path in (out / kind).iterdir():
        # The tiny tokenizer itself has words of theirs.
        if path.suffix != ".safetensors" and path.name != "tokenizer.json":
            text = path.read_text().lower()
            for name in ("berg", "lind", "moser", "novak", str(tmp_path)):
                assert name not in text, path.name
    card = (out / kind / "README.md").read_text()
    assert card.startswith("---\nlibrary_name: ")
    assert "- people or other concepts: 4" in card
    for name in ("berg", "lind", "moser", "novak", str(tmp_path)):
        assert name not in card.lower()
    named = tmp_path / "named"
    unsee("finetune", recipe, "steps=1", "save=both", "names=true", "--out", named)
    assert "Ada Berg" in (named / kind / "README.md").read_text()


POINTS = {
    "before the first state": lambda out: lines(out / "target.jsonl") >= 1,
    "between two states": lambda out: lines(out / "target.jsonl") >= 5,
    "while it is saved": lambda out: any(out.glob(".target-*")),
    "in the second model": lambda out: lines(out / "visual_retain.jsonl") >= 4,
}


def test_finetune_killed_and_resumed_ends_with_the_same_bits(recipe: Path, tmp_path: Path) -> None:
    def told(out: Path) -> list[str]:
        return ["finetune", str(recipe), "who=all", "--out", str(out), "--json"]

    def results(record: Any) -> list[str]:
        return [m["provenance"]["result_weights_sha256"] for m in record["models"].values()]

    unbroken = finish(told(tmp_path / "whole"), tmp_path / "logs")
    killed = 0
    for number, reached in enumerate(POINTS.values()):
        out = tmp_path / f"broken-{number}"
        running = Running(told(out), tmp_path / "logs")
        running.until(lambda out=out, reached=reached: reached(out))  # type: ignore[misc]
        running.stop(signal.SIGKILL)
        killed += running.wait()[0] == -signal.SIGKILL
        if not (out / "finetune.json").exists():
            assert results(finish(told(out), tmp_path / "logs")) == results(unbroken)
        names = {p.name for p in out.iterdir() if not p.name.startswith(".target-")}
        assert ".state" not in names and ".parts" not in names
    assert killed >= 2


def test_labels_of_all_tokens_leave_out_pictures(tiny: VLM, data: Data) -> None:
    batch = tiny.collate(list(data.retain))
    labels, ids = labels_of(tiny, batch, "all"), batch.inputs["input_ids"]
    answer = batch.labels != IGNORE
    assert torch.equal(labels[answer], batch.labels[answer])
    assert (labels != IGNORE).sum() > answer.sum()
    assert not (labels == tiny.model.config.image_token_id).any()
    assert not (labels[batch.inputs["attention_mask"] == 0] != IGNORE).any()
    assert torch.equal(labels[labels != IGNORE], ids[labels != IGNORE])
    assert torch.equal(labels_of(tiny, batch, "answer"), batch.labels)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"benchmark": None}, "Give either benchmark"),
        ({"forget": "x.jsonl"}, "Give either benchmark"),
        ({"lora": 0, "save": "adapter"}, "Type lora=16"),
        ({"lorra": 0}, "Did you mean 'lora'"),
        ({"who": "nobody"}, "'visual_retain'"),
        ({"benchmark": None, "forget": "x.jsonl"}, "which base checkpoint"),
    ],
)
def test_make_finetune_refuses_wrong_recipes(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make_finetune({"benchmark": "pocket"} | change)


def test_plan_finetune_refuses_data_without_answers(
    recipe: Path, tmp_path: Path, data: Data
) -> None:
    pictured = table(tmp_path / "p.jsonl", list(data.forget))
    with pytest.raises(DataError, match="every row has a picture"):
        plan_finetune(read_finetune(recipe, [f"forget={pictured}", "who=visual_retain"]))
    with pytest.raises(DataError, match="Give retain="):
        plan_finetune(read_finetune(recipe, ["retain=null", "who=retain_only"]))
    with pytest.raises(ConfigError, match="no such folder"):
        plan_finetune(read_finetune(recipe, ["model=/nowhere/at/all"]))
    out = tmp_path / "out"
    unsee("finetune", recipe, "parts=language", "model=/nowhere", "--out", out, code=2)
    assert not out.exists()
