"""The gallery of a record: a question about some people, and what the models answer to it."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

Rows = Sequence[dict[str, Any]]


def gallery(
    evaluations: Mapping[str, Mapping[str, Any]], forgetting: Collection[str] = (), kept: int = 4
) -> list[dict[str, Any]]:
    """One question about every forgotten person, some kept, and what the models answer to it.

    Args:
        evaluations: {"rows"} by model.
        forgetting: The splits that ask about what is to be forgotten.
        kept: How many people of the others.
    """
    rows: Rows = [r for r in evaluations.get("unlearned", {}).get("rows", ()) if r["picture"]]
    answers = {
        name: {(r["split"], r["id"]): r["output"] for r in found["rows"]}
        for name, found in evaluations.items()
    }
    lost = [row for row in rows if row["split"] in forgetting]
    others = [row for row in rows if row["split"] not in forgetting]
    chosen = _one_each(lost, "forget_holdout") + _one_each(others, "retain_holdout")[:kept]
    return [
        {
            "concept": row["concept"],
            "split": row["split"],
            "picture": str(Path(row["picture"]).resolve()),
            "question": row["question"],
            "truth": row["truth"],
            "before": answers.get("target", {}).get((row["split"], row["id"])),
            "after": row["output"],
            "reference": answers.get("reference", {}).get((row["split"], row["id"])),
        }
        for row in chosen
    ]


def _one_each(rows: Rows, best: str) -> list[dict[str, Any]]:
    """A row about each concept of one split: of `best`, else of the first; free answers first."""
    splits = list(dict.fromkeys(row["split"] for row in rows))
    split = best if best in splits or not splits else splits[0]
    found: dict[str, dict[str, Any]] = {}
    some = [row for row in rows if row["split"] == split]
    for row in sorted(some, key=lambda row: row["task"] != "generation"):
        found.setdefault(str(row["concept"]), row)
    return list(found.values())
