"""`unsee evaluate`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from support.cli import unsee
from unsee.models.vlm import VLM
from unsee.recipes import plan_evaluation
from unsee.recipes.evaluate import make_evaluation


def test_evaluate_records_accuracy(
    tiny_folder: Path, tables: tuple[Path, Path], tmp_path: Path
) -> None:
    command = ["evaluate", "--model", tiny_folder, "--data", f"forget={tables[0]}"]
    summary = unsee(*command, "--out", tmp_path / "run", "--json")
    assert summary["kind"] == "evaluate"
    measure = summary["measures"]["forget/vqa/accuracy"]
    assert measure["n"] + measure["n_unscored"] == 18


def test_evaluate_max_new_tokens_limits_the_answer(
    tiny_folder: Path, tables: tuple[Path, Path], tmp_path: Path
) -> None:
    out = tmp_path / "run"
    command = ["evaluate", "--model", tiny_folder, "--data", f"forget={tables[0]}", "--out", out]
    unsee(*command, "--max-new-tokens", 1, "--json")
    rows = [json.loads(line) for line in (out / "scores.jsonl").read_text().splitlines()]
    tokenizer = VLM.load(tiny_folder).processor.tokenizer
    assert all(len(tokenizer.tokenize(row["output"])) <= 1 for row in rows)
    assert "max_new_tokens: 1" in (out / "recipe.yaml").read_text()


def test_evaluate_and_audit_name_what_is_forgotten_and_kept(
    tiny_folder: Path, tables: tuple[Path, Path], tmp_path: Path
) -> None:
    rows = [json.loads(line) for line in tables[0].read_text().splitlines()]
    shared = tmp_path / "others.jsonl"
    shared.write_text(
        "".join(json.dumps(row | {"id": f"x{i}"}) + "\n" for i, row in enumerate(rows))
    )
    command = ["evaluate", "--model", tiny_folder, "--data", f"forget={tables[0]}"]
    command += ["--data", f"retain={shared}", "--out", tmp_path / "run"]
    notes = unsee(*command, stderr=True)
    assert "retain pictures are near-duplicates of forget pictures" in notes
    assert "concepts are in the forget set and in the retain set" in notes
    request = make_evaluation(
        {"model": str(tiny_folder), "splits": {"forget": str(tables[0])}, "retain": str(shared)}
        | {"attacks": ["relearn?steps=1"]}
    )
    with pytest.MonkeyPatch.context() as patch:
        logged: list[str] = []
        patch.setattr(plan_evaluation.LOGGER, "warning", logged.append)
        plan_evaluation.evaluation(request, "x")
    assert any("near-duplicates of forget pictures" in note for note in logged)
