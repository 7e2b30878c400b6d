"""`unsee audit`."""

from __future__ import annotations

from pathlib import Path

import pytest

from support.cli import unsee
from unsee.benchmarks.pocket import SHIPPED


def test_audit_relearning_records_recovery_curves(
    tiny_folder: Path, tables: tuple[Path, Path], tmp_path: Path
) -> None:
    command = ["audit", "--attack", "relearn", "--model", tiny_folder, "--forget", tables[0]]
    command += ["--reference", tiny_folder, "--retain-holdout", tables[1]]
    command += ["--set", "steps=4", "--set", "modules=all", "--out", tmp_path / "run"]
    summary = unsee(*command, "--json")
    (attack,) = summary["attacks"]["relearn"]
    assert attack["area_to_reference"] == 0.0
    assert [p["step"] for p in attack["curves"]["unlearned"]] == [0, 4]
    assert attack["curves"]["unlearned"][0]["retain"] is not None


def test_audit_composes_and_reports_attacks(
    tiny_folder: Path, tables: tuple[Path, Path], tmp_path: Path
) -> None:
    out = tmp_path / "run"
    command = ["audit", "--attack", "quantize?bits=3+jailbreak", "--attack", "quantize+relearn"]
    command += ["--attack", "probe", "--model", tiny_folder, "--forget", tables[0]]
    command += ["--reference", tiny_folder, "--retain", tables[1], "--retain-holdout", tables[1]]
    command += ["--set", "relearn.steps=2", "--set", "layers=[projector]", "--out", out]
    summary = unsee(*command, "--json")
    assert set(summary["attacks"]) == {"quantize+jailbreak", "quantize+relearn", "probe"}
    (entry,) = summary["attacks"]["quantize+jailbreak"]
    assert entry["parameters"]["quantize"]["bits"] == 3
    for side in ("forget", "retain"):
        answers = {m: entry["models"][m]["answers"][side] for m in ("unlearned", "reference")}
        assert answers["unlearned"] == answers["reference"]
        assert 0 < answers["unlearned"]["n"] <= 60
        assert len(answers["unlearned"]["variants"]) == 3
    (reading,) = summary["attacks"]["probe"][0]["models"]["unlearned"]["readings"]
    assert reading["name"] == "projector accuracy"
    page = (out / "report.html").read_text("utf-8")
    assert "Other attacks" in page
    assert "quantize+jailbreak" in page
    assert "projector accuracy" in page
    command = ["audit", "--attack", "membership", "--model", tiny_folder, "--forget", tables[0]]
    errors = unsee(*command, "--out", tmp_path / "membership", code=2)
    assert "--non-members" in errors


@pytest.mark.parametrize(
    ("forget", "held_out"), [("pocket:forget@{build}", 180), ("pocket:forget_validation", 60)]
)
def test_audit_of_pocket_evaluates_held_out_samples(
    forget: str, held_out: int, tiny_folder: Path, tmp_path: Path
) -> None:
    """Pocket's forget split has its own held-out split; of other splits a part is held out."""
    build = tmp_path / "build"
    build.symlink_to(SHIPPED)
    command = ["audit", "--model", tiny_folder, "--forget", forget.format(build=build)]
    summary = unsee(*command, "--set", "steps=0", "--out", tmp_path / "run", "--json")
    measure = summary["measures"]["forget_holdout/vqa/accuracy"]
    # Answers of random weights that are empty or cut by the limit have no score, and are counted.
    assert measure["n"] + measure["n_unscored"] == held_out
    assert ("retain_holdout/vqa/accuracy" in summary["measures"]) is ("@" in forget)


def test_attacks_that_read_weights_are_refused_on_a_quantized_model(
    tiny_folder: Path, tables: tuple[Path, Path], tmp_path: Path
) -> None:
    command = ["audit", "--model", tiny_folder, "--forget", tables[0], "--load-in", "4bit"]
    errors = unsee(*command, "--attack", "jailbreak+relearn", "--out", tmp_path / "run", code=2)
    assert "load_in=4bit quantizes the model, and relearn would read or train" in errors
    assert "figstep" in errors
    assert not (tmp_path / "run").exists()
