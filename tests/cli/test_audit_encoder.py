"""`unsee audit` on an image encoder: photographs are compared before and after, and attacked."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from support.cli import unsee
from support.encoders import make_encoder
from unsee.models.vlm import VLM
from unsee.recipes.photographs import NO_QUESTIONS
from unsee.records.reader import read_run

ATTACKS = ("prototype", "probe", "difference", "relearn_features")


@pytest.fixture(scope="module")
def encoders(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A tiny encoder, and one with another last norm in place of an unlearned one."""
    root = tmp_path_factory.mktemp("encoders")
    before = make_encoder("dinov2", root / "before")
    vlm = VLM.load(before)
    with torch.no_grad():
        for weight in vlm.parameters("projector").values():
            weight.add_(torch.linspace(-0.5, 0.5, len(weight)))
    vlm.save(root / "after")
    return before, root / "after"


def test_audit_compares_and_attacks(
    encoders: tuple[Path, Path], photographs: dict[str, Path], tmp_path: Path
) -> None:
    before, after = encoders
    command = ["audit", "--model", after, "--target", before, "--forget", photographs["forget"]]
    command += ["--retain", photographs["retain"], "--set", "relearn_features.steps=1"]
    command += [part for name in (*ATTACKS, "in_context") for part in ("--attack", name)]
    unsee(*command, "--out", tmp_path / "run")
    summary = read_run(tmp_path / "run").summary
    assert summary.kind == "audit"
    assert summary.method is None
    record = summary.recognition
    assert record is not None
    assert record.encoder
    assert [person.held_out for person in record.people] == [1, 1]
    assert summary.attacks_left_out == {"in_context": NO_QUESTIONS}
    for measures in (summary.measures, summary.target):
        assert measures is not None
        for split in ("forget_holdout", "retain_holdout"):
            for metric in ("rank_1", "verification_auc"):
                assert 0 <= (measures[f"{split}/features/{metric}"].value or 0) <= 1
    assert summary.attacks is not None
    outcomes = summary.attacks.model_dump(exclude_none=True)
    assert set(ATTACKS) <= outcomes.keys()
    assert not outcomes["relearn"]
    page = (tmp_path / "run" / "report.html").read_text("utf-8")
    assert "relearn_features" in page


def test_photographs_that_score_the_attack_may_be_given(
    encoders: tuple[Path, Path], photographs: dict[str, Path], tmp_path: Path
) -> None:
    command = ["audit", "--model", encoders[1], "--forget", photographs["forget"]]
    command += ["--retain", photographs["retain"], "--holdout", photographs["forget"]]
    unsee(*command, "--attack", "prototype", "--out", tmp_path / "run")
    record = read_run(tmp_path / "run").summary.recognition
    assert record is not None
    assert [person.held_out for person in record.people] == [5, 5]


@pytest.mark.parametrize(
    ("options", "part"),
    [
        (
            [],
            "can be made on an image encoder (relearn: an image encoder answers no questions",
        ),
        (["--attack", "probe", "--forget", "pocket:forget"], "the forget set pocket:forget has"),
        (["--attack", "probe", "--retain", "{forget}/NOBODY"], "NOBODY"),
        (["--attack", "probe", "--non-members", "{forget}"], "Leave --non-members out"),
        (["--attack", "difference"], "--target"),
    ],
)
def test_what_an_encoder_cannot_be_audited_with_is_refused(
    encoders: tuple[Path, Path],
    photographs: dict[str, Path],
    tmp_path: Path,
    options: list[str],
    part: str,
) -> None:
    options = [option.replace("{forget}", str(photographs["forget"])) for option in options]
    given: list[str | Path] = []
    for side in ("forget", "retain"):
        given += [] if f"--{side}" in options else [f"--{side}", photographs[side]]
    out = tmp_path / "run"
    error = unsee("audit", "--model", encoders[0], *given, *options, "--out", out, code=2)
    assert part in error
    assert not out.exists()


def test_audit_needs_people_to_compare_with(
    encoders: tuple[Path, Path], photographs: dict[str, Path], tmp_path: Path
) -> None:
    command = ["audit", "--attack", "probe", "--model", encoders[0]]
    command += ["--forget", photographs["forget"], "--out", tmp_path / "run"]
    assert "give two or more, --retain FOLDER" in unsee(*command, code=2)


def test_missing_encoder_is_named_and_not_its_photographs(
    photographs: dict[str, Path], tmp_path: Path
) -> None:
    """Without a checkpoint nobody knows that it is an encoder, which needs no answers."""
    command = ["audit", "--attack", "probe", "--model", tmp_path / "none"]
    error = unsee(*command, "--forget", photographs["forget"], "--out", tmp_path / "run", code=2)
    assert f"model '{tmp_path / 'none'}': no such folder" in error


def test_evaluation_of_an_encoder_leads_to_an_audit(
    encoders: tuple[Path, Path], photographs: dict[str, Path], tmp_path: Path
) -> None:
    command = ["evaluate", "--model", encoders[0], "--data", f"forget={photographs['forget']}"]
    error = unsee(*command, "--out", tmp_path / "run", code=2)
    assert "image encoder answers no questions" in error
    assert "unsee audit: --forget DIR --retain DIR" in error
