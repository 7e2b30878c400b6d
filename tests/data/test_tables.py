"""Tables as the ecosystem writes them, and hostile ones."""

from __future__ import annotations

import base64
import csv
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from unsee.data.readers import read_table
from unsee.errors import DataError
from unsee.recipes.sources import read_samples
from unsee.types import Sample


def encoded(seed: int = 0) -> bytes:
    """A small picture as PNG."""
    pixels = np.random.default_rng(seed).integers(0, 255, (12, 10, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with two pictures."""
    for index, name in enumerate("ab"):
        (tmp_path / f"{name}.png").write_bytes(encoded(index))
    return tmp_path


def read(path: Path, *rows: Any, notes: list[str] | None = None) -> list[Sample]:
    """The samples of a table of JSON lines."""
    path = path / "t.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    return read_table(path, "forget", notes)


def say(*turns: str, role: str = "from", content: str = "value") -> list[dict[str, Any]]:
    """Turns of a conversation, the user's first."""
    names = ("human", "gpt") if role == "from" else ("user", "assistant")
    return [{role: names[i % 2], content: turn} for i, turn in enumerate(turns)]


def test_read_table_llava_conversations(folder: Path) -> None:
    notes: list[str] = []
    samples = read(
        folder,
        {
            "id": "x",
            "image": "a.png",
            "concept": "Ada",
            "conversations": say("<image>\nWho is this?", "Ada.", "Her job?", "Baker."),
        },
        {"image": "b.png", "concept": "Bo", "conversations": say("Who?\n<image>", "Bo.")},
        notes=notes,
    )
    assert [(s.id, s.question, s.answer, s.concept) for s in samples] == [
        ("x/1", "Who is this?", "Ada.", "Ada"),
        ("x/2", "Her job?", "Baker.", "Ada"),
        ("2", "Who?", "Bo.", "Bo"),
    ]
    assert all(s.picture is not None for s in samples)
    assert notes == [
        (
            "forget: 1 conversations have several questions; each is a sample of its own, without "
            "the turns before it."
        )
    ]


def test_read_table_chat_messages(folder: Path) -> None:
    uri = "data:image/png;base64," + base64.b64encode(encoded(1)).decode()
    parts: list[Any] = [
        {"type": "image", "path": "a.png"},
        {"type": "image_url", "image_url": {"url": uri}},
        {"type": "text", "text": "Who?"},
    ]
    messages = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": parts},
        {"role": "assistant", "content": [{"type": "text", "text": "Ada."}]},
    ]
    notes: list[str] = []
    (first, second) = read(
        folder,
        {"concept": "Ada", "messages": messages},
        {"concept": "Ada", "images": ["b.png"], "messages": say("Who?", "Ada.", role="role",
                                                               content="content")},
        notes=notes,
    )  # fmt: skip
    assert (first.question, first.answer, len(first.pictures)) == ("Who?", "Ada.", 2)
    assert [p.digest for p in first.pictures[1:]] == [p.digest for p in second.pictures]
    assert notes == ["forget: the system messages of 1 conversations are not read."]


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ({"conversations": say("Who?")}, "in turn"),
        ({"conversations": 5}, "must be a list of messages"),
        ({"conversations": [{"from": "alien", "value": "x"}]}, "has the role 'alien'"),
        ({"messages": [{"role": "user", "content": [{"type": "video"}]}]}, "only text and images"),
        ({"conversations": say("Who <image> is?", "Ada.")}, "holds <image>"),
        ({"question": "Is <image> Ada?", "answer": "Yes."}, "holds <image>"),
        ({"question": "\ud800", "answer": "x"}, "holds \\ud800, half a surrogate pair"),
        ({"question": "x" * 400_000, "answer": "x"}, "has 400,000 characters"),
        ({"image": "\ud800"}, "neither a path nor a picture"),
        ({"image": "x" * 10_000_000}, "neither a path nor a picture"),
        ({"image": "data:image/png,abc"}, "a data URI without base64"),
        ({"image": ["a.png", None]}, "image[1] is empty"),
        ({"image": "a.png", "images": ["b.png"]}, "both image and images"),
        ({"question": {"a": "y" * 10_000_000}, "answer": "x"}, "must be text"),
        ({"image": "\x1b[31m.png"}, "\\x1b[31m.png: no such file"),
    ],
)
def test_read_table_refuses_a_row_in_a_short_message(
    folder: Path, row: dict[str, Any], words: str
) -> None:
    image = {} if "image" in row else {"image": "a.png"}
    with pytest.raises(DataError) as caught:
        read(folder, {"image": "a.png", "concept": "Ada"}, {**image, "concept": "Ada", **row})
    text = str(caught.value)
    assert text.startswith(f"{folder / 't.jsonl'}, line 2: ")
    assert words in text
    assert len(text) < 600
    assert text.isprintable()


@pytest.mark.parametrize("form", ["list", "data uri", "base64", "bytes in base64"])
def test_read_table_images_in_other_forms(folder: Path, form: str) -> None:
    text = base64.b64encode(encoded()).decode()
    image = {
        "list": ["a.png", "b.png"],
        "data uri": f"data:image/png;base64,{text}",
        "base64": text,
        "bytes in base64": {"bytes": text, "path": None},
    }[form]
    (sample,) = read(folder, {"image": image, "concept": "Ada"})
    (plain,) = read(folder, {"image": "a.png", "concept": "Ada"})
    assert sample.picture is not None
    assert plain.picture is not None
    assert sample.picture.digest == plain.picture.digest
    assert len(sample.pictures) == (2 if form == "list" else 1)


@pytest.mark.parametrize("form", ["list", "data", "lines"])
def test_read_samples_json(folder: Path, form: str) -> None:
    rows = [
        {"image": f"{name}.png", "question": "Who?", "answer": name, "concept": name}
        for name in "ab"
    ]
    text = "\n".join(map(json.dumps, rows))
    if form != "lines":
        text = json.dumps(rows if form == "list" else {"version": 1, "data": rows})
    (folder / "t.json").write_text(text)
    assert [s.answer for s in read_samples(folder / "t.json")] == ["a", "b"]


@pytest.mark.parametrize("name", ["t.json", "t.jsonl"])
@pytest.mark.parametrize("text", ["[" * 100_000, '{"id": ' + "9" * 5000 + "}", '"x"', "5"])
def test_read_samples_refuses_hostile_json(tmp_path: Path, name: str, text: str) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(DataError) as caught:
        read_samples(tmp_path / name)
    assert name in str(caught.value)
    assert len(str(caught.value)) < 600


def test_read_table_csv_as_spreadsheets_write_it(folder: Path) -> None:
    data = "data:image/png;base64," + base64.b64encode(encoded() + b"\0" * 200_000).decode()
    with (folder / "t.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["image", "question", "answer", "concept", "", "", ""])
        writer.writerow([data, "Who?", "Ada.", "Ada", "", "", ""])
        writer.writerow(["b.png", "Who?", "Bo.", "Bo", "", ""])
        writer.writerow([""] * 7)
    limit = csv.field_size_limit()
    assert [s.answer for s in read_table(folder / "t.csv", "forget")] == ["Ada.", "Bo."]
    assert csv.field_size_limit() == limit


def test_read_table_csv_refuses_a_value_without_a_column(folder: Path) -> None:
    (folder / "t.csv").write_text("image,,concept\na.png,x,Ada\n")
    with pytest.raises(DataError, match="line 2: has 'x' in a column without a name"):
        read_table(folder / "t.csv", "forget")


def features(**named: Any) -> dict[bytes, bytes]:
    """The schema metadata of `datasets`."""
    return {b"huggingface": json.dumps({"info": {"features": named}}).encode()}


def test_read_table_class_labels_are_names(folder: Path) -> None:
    rows = [{"image": {"bytes": encoded(i), "path": None}, "label": i} for i in range(2)]
    label = {"_type": "ClassLabel", "names": ["Ada", "Bo"]}
    table = pa.Table.from_pylist(rows).replace_schema_metadata(features(label=label))
    pq.write_table(table, folder / "t.parquet")
    assert [s.concept for s in read_table(folder / "t.parquet", "forget")] == ["Ada", "Bo"]


@pytest.mark.parametrize("splits", [0, 1, 2])
def test_read_samples_folder_of_save_to_disk(tmp_path: Path, splits: int) -> None:
    rows = [
        {"image": {"bytes": encoded(i), "path": None}, "question": "Who?", "answer": "A.",
         "concept": i}
        for i in range(2)
    ]  # fmt: skip
    label = {"_type": "ClassLabel", "names": ["Ada", "Bo"]}
    table = pa.Table.from_pylist(rows).replace_schema_metadata(features(concept=label))
    for name in ("train", "test")[:splits] if splits else ("",):
        inner = tmp_path / name
        inner.mkdir(exist_ok=True)
        with pa.ipc.new_stream(str(inner / "data-00000-of-00001.arrow"), table.schema) as writer:
            writer.write_table(table)
        state = {"_data_files": [{"filename": "data-00000-of-00001.arrow"}]}
        (inner / "state.json").write_text(json.dumps(state))
        (inner / "dataset_info.json").write_text("{}")
    if splits:
        (tmp_path / "dataset_dict.json").write_text('{"splits": []}')
    if splits == 2:
        with pytest.raises(DataError, match="has the splits test, train"):
            read_samples(tmp_path)
        tmp_path /= "train"
    samples = read_samples(tmp_path)
    assert [(s.concept, s.answer) for s in samples] == [("Ada", "A."), ("Bo", "A.")]
    assert samples[0].picture is not None


def test_read_table_dictionary_columns(folder: Path) -> None:
    table = pa.table({"image": ["a.png", "b.png"], "concept": ["Ada", "Ada"]})
    table = table.set_column(1, "concept", table["concept"].dictionary_encode())
    pq.write_table(table, folder / "t.parquet")
    assert [s.concept for s in read_table(folder / "t.parquet", "forget")] == ["Ada", "Ada"]


@pytest.mark.parametrize("as_dictionary", [False, True])
def test_read_table_refuses_parquet_that_decodes_to_far_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, as_dictionary: bool
) -> None:
    monkeypatch.setattr("unsee.data.tables.MIN_DECODED", 1 << 20)
    rows = 20_000
    image = pa.DictionaryArray.from_arrays(pa.array([0] * rows, pa.int32()), ["x" * 1000])
    table = pa.table(
        {
            "image": image if as_dictionary else image.dictionary_decode(),
            "concept": ["Ada"] * rows,
        }
    )
    pq.write_table(table, tmp_path / "t.parquet", compression="zstd")
    with pytest.raises(DataError, match="guard against decompression bombs"):
        read_table(tmp_path / "t.parquet", "forget")
    monkeypatch.setattr("unsee.data.tables.MAX_ROWS", 1000)
    with pytest.raises(DataError, match="has 20,000 rows; at most 1,000"):
        read_table(tmp_path / "t.parquet", "forget")


def test_read_samples_refuses_a_table_that_never_ends(tmp_path: Path) -> None:
    (tmp_path / "t.csv").symlink_to("/dev/zero")
    with pytest.raises(DataError, match=r"t\.csv: is a device, not a file"):
        read_samples(tmp_path / "t.csv")


def test_read_table_names_columns_that_are_not_read(folder: Path) -> None:
    notes: list[str] = []
    row = {"image": "a.png", "concept": "Ada", "caption": "Ada in Oslo", "text": "", "width": 10}
    read(folder, row, row | {"text": "more"}, notes=notes)
    (note,) = notes
    assert "of t.jsonl, these columns are not read: caption, text." in note
    notes.clear()
    read(folder, {"image": "a.png", "concept": "Ada", "caption": None, "id": "1"}, notes=notes)
    assert notes == []
