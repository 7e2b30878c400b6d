"""Pocket exported in MLLMU-Bench's layout."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pyarrow.parquet as pq
from PIL import Image

from unsee.benchmarks.pocket import Pocket
from unsee.pocket_builder.from_scratch import PARQUET


def test_write_parquet_has_the_published_columns(small: Path) -> None:
    pocket, out = Pocket(small), small / PARQUET
    tables = {p.parent.name: pq.read_table(p) for p in out.glob("*/train-00000-of-00001.parquet")}
    tasks = ["Classification_Task", "Generation_Task", "Mask_Task"]
    full = ["image", "ID", "Directory", "biography", "question", "answer", *tasks]
    assert tables["Full_Set"].column_names == full
    assert tables["Retain_Set"].column_names == full
    assert tables["forget_10"].column_names == [c for c in full if c != "Directory"]
    assert tables["Test_Set"].column_names == ["ID", "images", *tasks]
    assert tables["ft_Data"].column_names == ["image", "ID", "metadata"]
    ids = {name: set(table.column("ID").to_pylist()) for name, table in tables.items()}
    assert ids["forget_10"] | ids["retain_90"] == ids["Full_Set"]
    assert not ids["forget_10"] & ids["retain_90"]
    row = tables["Full_Set"].to_pylist()[0]
    assert Image.open(io.BytesIO(row["image"]["bytes"])).size == (48, 48)
    person = pocket.world.people[0]
    assert json.loads(row["biography"])["Name"] == person.name
    for kind in ("Image_Textual_Questions", "Pure_Text_Questions"):
        for question in row["Classification_Task"][kind]:
            right = question["Options"][question["Correct_Answer"]]
            assert right in person.facts.values()
    assert {t["Type"] for t in row["Mask_Task"]} == {"Image_Textual", "Pure_Text"}
    assert all("__" in t["Question"] for t in row["Mask_Task"])
    training_questions = json.loads(tables["ft_Data"].to_pylist()[0]["metadata"])
    assert set(training_questions[0]) == {"ID", "Question", "Answer"}
