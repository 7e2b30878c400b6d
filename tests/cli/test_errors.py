"""Wrong arguments of every command: exit code 2, a message that names the mistake, no output."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from support.cli import unsee
from unsee.cli import shared


def test_commands_name_wrong_arguments(
    tiny_folder: Path, photos: Path, tables: tuple[Path, Path], tmp_path: Path
) -> None:
    out, empty = tmp_path / "out", tmp_path / "empty"
    empty.mkdir()
    from_images = ["unlearn", "--model", tiny_folder, "--forget", photos, "--out", out]
    with_answers = ["unlearn", "--model", tiny_folder, "--forget", tables[0], "--out", out]
    two_stages = [*with_answers, "--tier", "language", "--set", "lora=2"]
    with_answers += ["--method", "grad_diff", "--retain", tables[1]]
    cases: list[tuple[list[Any], str]] = [
        (["unlern"], "Did you mean 'unlearn'"),
        (["list", "method"], "Did you mean 'methods'"),
        (["show", "vkdd"], "Did you mean 'vkd'"),
        ([*from_images, "--set", "erse=push"], "Did you mean 'erase'"),
        ([*from_images, "--set", "lr=0"], "greater than 0"),
        ([*from_images, "--method", "npo"], "needs questions and answers"),
        ([*from_images, "--supervision", "full"], "--supervision features"),
        ([*from_images, "--save", "zip"], "'patch', 'model' or 'adapter'"),
        ([*from_images, "--save", "adapter"], "none are trained"),
        ([*from_images, "--save", "model"], "--save patch, then `unsee apply`"),
        ([*with_answers, "--save", "patch"], "--save model, or --set trains=visual"),
        ([*two_stages, "--save", "adapter"], "trains first is merged into the weights"),
        (["unlearn", "--model", tmp_path / "no", "--forget", photos, "--out", out], "no such fol"),
        (["unlearn", "--model", tiny_folder, "--forget", tmp_path / "no"], "does not exist"),
        (["unlearn", "--model", tiny_folder, "--forget", empty], "empty|no picture"),
        (["unlearn", "--model", tiny_folder, "--forget", "."], "lies in the folder ., which is"),
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


MODEL = ("--model", "pocket:target")
UNLEARN = ("unlearn", *MODEL, "--forget", "pocket:forget")
AUDIT = ("audit", *MODEL, "--forget", "pocket:forget")
EVALUATE = ("evaluate", *MODEL, "--data", "pocket:forget")
COMPARE = ("compare", "--benchmark", "pocket", "--methods", "vkd")

MISSPELLED: dict[str, tuple[tuple[str, ...], str]] = {
    "attack": ((*AUDIT, "--attack", "relern"), "relearn"),
    "attack in a chain": ((*AUDIT, "--attack", "quantize+jailbrak"), "jailbreak"),
    "field of an attack": ((*AUDIT, "--attack", "quantize?bitz=4"), "bits"),
    "method": ((*UNLEARN, "--method", "vdk"), "vkd"),
    "field": ((*UNLEARN, "--set", "stepz=3"), "steps"),
    "choice": ((*UNLEARN, "--set", "erase=strangr"), "stranger"),
    "choice of a training setting": ((*UNLEARN, "--set", "schedule=cosin"), "cosine"),
    "kind of result": ((*UNLEARN, "--save", "pach"), "patch"),
    "device": ((*UNLEARN, "--device", "cpuu"), "cpu"),
    "tracker": ((*UNLEARN, "--log-with", "tensorbord"), "tensorboard"),
    "split": (("unlearn", *MODEL, "--forget", "pocket:forgt"), "forget"),
    "benchmark of data": (("unlearn", *MODEL, "--forget", "pockt:forget"), "pocket"),
    "shipped model": (
        ("unlearn", "--model", "pocket:targt", "--forget", "pocket:forget"),
        "target",
    ),
    "benchmark of a model": (("evaluate", "--model", "pockt:target", *EVALUATE[3:]), "pocket"),
    "metric": ((*EVALUATE, "--metrics", "acuracy"), "accuracy"),
    "bits": ((*EVALUATE, "--load-in", "8bits"), "8bit"),
    "recipe": (("run", "pocket-vdk"), "pocket-vkd"),
    "field of a recipe": (("run", "pocket-vkd", "benchmrk=pocket"), "benchmark"),
    "role to finetune": (("finetune", "finetune-pocket-full", "who=targt"), "target"),
    "benchmark to compare on": (("compare", "--benchmark", "pockt", *COMPARE[3:]), "pocket"),
    "field to compare with": ((*COMPARE, "--set", "stepz=3"), "steps"),
    "benchmark of metrics": (("meta", "--benchmark", "pockt"), "pocket"),
    "family": (("show", "lava"), "llava"),
    "kind": (("list", "famlies"), "families"),
    "schema": (("schema", "recod"), "record"),
    "format": (("export", "pocket:target", "--to", "onxx", "--out", "a.onnx"), "onnx"),
    "requirement": (("verify", "a", "b", "--require", "txt"), "text"),
    "command": (("unlern",), "unlearn"),
}


@pytest.mark.parametrize("case", MISSPELLED)
def test_commands_suggest_the_nearest_name(case: str, tmp_path: Path) -> None:
    words, nearest = MISSPELLED[case]
    said = unsee(*words, code=2, cwd=tmp_path)
    assert f"Did you mean '{nearest}'" in said, said
    assert not list(tmp_path.iterdir())


def test_commands_suggest_nothing_for_a_name_that_is_like_none(tmp_path: Path) -> None:
    said = unsee(*AUDIT, "--attack", "nonee", code=2, cwd=tmp_path)
    assert "unknown attack 'nonee'. Allowed: adaptive" in said


def test_commands_suggest_the_nearest_column(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("image,question,answer,concpt\na.png,Who?,Ada,Ada\n")
    said = unsee("unlearn", *MODEL, "--forget", "a.csv", cwd=tmp_path, code=2)
    assert "column 'concept' is missing" in said
    assert "Did you mean 'concpt'? Rename it." in said


def test_command_hides_passwords_from_pages_and_records(monkeypatch: pytest.MonkeyPatch) -> None:
    url = "postgresql://ada:PASSWORD@host/db"
    monkeypatch.setattr("sys.argv", ["unsee", "compare", "--storage", url, f"--storage={url}"])
    assert "PASSWORD" not in shared.command()
    assert shared.command().count("postgresql://ada:***@host/db") == 2
