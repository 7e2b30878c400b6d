"""What the tasks of this folder need beyond YAML; lm-eval imports it by its path."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any


def pope(doc: Mapping[str, Any], answers: Sequence[str]) -> dict[str, Any]:
    """Whether yes or no was said and is right; what `f1` needs; whether it was yes."""
    word = re.match(r"\W*(yes|no)\b", answers[0], re.IGNORECASE)
    said = word[1].lower() if word else ""
    truth = doc["answer"].strip().lower()
    return {
        "acc": float(said == truth),
        "f1": (truth == "yes", said == "yes"),
        "yes_ratio": float(said == "yes"),
    }


def f1(pairs: Sequence[tuple[bool, bool]]) -> float:
    """F1 of "yes" over (true, said) pairs; 0 where yes is neither true nor said."""
    hits = sum(true and said for true, said in pairs)
    found = sum(true + said for true, said in pairs)
    return 2 * hits / found if found else 0.0


def gqa(**_: Any) -> Any:
    """The balanced test-dev questions, each with its picture, which lie in another table."""
    from datasets import Dataset, DatasetDict, Image, load_dataset

    part = "testdev_balanced"
    asked = load_dataset("lmms-lab/GQA", f"{part}_instructions", split="testdev")
    shown = load_dataset("lmms-lab/GQA", f"{part}_images", split="testdev")
    place = {name: index for index, name in enumerate(shown["id"])}
    pictures = shown.cast_column("image", Image(decode=False))["image"]
    rows = [{**row, "image": pictures[place[row["imageId"]]]} for row in asked]
    made = Dataset.from_list(rows).cast_column("image", Image())
    return DatasetDict({"testdev": made})
