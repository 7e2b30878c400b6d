"""Records of models whose metrics can be rated by hand."""

from __future__ import annotations

from typing import Any

from unsee.studies.ratings import ModelRecord


def record(name: str, before: float, after: float = 0.0, **changes: Any) -> ModelRecord:
    """A model on which one metric and its opposite were measured."""
    kind = name.split("-")[0]
    content = {
        "name": name,
        "kind": kind,
        "made": {},
        "utility": 1.0,
        "seconds": 60.0,
        "rows": [],
        "before": {"bleu": before, "truth_ratio": 1 - before},
        "quantized": {"bleu": after, "truth_ratio": 1 - after},
        "relearned": {"bleu": after, "truth_ratio": 1 - after},
        "provenance": {
            "platform": "X",
            "cpu": "Y",
            "threads": 1,
            "unsee": "1",
            "torch": "2",
            "transformers": "3",
        },
    }
    return ModelRecord.model_validate(content | changes)
