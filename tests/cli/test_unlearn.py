"""`unsee unlearn`."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from support.cli import SHORT, unsee
from unsee.models.vlm import VLM
from unsee.recipes.job import Job
from unsee.recipes.plan import plan
from unsee.recipes.unlearn import make_recipe
from unsee.records.reader import read_run
from unsee.types import Data


def test_unlearn_of_images_alone_writes_a_patch_that_applies(
    tiny_folder: Path, photos: Path, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    command = ["unlearn", "--model", tiny_folder, "--forget", photos, "--out", out, "--json"]
    summary = unsee(*command, *SHORT)
    assert summary["method"]["parameters"]["supervision"] == "features"
    assert summary["method"]["parameters"]["population"] == "generated"
    assert "of nobody" in summary["choices"]["population"]
    assert summary["guarantees"]["changed_outside_visual"] == 0
    assert summary["guarantees"]["text_identical"] is True
    assert summary["representation"]["forget_shift"] > 0
    assert summary == json.loads((out / "summary.json").read_text())
    assert (out / "report.html").exists()
    applied = tmp_path / "applied"
    unsee("apply", out / "patch", "--model", tiny_folder, "--out", applied)
    verification = unsee("verify", tiny_folder, applied, "--json")
    assert verification["text_identical"] is True
    assert verification["language_identical"] is True
    assert len(verification["differing"]) == summary["guarantees"]["changed_tensors"]
    assert VLM.load(applied).hash("visual") == summary["provenance"]["result_weights_sha256"]
    assert "holds this run, finished before" in unsee(*command, *SHORT, stderr=True)
    errors = unsee(*command, *SHORT, "--seed", 1, code=2)
    assert "holds a finished run" in errors


def test_unlearn_apply_and_verify_print_summaries(
    tiny_folder: Path, photos: Path, tmp_path: Path
) -> None:
    out, applied = tmp_path / "run", tmp_path / "applied"
    printed = unsee("unlearn", "--model", tiny_folder, "--forget", photos, "--out", out, *SHORT)
    assert f"report: {out / 'report.html'}" in printed
    printed = unsee("apply", out / "patch", "--model", tiny_folder, "--out", applied)
    assert "tensors changed, 1 weight file rewritten" in printed
    printed = unsee("verify", tiny_folder, applied)
    assert "language part: identical" in printed
    assert "text-only logits: identical bit for bit" in printed
    printed = unsee("verify", tiny_folder, tiny_folder)
    assert "tensors: 0 of" in printed


@pytest.mark.parametrize("method", ["vkd", "grad_diff"])
def test_unlearn_with_answers_records_measures_and_guarantees(
    method: str, tiny_folder: Path, tables: tuple[Path, Path], tmp_path: Path
) -> None:
    out = tmp_path / "run"
    command = ["unlearn", "--model", tiny_folder, "--forget", tables[0], "--retain", tables[1]]
    command += ["--method", method, "--out", out, *SHORT]
    if method == "vkd":  # grad_diff changes the language model: it writes a whole model by default
        command += ["--save", "model"]
    summary = unsee(*command, "--json")
    for split in ("forget", "forget_holdout", "retain", "retain_holdout"):
        assert f"{split}/vqa/accuracy" in summary["measures"]
        assert f"{split}/vqa/accuracy" in summary["target"]
    unchanged = summary["guarantees"]["language_part_sha256_unchanged"]
    assert unchanged is (method == "vkd")
    assert summary["guarantees"]["text_identical"] is (method == "vkd")
    assert VLM.load(out / "model").hash() == summary["provenance"]["result_weights_sha256"]
    rows = [json.loads(line) for line in (out / "scores.jsonl").read_text().splitlines()]
    assert {row["model"] for row in rows} == {"unlearned", "target"}
    steps = [json.loads(line) for line in (out / "train.jsonl").read_text().splitlines()]
    assert [line["step"] for line in steps] == [1, 2, 3, 4]
    assert not (out / ".state").exists()
    page = tmp_path / "both.html"
    unsee("report", out, "-o", page)
    assert page.stat().st_size > 10_000


@pytest.mark.parametrize("kind", ["pictures", "answers"])
def test_run_repeats_the_recipe_of_a_run_on_own_data(
    kind: str, tiny_folder: Path, photos: Path, tables: tuple[Path, Path], tmp_path: Path
) -> None:
    forget = ["--forget", photos] if kind == "pictures" else ["--forget", tables[0]]
    retain = [] if kind == "pictures" else ["--retain", tables[1]]
    unsee("unlearn", "--model", tiny_folder, *forget, *retain, "--out", tmp_path / "a", *SHORT)
    recipe = (tmp_path / "a" / "recipe.yaml").read_text()
    assert "pocket" not in recipe.partition("\n")[2]
    unsee("run", tmp_path / "a" / "recipe.yaml", "--out", tmp_path / "b")
    first, second = (read_run(tmp_path / name).summary for name in "ab")
    assert first.provenance.result_weights_sha256 == second.provenance.result_weights_sha256
    assert first.measures == second.measures
    patches = [(tmp_path / name / "patch" / "patch.safetensors").read_bytes() for name in "ab"]
    assert patches[0] == patches[1]
    again = (tmp_path / "b" / "recipe.yaml").read_text()
    assert again.partition("\n")[2] == recipe.partition("\n")[2]


def test_unlearn_chooses_the_population(
    tiny_folder: Path, photos: Path, data: Data, tmp_path: Path
) -> None:
    """Pictures of nobody where no retain images are given, for one person as for several.

    Compared with each other, people would get each other's names: that must be typed. Drawn faces
    serve as retain images where none are given, and never together with photographs; they alone
    are compared with only where that is typed. A default that is typed changes nothing.
    """
    first = min(photos.iterdir())
    shutil.copytree(first, tmp_path / "one" / first.name)

    def job(forget: Path, **fields: Any) -> Job:
        recipe = make_recipe(
            {"method": "vkd", "model": str(tiny_folder), "forget": str(forget), **fields}
        )
        return plan(recipe, "unlearn", "")[0]

    assert job(photos).method.population == "generated"
    assert job(photos, set={"population": "forget"}).method.population == "forget"
    assert job(photos, set={"erase": "neutral"}).method.population == "nearest"
    assert job(photos, set={"erase": "anonymous"}).method.population == "generated"
    assert job(photos, set={"population": "kept"}).method.population == "kept"
    one_person = job(tmp_path / "one")
    assert one_person.method.population == "generated"
    assert len(one_person.data.retain) == len(one_person.data.strangers) > 0
    others = tmp_path / "others"
    others.mkdir()
    for sample in data.retain:
        if sample.picture is not None:
            sample.picture.open().save(others / Path(sample.picture.source).name)
    with_retain = job(photos, retain=str(others))
    assert with_retain.method.population == "kept"
    assert not with_retain.data.strangers
    assert job(photos, retain=str(others), set={"erase": "stranger"}).data.strangers


def test_unlearn_says_whom_it_compares_with(
    tiny_folder: Path, photos: Path, tmp_path: Path
) -> None:
    """Whatever is chosen without --retain stands on the terminal, in the record and the report."""
    out = tmp_path / "run"
    command = ["unlearn", "--model", tiny_folder, "--forget", photos, *SHORT]
    said = unsee(*command, "--out", out, stderr=True)
    assert "population=generated composes pictures of nobody" in said and "--retain FOLDER" in said
    page = (out / "report.html").read_text()
    assert "pictures of nobody, composed from those of the people to be forgotten" in page
    out = tmp_path / "forget"
    said = unsee(*command, "--out", out, "--set", "population=forget", stderr=True)
    assert "22 of 36 held-out pictures were answered with the other" in said.replace("\n", " ")
    summary = json.loads((out / "summary.json").read_text())
    assert "may be answered with the name of another" in summary["choices"]["population"]
    assert "may be answered with the name of another" in (out / "report.html").read_text()


def test_unlearn_advises_full_precision_on_a_slow_cpu(
    tiny_folder: Path, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only for a checkpoint in half precision, on a CPU that is slow in that precision."""
    VLM.load(tiny_folder, dtype=torch.bfloat16).save(tmp_path / "half")

    def advice(folder: Path, **fields: Any) -> list[str]:
        recipe = make_recipe(
            {"model": str(folder), "forget": str(photos), "device": "cpu", **fields}
        )
        return plan(recipe, "unlearn", "")[0].advice()

    monkeypatch.setattr("unsee.recipes.job.SLOW", 0.0)
    (note,) = advice(tmp_path / "half")
    assert "stored in bfloat16" in note and "precision=fp32" in note
    assert not advice(tmp_path / "half", set={"precision": "fp32"})
    assert not advice(tiny_folder)
    monkeypatch.setattr("unsee.recipes.job.SLOW", 1e9)
    assert not advice(tmp_path / "half")
