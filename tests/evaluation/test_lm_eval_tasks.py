"""The tasks that the package ships: their data and their scores."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from support.lm_eval import needs_lm_eval, read_scores, run_commands
from unsee.benchmarks.pocket import Pocket
from unsee.evaluation.lm_eval_tasks.scoring import f1, pope

Rows = list[dict[str, Any]]

POPE: Rows = [
    {"question": "Is there a dog in the image?", "answer": "no", "category": "random"},
    {"question": "Is there a person in the image?", "answer": "yes", "category": "popular"},
]
SCIENCE_QA: Rows = [
    {"question": "Which is red?", "choices": ["this", "that"], "answer": 1, "hint": "See."},
    {"question": "Which is blue?", "choices": ["this", "that"], "answer": 0, "hint": ""},
]
GQA: Rows = [
    {"id": str(i), "imageId": f"n{1 - i}", "question": f"What is {i}?", "answer": "dog"}
    for i in range(2)
]
CONFIG = "- config_name: {0}\n  data_files:\n  - split: {1}\n    path: {0}/*.parquet\n"


def grey(shade: int) -> Image.Image:
    return Image.fromarray(np.full((24, 24, 3), shade, dtype=np.uint8))


def write_dataset(folder: Path, split: str, configs: dict[str, Rows]) -> None:
    """Writes tables in the layout of a data set on the hub."""
    import datasets

    for config, rows in configs.items():
        table = datasets.Dataset.from_dict({key: [row[key] for row in rows] for key in rows[0]})
        if "image" in rows[0]:
            table = table.cast_column("image", datasets.Image())
        (folder / config).mkdir(parents=True)
        table.to_parquet(str(folder / config / f"{split}-00000-of-00001.parquet"))
    listing = "".join(CONFIG.format(config, split) for config in sorted(configs))
    (folder / "README.md").write_text(f"---\nconfigs:\n{listing}---\n", "utf-8")


def with_pictures(rows: Rows) -> Rows:
    return [{**row, "image": grey(60 * i)} for i, row in enumerate(rows)]


@needs_lm_eval
def test_shipped_tasks_read_data_of_the_published_columns(tmp_path: Path) -> None:
    """Reads invented rows from a folder with the data set's name, which comes before the hub."""
    published = tmp_path / "lmms-lab"
    write_dataset(published / "POPE", "test", {"default": with_pictures(POPE)})
    science_qa = {"ScienceQA-IMG": with_pictures(SCIENCE_QA)}
    write_dataset(published / "ScienceQA", "test", science_qa)
    gqa = {
        "testdev_balanced_instructions": GQA,
        "testdev_balanced_images": [{"id": f"n{i}", "image": grey(90 * i)} for i in range(2)],
    }
    write_dataset(published / "GQA", "testdev", gqa)
    command = ["evaluate", "--model", Pocket().checkpoint("target")]
    command += ["--tasks", "pope,scienceqa_img,gqa", "--out", "shipped", "--json"]
    (result,) = run_commands([command], tmp_path)
    assert result["code"] == 0, result["err"]
    summary = json.loads(result["out"])
    assert {name: measure["n"] for name, measure in summary["measures"].items()} == {
        "pope/vqa/acc": 2,
        "pope/vqa/f1": 2,
        "pope/vqa/yes_ratio": 2,
        "scienceqa_img/vqa/exact_match": 2,
        "gqa/vqa/exact_match": 2,
    }
    assert summary["harness"]["tasks"]["pope"]["undirected"] == ["yes_ratio"]
    first = {row["split"]: row for row in reversed(read_scores(tmp_path / "shipped"))}
    assert first["scienceqa_img"]["question"] == (
        "<image>\nContext: See.\nWhich is red?\nA. this\nB. that\n"
        "Answer with the option's letter from the given choices directly."
    )
    assert first["scienceqa_img"]["truth"] == "B"
    assert first["pope"]["question"].startswith("<image>\nIs there a dog in the image?\nAnswer")
    assert first["gqa"]["truth"] == "dog"


def test_pope_scores_the_first_word_of_an_answer() -> None:
    truths = {"Yes, there is.": "yes", "no": "no", "No.": "no", "nothing": "yes", " yes": "no"}
    scores = [pope({"answer": truth}, [answer]) for answer, truth in truths.items()]
    assert [row["acc"] for row in scores] == [1, 1, 1, 0, 0]
    assert [row["yes_ratio"] for row in scores] == [1, 0, 0, 0, 1]
    # One hit; two answers are truly yes, and two are given as yes.
    assert f1([row["f1"] for row in scores]) == pytest.approx(0.5)
    assert f1([(False, False)]) == 0
