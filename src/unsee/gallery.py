"""The gallery of a record: a question about some people, and what the models answer to it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any


def gallery(evaluations: Mapping[str, Mapping[str, Any]], kept: int = 4) -> list[dict[str, Any]]:
    """One question about every forgotten person, some kept, and what the models answer to it."""
    rows: list[dict[str, Any]] = evaluations.get("unlearned", {}).get("rows", [])
    answers = {
        name: {(r["split"], r["id"]): r["output"] for r in found["rows"]}
        for name, found in evaluations.items()
    }
    shown: dict[tuple[str, str], dict[str, Any]] = {}
    for split in ("forget_holdout", "retain_holdout"):
        for row in rows:
            place = (split, str(row["concept"]))
            wanted = row["split"] == split and row["task"] == "generation" and row["picture"]
            if not wanted or place in shown:
                continue
            if split == "retain_holdout" and sum(s == split for s, _ in shown) >= kept:
                break
            key = (split, row["id"])
            shown[place] = {
                "concept": row["concept"],
                "split": split,
                "picture": str(Path(row["picture"]).resolve()),
                "question": row["question"],
                "truth": row["truth"],
                "before": answers.get("target", {}).get(key),
                "after": row["output"],
                "reference": answers.get("reference", {}).get(key),
            }
    return list(shown.values())
