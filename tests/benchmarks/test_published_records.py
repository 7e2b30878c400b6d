"""Errors of published files name file, row and field."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from support.published import config, open_benchmark, read_lines, replace_value, write
from unsee.benchmarks import BENCHMARKS
from unsee.errors import DataError


def test_parquet_refuses_a_file_without_rows(copied: dict[str, Path]) -> None:
    path = config(copied["clear"], "forget10_perturbed")
    write(path, [], pq.read_table(path).schema.names)
    with pytest.raises(DataError, match="has no rows"):
        open_benchmark(copied, "clear").load("forget")


WRONG = [
    ("mllmu", "forget_5", "biography", "{", "field 'biography' is not JSON"),
    ("mllmu", "forget_5", "image", {"bytes": b"no", "path": "x"}, "field 'image' is no picture"),
    ("mllmu", "forget_5", "image", None, "field 'image' is null"),
    (
        "mllmu",
        "forget_5",
        "Mask_Task",
        [{"Question": "a", "Ground_Truth": "b", "Type": "Image"}],
        "field 'Mask_Task[0].Type' is",
    ),
    (
        "mllmu",
        "forget_5",
        "Mask_Task",
        [{"Question": None, "Ground_Truth": "b", "Type": "Pure_Text"}],
        "field 'Mask_Task[0].Question' is None, a NoneType; it must be text",
    ),
    ("umu", "forget_5", "Classify", "{'a'", "field 'Classify' is not a Python literal"),
    (
        "umu",
        "forget_5",
        "Cloze",
        "{'multimodal': {}, 'unimodal': {}}",
        "field 'Cloze.muitimodal' is missing",
    ),
    ("clear", "forget10_perturbed", "perturbed_names", [], "field 'perturbed_names' has no other"),
]


@pytest.mark.parametrize(("name", "where", "field", "value", "message"), WRONG)
def test_load_names_row_and_field_of_a_bad_record(
    copied: dict[str, Path], name: str, where: str, field: str, value: Any, message: str
) -> None:
    path = config(copied[name], where)
    replace_value(path, 0, field, value)
    with pytest.raises(DataError) as caught:
        open_benchmark(copied, name).load("forget")
    assert f"{path}, row 1: {message}" in str(caught.value)


def test_load_names_all_bad_records_at_once(copied: dict[str, Path]) -> None:
    path = config(copied["clear"], "forget10_perturbed")
    for row in range(9):
        replace_value(path, row, "caption", None)
    with pytest.raises(DataError) as caught:
        open_benchmark(copied, "clear").load("forget")
    assert len(str(caught.value).splitlines()) == 9


def test_load_refuses_missing_and_broken_files(copied: dict[str, Path], tmp_path: Path) -> None:
    config(copied["umu"], "forget_5").unlink()
    with pytest.raises(DataError, match="has no file forget_5/train-00000-of-0000N.parquet"):
        open_benchmark(copied, "umu").load("forget")
    config(copied["clear"], "real_faces").write_bytes(b"no")
    with pytest.raises(DataError, match="is not a readable parquet file"):
        open_benchmark(copied, "clear").load("real_faces")
    config(copied["mllmu"], "Test_Set").rename(
        copied["mllmu"] / "Test_Set" / "train-00000-of-00002.parquet"
    )
    with pytest.raises(DataError, match="has 1 of 2 parquet files"):
        open_benchmark(copied, "mllmu").load("test")
    write(config(copied["mllmu"], "ft_Data"), [{"ID": "001"}], ("ID",))
    with pytest.raises(DataError, match="row 1: field 'image' is missing"):
        open_benchmark(copied, "mllmu").data()
    (copied["fiubench"] / "full.json").write_text("[")
    with pytest.raises(DataError, match="full.json: is not JSON"):
        open_benchmark(copied, "fiubench").load("forget")
    (copied["safeeraser"] / "images" / "0.png").unlink()
    with pytest.raises(DataError, match="row 1: field 'image_path' is no picture.*no such file"):
        open_benchmark(copied, "safeeraser").load("forget")
    with pytest.raises(DataError, match="no folder"):
        BENCHMARKS.get("mllmu").open(tmp_path / "none")
    with pytest.raises(DataError, match="the hub did not provide it from"):
        BENCHMARKS.get("mllmu").open(None).load("forget")


def test_json_records_name_row_and_field(copied: dict[str, Path]) -> None:
    path = copied["fiubench"] / "full.json"
    rows = read_lines(path)
    rows[1]["qa_list"][0]["keyword"] = rows[1]["qa_list"][0].pop("keywords")
    path.write_text(json.dumps(rows))
    with pytest.raises(DataError, match=r"row 2: field 'qa_list\[0\].keywords' is missing.*Did"):
        open_benchmark(copied, "fiubench").load("forget")
