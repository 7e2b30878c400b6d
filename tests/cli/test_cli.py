"""The command line, on a tiny checkpoint."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from support.cli import unsee
from unsee.benchmarks.pocket import SHIPPED
from unsee.models.vlm import VLM
from unsee.recipes.job import Job
from unsee.recipes.plan import plan
from unsee.recipes.unlearn import make_recipe
from unsee.types import Data

SHORT = ["--set", "steps=4", "--set", "batch_size=4", "--set", "lr=1e-3"]


@pytest.fixture(scope="module")
def tables(data: Data, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The forget and the retain samples as JSONL."""
    folder = tmp_path_factory.mktemp("tables")
    paths = (folder / "forget.jsonl", folder / "retain.jsonl")
    for path, samples in zip(paths, (data.forget, data.retain), strict=True):
        rows = [
            {
                "image": s.picture.source if s.picture is not None else None,
                "question": s.question,
                "answer": s.answer,
                "concept": s.concept,
                "task": s.task,
                "choices": list(s.choices),
            }
            for s in samples
        ]
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return paths


def test_pictures_alone_make_a_patch_that_applies(
    tiny_folder: Path, photos: Path, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    told = ["unlearn", "--model", tiny_folder, "--forget", photos, "--out", out, "--json"]
    summary = unsee(*told, *SHORT)
    assert summary["method"]["parameters"]["supervision"] == "features"
    assert summary["method"]["parameters"]["population"] == "forget"
    assert summary["guarantees"]["changed_outside_visual"] == 0
    assert summary["guarantees"]["text_identical"] is None
    assert summary["representation"]["forget_shift"] > 0
    assert summary == json.loads((out / "summary.json").read_text())
    assert (out / "report.html").exists()
    applied = tmp_path / "applied"
    unsee("apply", out / "patch", "--model", tiny_folder, "--out", applied)
    found = unsee("verify", tiny_folder, applied, "--json")
    assert found["text_identical"] is True
    assert found["language_identical"] is True
    assert len(found["differing"]) == summary["guarantees"]["changed_tensors"]
    assert VLM.load(applied).hash("visual") == summary["provenance"]["result_weights_sha256"]
    assert "holds this run, finished before" in unsee(*told, *SHORT, stderr=True)
    again = unsee(*told, *SHORT, "--seed", 1, code=2)
    assert "holds a finished run" in again


def test_a_checkpoint_that_ships_goes_by_its_name(photos: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    unsee("unlearn", "--model", "pocket:base", "--forget", photos, "--out", out, *SHORT)
    unsee("apply", out / "patch", "--model", "pocket:base", "--out", tmp_path / "applied")
    found = unsee("verify", "pocket:base", tmp_path / "applied", "--probes", 0, "--json")
    assert found["language_identical"] is True
    assert found["text_identical"] is None
    assert found["differing"]
    told = unsee("verify", "pocket:other", tmp_path / "applied", code=2)
    assert "Allowed: base, retain_only, target, visual_retain" in told


def test_whose_pictures_are_the_population(
    tiny_folder: Path, photos: Path, data: Data, tmp_path: Path
) -> None:
    """Each other's, where several people are given alone; never drawn faces beside photographs."""
    (first, *_) = sorted(photos.iterdir())
    shutil.copytree(first, tmp_path / "one" / first.name)

    def made(forget: Path, **given: Any) -> Job:
        recipe = make_recipe(
            {"method": "vkd", "model": str(tiny_folder), "forget": str(forget), **given}
        )
        return plan(recipe, "unlearn", "")[0]

    assert made(photos).method.population == "forget"
    assert made(photos, set={"erase": "neutral"}).method.population == "kept"
    alone = made(tmp_path / "one")
    assert alone.method.population == "kept"
    assert len(alone.data.retain) == len(alone.data.strangers) > 0
    others = tmp_path / "others"
    others.mkdir()
    for sample in data.retain:
        if sample.picture is not None:
            sample.picture.open().save(others / Path(sample.picture.source).name)
    beside = made(photos, retain=str(others))
    assert beside.method.population == "kept"
    assert not beside.data.strangers
    assert made(photos, retain=str(others), set={"erase": "stranger"}).data.strangers


def test_says_what_would_be_faster_here(
    tiny_folder: Path, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a checkpoint in half precision on a CPU that is slow in it, and of no other."""
    VLM.load(tiny_folder, dtype=torch.bfloat16).save(tmp_path / "half")

    def advice(folder: Path, **given: Any) -> list[str]:
        recipe = make_recipe(
            {"model": str(folder), "forget": str(photos), "device": "cpu", **given}
        )
        return plan(recipe, "unlearn", "")[0].advice()

    monkeypatch.setattr("unsee.recipes.job.SLOW", 0.0)
    (said,) = advice(tmp_path / "half")
    assert "stored in bfloat16" in said and "precision=fp32" in said
    assert not advice(tmp_path / "half", set={"precision": "fp32"})
    assert not advice(tiny_folder)
    monkeypatch.setattr("unsee.recipes.job.SLOW", 1e9)
    assert not advice(tmp_path / "half")


@pytest.mark.parametrize("method", ["vkd", "grad_diff"])
def test_answers_give_measures_and_guarantees(
    method: str, tiny_folder: Path, tables: tuple[Path, Path], tmp_path: Path
) -> None:
    out = tmp_path / "run"
    summary = unsee(
        "unlearn", "--model", tiny_folder, "--forget", tables[0], "--retain", tables[1],
        # A patch cannot carry what grad_diff changes, so a model is what it writes by default.
        "--method", method, *(["--save", "model"] if method == "vkd" else []), "--out", out,
        *SHORT, "--json",
    )  # fmt: skip
    for split in ("forget", "forget_holdout", "retain", "retain_holdout"):
        assert f"{split}/vqa/accuracy" in summary["measures"]
        assert f"{split}/vqa/accuracy" in summary["target"]
    kept = summary["guarantees"]["language_part_sha256_unchanged"]
    assert kept is (method == "vkd")
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


def test_evaluate_and_audit(tiny_folder: Path, tables: tuple[Path, Path], tmp_path: Path) -> None:
    scored = unsee(
        "evaluate", "--model", tiny_folder, "--data", f"forget={tables[0]}",
        "--out", tmp_path / "e", "--json",
    )  # fmt: skip
    assert scored["kind"] == "evaluate"
    assert scored["measures"]["forget/vqa/accuracy"]["n"] == 18
    audited = unsee(
        "audit", "--attack", "relearn", "--model", tiny_folder, "--forget", tables[0],
        "--reference", tiny_folder, "--retain-holdout", tables[1],
        "--set", "steps=4", "--set", "modules=all", "--out", tmp_path / "a", "--json",
    )  # fmt: skip
    (attack,) = audited["attacks"]["relearn"]
    assert attack["area_to_reference"] == 0.0
    assert [p["step"] for p in attack["curves"]["unlearned"]] == [0, 4]
    assert attack["curves"]["unlearned"][0]["retain"] is not None


def test_attacks_are_composed_and_reported(
    tiny_folder: Path, tables: tuple[Path, Path], tmp_path: Path
) -> None:
    out = tmp_path / "a"
    audited = unsee(
        "audit", "--attack", "quantize?bits=3+jailbreak", "--attack", "quantize+relearn",
        "--attack", "probe", "--model", tiny_folder, "--forget", tables[0],
        "--reference", tiny_folder, "--retain", tables[1], "--retain-holdout", tables[1],
        "--set", "relearn.steps=2", "--set", "layers=[projector]", "--out", out, "--json",
    )  # fmt: skip
    assert set(audited["attacks"]) == {"quantize+jailbreak", "quantize+relearn", "probe"}
    (entry,) = audited["attacks"]["quantize+jailbreak"]
    assert entry["parameters"]["quantize"]["bits"] == 3
    for side in ("forget", "retain"):
        mine, beside = (entry["models"][m]["answers"][side] for m in ("unlearned", "reference"))
        assert mine == beside
        assert 0 < mine["n"] <= 60
        assert len(mine["variants"]) == 3
    (reading,) = audited["attacks"]["probe"][0]["models"]["unlearned"]["readings"]
    assert reading["name"] == "projector accuracy"
    page = (out / "report.html").read_text("utf-8")
    assert "Other attacks" in page
    assert "quantize+jailbreak" in page
    assert "projector accuracy" in page
    told = unsee(
        "audit", "--attack", "membership", "--model", tiny_folder, "--forget", tables[0],
        "--out", tmp_path / "b", code=2,
    )  # fmt: skip
    assert "--non-members" in told


@pytest.mark.parametrize(
    ("forget", "held_out"), [("pocket:forget@{build}", 180), ("pocket:forget_validation", 60)]
)
def test_an_audit_of_pocket_finds_what_was_held_out(
    forget: str, held_out: int, tiny_folder: Path, tmp_path: Path
) -> None:
    """The whole of pocket has a held-out split of its own; of any other split some is held out."""
    build = tmp_path / "build"
    build.symlink_to(SHIPPED)
    audited = unsee(
        "audit", "--model", tiny_folder, "--forget", forget.format(build=build),
        "--set", "steps=0", "--out", tmp_path / "a", "--json",
    )  # fmt: skip
    assert audited["measures"]["forget_holdout/vqa/accuracy"]["n"] == held_out
    assert ("retain_holdout/vqa/accuracy" in audited["measures"]) is ("@" in forget)


def test_a_recipe_trains_evaluates_attacks_and_reports(
    tiny_folder: Path, tables: tuple[Path, Path], photos: Path, tmp_path: Path
) -> None:
    recipe = tmp_path / "job.yaml"
    recipe.write_text(
        f"model: {tiny_folder}\nforget: {tables[0]}\nretain: {tables[1]}\n"
        f"reference: {tiny_folder}\nset: {{steps: 4, batch_size: 4}}\n"
        "attacks: [{share: 1.0, steps: 2, modules: language_lora}]\n"
    )
    checked = unsee("run", recipe, "lr=1e-3", "--dry-run", "--json", cwd=tmp_path)
    assert checked["splits"]["forget_holdout"] > 0
    assert not (tmp_path / "runs").exists()
    out = tmp_path / "run"
    summary = unsee("run", recipe, "lr=1e-3", "--out", out, "--json")
    assert summary["method"]["parameters"]["lr"] == 1e-3
    (attack,) = summary["attacks"]["relearn"]
    assert set(attack["curves"]) == {"unlearned", "reference"}
    rows = [json.loads(line) for line in (out / "scores.jsonl").read_text().splitlines()]
    assert {row["model"] for row in rows} == {"unlearned", "target", "reference"}
    assert len({(row["model"], row["split"], row["id"]) for row in rows}) == len(rows)
    # Nothing could score the attack where nobody asks a question.
    bare = tmp_path / "bare.yaml"
    bare.write_text(f"model: {tiny_folder}\nforget: {photos}\nattacks: [{{share: 1.0}}]\n")
    told = unsee("run", bare, "--out", tmp_path / "bare", code=2)
    assert "leave out the attacks" in told.replace("\n", " ")
    assert not (tmp_path / "bare").exists()


def test_people_are_told_in_words(tiny_folder: Path, photos: Path, tmp_path: Path) -> None:
    out, applied = tmp_path / "run", tmp_path / "applied"
    told = unsee("unlearn", "--model", tiny_folder, "--forget", photos, "--out", out, *SHORT)
    assert f"report: {out / 'report.html'}" in told
    made = unsee("apply", out / "patch", "--model", tiny_folder, "--out", applied)
    assert "tensors changed, 1 weight files rewritten" in made
    found = unsee("verify", tiny_folder, applied)
    assert "language part: identical" in found
    assert "text-only logits: identical bit for bit" in found
    same = unsee("verify", tiny_folder, tiny_folder)
    assert "tensors: 0 of" in same


def test_wrong_arguments_are_told_in_a_sentence(
    tiny_folder: Path, photos: Path, tables: tuple[Path, Path], tmp_path: Path
) -> None:
    out = tmp_path / "out"
    base = ["unlearn", "--model", tiny_folder, "--forget", photos, "--out", out]
    whole = ["unlearn", "--model", tiny_folder, "--forget", tables[0], "--out", out]
    whole += ["--method", "grad_diff", "--retain", tables[1]]
    cases: list[tuple[list[Any], str]] = [
        (["unlern"], "Did you mean 'unlearn'"),
        (["list", "method"], "Did you mean 'methods'"),
        (["show", "vkdd"], "Did you mean 'vkd'"),
        ([*base, "--set", "erse=push"], "Did you mean 'erase'"),
        ([*base, "--set", "lr=0"], "greater than 0"),
        ([*base, "--method", "npo"], "needs questions and answers"),
        ([*base, "--supervision", "full"], "--supervision features"),
        ([*base, "--save", "zip"], "'patch', 'model' or 'adapter'"),
        ([*base, "--save", "adapter"], "none are trained"),
        ([*base, "--save", "model"], "--save patch, then `unsee apply`"),
        ([*whole, "--save", "patch"], "--save model, or --set trains=visual"),
        (["unlearn", "--model", tmp_path / "no", "--forget", photos, "--out", out], "no such fol"),
        (["unlearn", "--model", tiny_folder, "--forget", tmp_path / "no"], "does not exist"),
        (["unlearn", "--model", tiny_folder, "--forget", tmp_path], "empty|no picture"),
        (["unlearn", "--model", tiny_folder, "--forget", tables[0], "--retain", tables[0]], "both"),
        (["unlearn", "--forget", photos], "--model"),
        (["evaluate", "--model", tiny_folder, "--data", photos], "no answers to score"),
        (["apply", tmp_path, "--model", tiny_folder, "--out", out], "patch"),
        (["report", tmp_path], "unsee"),
        (["run", "none.yaml"], "no such file"),
        (["pocket", "build", "--out", out, "--people", "1"], "people=1"),
        (["pocket", "build", "--out", out, "--faces", tmp_path / "no"], "no such folder"),
    ]

    for arguments, message in cases:
        assert re.search(message, unsee(*arguments, code=2, cwd=tmp_path)), arguments
    assert not out.exists()
    assert not (tmp_path / "runs").exists()


def test_evaluate_max_new_tokens_limits_the_answer(
    tiny_folder: Path, tables: tuple[Path, Path], tmp_path: Path
) -> None:
    out = tmp_path / "e"
    common = ["evaluate", "--model", tiny_folder, "--data", f"forget={tables[0]}", "--out", out]
    unsee(*common, "--max-new-tokens", 1, "--json")
    rows = [json.loads(line) for line in (out / "scores.jsonl").read_text().splitlines()]
    tokenizer = VLM.load(tiny_folder).processor.tokenizer
    assert all(len(tokenizer.tokenize(row["output"])) <= 1 for row in rows)
    assert "max_new_tokens: 1" in (out / "recipe.yaml").read_text()
