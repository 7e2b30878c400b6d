"""Functions that the task files of this folder name; lm-eval imports this file by its path."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any


def pope(doc: Mapping[str, Any], answers: Sequence[str]) -> dict[str, Any]:
    """Scores a yes/no answer.

    Args:
        doc: The question, with its true answer under "answer".
        answers: The model's answer.

    Returns:
        "acc" (1 if right), "f1" (whether the true and the given answer are yes), and "yes_ratio"
        (1 if the answer is yes).
    """
    word = re.match(r"\W*(yes|no)\b", answers[0], re.IGNORECASE)
    answer = word[1].lower() if word else ""
    truth = doc["answer"].strip().lower()
    return {
        "acc": float(answer == truth),
        "f1": (truth == "yes", answer == "yes"),
        "yes_ratio": float(answer == "yes"),
    }


def f1(pairs: Sequence[tuple[bool, bool]]) -> float:
    """Returns the F1 score of "yes" over (true, predicted) pairs; 0 if no pair has a yes."""
    hits = sum(true and predicted for true, predicted in pairs)
    total = sum(true + predicted for true, predicted in pairs)
    return 2 * hits / total if total else 0.0


def gqa(**_: Any) -> Any:
    """Returns GQA's balanced test-dev questions, joined with the table of their pictures."""
    from datasets import Dataset, DatasetDict, Image, load_dataset

    subset = "testdev_balanced"
    questions = load_dataset("lmms-lab/GQA", f"{subset}_instructions", split="testdev")
    images = load_dataset("lmms-lab/GQA", f"{subset}_images", split="testdev")
    position = {name: index for index, name in enumerate(images["id"])}
    pictures = images.cast_column("image", Image(decode=False))["image"]
    rows = [{**row, "image": pictures[position[row["imageId"]]]} for row in questions]
    dataset = Dataset.from_list(rows).cast_column("image", Image())
    return DatasetDict({"testdev": dataset})
