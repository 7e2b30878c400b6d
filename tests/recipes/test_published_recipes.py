"""The recipes of the published settings, on data of the exact schemas and tiny checkpoints."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from support import published, tiny
from unsee.cli import main
from unsee.recipes.catalog import SHIPPED
from unsee.recipes.unlearn import read_recipe

RECIPES = SHIPPED / "published"
FAMILIES = {"llava-1.5-7b": "llava", "qwen2.5-vl-7b": "qwen2_5_vl", "idefics2-8b": "idefics2"}
BENCHMARKS = {"mllmu": ("5", "10", "15"), "clear": ("1", "5", "10")}
RUNS = [f"{b}-{r}-{m}" for b, ratios in BENCHMARKS.items() for r in ratios for m in FAMILIES]
LIFELONG = [f"mlubench-{task}-llava-v1.6-7b" for task in "abcd"]
# Every family and every benchmark, and of each benchmark every share.
TRIED = [
    "mllmu-5-llava-1.5-7b", "mllmu-10-qwen2.5-vl-7b", "mllmu-15-idefics2-8b",
    "clear-1-idefics2-8b", "clear-5-llava-1.5-7b", "clear-10-qwen2.5-vl-7b",
]  # fmt: skip


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Every benchmark's files."""
    found = {name: tmp_path_factory.mktemp(name) / "data" for name in BENCHMARKS}
    for name, folder in found.items():
        published.WRITERS[name](folder)
    return found


def unsee(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *words: object
) -> dict[str, Any]:
    """What the command prints as JSON."""
    monkeypatch.setattr(sys, "argv", ["unsee", *map(str, words), "--json"])
    with pytest.raises(SystemExit) as ended:
        main()
    told = capsys.readouterr()
    assert ended.value.code == 0, told.err
    found: dict[str, Any] = json.loads(told.out)
    return found


def test_there_is_one_for_every_setting() -> None:
    teaching = [f"finetune-{b}-{m}" for b in BENCHMARKS for m in FAMILIES]
    found = {path.stem for path in RECIPES.glob("*.yaml")}
    # Recipes of other benchmarks are tested with these.
    assert {n for n in found if n.removeprefix("finetune-").startswith(tuple(BENCHMARKS))} == {
        *RUNS,
        *teaching,
    }


@pytest.mark.parametrize("name", RUNS)
def test_it_is_valid(
    name: str,
    places: dict[str, Path],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    benchmark, ratio, model = name.split("-", 2)
    data = f"data={places[benchmark]}"
    checked = unsee(monkeypatch, capsys, "run", RECIPES / f"{name}.yaml", data, "--dry-run")
    assert checked["splits"]["forget"] > 0 and checked["splits"]["retain"] > 0
    recipe = RECIPES / f"finetune-{benchmark}-{model}.yaml"
    taught = unsee(
        monkeypatch, capsys, "finetune", recipe, data, f"forget_ratio={ratio}", "--dry-run"
    )["models"]  # fmt: skip
    assert set(taught) == {"target", "visual_retain", "retain_only"}
    assert taught["retain_only"]["samples"] < taught["target"]["samples"]


def test_a_request_is_stacked_on_the_patches_of_all_earlier_ones() -> None:
    for number, name in enumerate(LIFELONG):
        recipe = read_recipe(RECIPES / f"{name}.yaml")
        assert recipe.forget_ratio == "ABCD"[number]
        assert recipe.patch == tuple(f"runs/{earlier}/patch" for earlier in LIFELONG[:number])


@pytest.mark.parametrize("name", TRIED)
def test_it_runs_on_a_tiny_checkpoint_of_the_family(
    name: str,
    places: dict[str, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    benchmark, ratio, model = name.split("-", 2)
    folder = tiny.make(FAMILIES[model], tmp_path / "model")
    capsys.readouterr()
    summary = unsee(
        monkeypatch, capsys, "run", RECIPES / f"{name}.yaml", f"data={places[benchmark]}",
        f"model={folder}", f"reference={folder}", f"retain_only={folder}", "steps=2",
        "--out", tmp_path / "run",
    )  # fmt: skip
    assert summary["benchmark"]["name"] == benchmark
    assert summary["benchmark"]["ratio"] == ratio
    assert summary["cost"]["steps"] == 2
    assert summary["guarantees"]["text_identical"] is True
    assert summary["guarantees"]["changed_tensors"] > 0
    assert summary["measures"]["forget/vqa/accuracy"]["n"] > 0
