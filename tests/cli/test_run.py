"""`unsee run`."""

from __future__ import annotations

import json
from pathlib import Path

from support.cli import unsee


def test_run_trains_evaluates_and_attacks(
    tiny_folder: Path, tables: tuple[Path, Path], tmp_path: Path
) -> None:
    recipe = tmp_path / "job.yaml"
    recipe.write_text(
        f"model: {tiny_folder}\nforget: {tables[0]}\nretain: {tables[1]}\n"
        f"reference: {tiny_folder}\nset: {{steps: 4, batch_size: 4}}\n"
        "attacks: [{share: 1.0, steps: 2, modules: language_lora}]\n"
    )
    check = unsee("run", recipe, "lr=1e-3", "--dry-run", "--json", cwd=tmp_path)
    assert check["splits"]["forget_holdout"] > 0
    assert not (tmp_path / "runs").exists()
    out = tmp_path / "run"
    summary = unsee("run", recipe, "lr=1e-3", "--out", out, "--json")
    assert summary["method"]["parameters"]["lr"] == 1e-3
    (attack,) = summary["attacks"]["relearn"]
    assert set(attack["curves"]) == {"unlearned", "reference"}
    rows = [json.loads(line) for line in (out / "scores.jsonl").read_text().splitlines()]
    assert {row["model"] for row in rows} == {"unlearned", "target", "reference"}
    assert len({(row["model"], row["split"], row["id"]) for row in rows}) == len(rows)
