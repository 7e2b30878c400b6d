"""Records of small runs, whose scores can be computed by hand."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from unsee.records.provenance import provenance
from unsee.records.schema import SampleScore, Summary

# How much each model knows of the forgotten people.
PROBABILITIES = {"unlearned": 0.2, "reference": 0.1, "target": 0.9}


def measures(forget: float, retain: float) -> dict[str, dict[str, Any]]:
    """Four metrics on a forget split, a retain split, and a general split that is all right."""
    values = {"forget": forget, "retain": retain, "general": 1.0}
    return {
        f"{split}/vqa/{metric}": {"value": value}
        for metric in ("cloze", "accuracy", "rouge_l", "probability")
        for split, value in values.items()
    }


def summary_dict(**changes: Any) -> dict[str, Any]:
    """The content of summary.json."""
    return {
        "forgetting": ["forget"],
        "measures": measures(0.2, 0.8),
        "reference": measures(0.1, 0.9),
        "target": measures(1.0, 1.0),
        "attacks": None,
        "provenance": provenance(0, "cpu").to_dict(),
        **changes,
    }


def summary(**changes: Any) -> Summary:
    """A record with changed parts."""
    return Summary.model_validate(summary_dict(**changes))


def sample_scores() -> list[SampleScore]:
    """Four forget samples of each model."""
    return [
        SampleScore(model=model, split="forget", id=f"{i}", scores={"probability": value})
        for model, value in PROBABILITIES.items()
        for i in range(4)
    ]


def write_run(folder: Path, accuracy: float) -> None:
    """Writes the folder of a finished run with a forget accuracy."""
    folder.mkdir(parents=True)
    cost = {"seconds": 2.0, "peak_memory_bytes": 5_000_000, "trainable_parameters": 7}
    content = summary_dict(measures=measures(accuracy, 0.8), cost=cost)
    (folder / "summary.json").write_text(json.dumps(content))
    lines = [json.dumps(row.to_dict()) + "\n" for row in sample_scores()]
    (folder / "scores.jsonl").write_text("".join(lines))
    (folder / "report.html").write_text("")
