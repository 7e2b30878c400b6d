"""`unsee evaluate`."""

from __future__ import annotations

import json
from pathlib import Path

from support.cli import unsee
from unsee.models.vlm import VLM


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
