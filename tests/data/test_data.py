"""Reading what users point at: every bad input is named with its file, its row and its mend."""

from __future__ import annotations

import csv
import json
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from unsee.data.digests import data_hash
from unsee.data.selection import check_disjoint, split_holdout
from unsee.errors import ConfigError, DataError, UnknownNameError
from unsee.metrics.accuracy import true_option
from unsee.recipes.sources import make_data, read_samples
from unsee.types import Data, Picture, Sample


def draw(path: Path, seed: int = 0) -> Path:
    """A small picture in a file; the same seed gives the same pixels."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 255, (12, 10, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    return path


def bomb(path: Path) -> Path:
    """A PNG of some hundred bytes whose header announces 900 million pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    header = struct.pack(">IIBBBBB", 30_000, 30_000, 8, 0, 0, 0, 0)
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(b"\0" * 100))
        + chunk(b"IEND", b"")
    )
    return path


def row(image: str | None = "a.png", **other: Any) -> dict[str, Any]:
    """A good row, changed by `other`."""
    return {"image": image, "question": "Who?", "answer": "Ada.", "concept": "Ada", **other}


def jsonl(path: Path, *rows: Any) -> Path:
    """A JSONL file."""
    path.write_text("".join(json.dumps(r) + "\n" for r in rows), "utf-8")
    return path


def message(path: Path | str, role: str = "forget") -> str:
    """The error that reading gives."""
    with pytest.raises(DataError) as caught:
        read_samples(path, role)
    return str(caught.value)


def test_folder_of_subfolders(tmp_path: Path) -> None:
    draw(tmp_path / "ada" / "1.png")
    draw(tmp_path / "ada" / "2020" / "2.PNG", 1)
    for index, suffix in enumerate(["jpg", "jpeg", "webp", "bmp", "gif", "pgm", "ppm", "tif"]):
        draw(tmp_path / "bo" / f"{index}.{suffix}", index)
    (tmp_path / "notes.txt").write_text("not a picture")
    draw(tmp_path / ".thumbnails" / "1.png")
    (tmp_path / "__MACOSX").mkdir()
    (tmp_path / "__MACOSX" / "1.png").write_bytes(b"resource fork")
    samples = read_samples(tmp_path)
    assert len(samples) == 10
    assert [s.id for s in samples[:2]] == ["ada/1.png", "ada/2020/2.PNG"]
    assert {s.concept for s in samples} == {"ada", "bo"}
    assert all(s.picture is not None and s.question == s.answer == "" for s in samples)


def test_flat_folder_is_one_concept(tmp_path: Path) -> None:
    draw(tmp_path / "ada" / "1.png")
    draw(tmp_path / "ada" / "2.png", 1)
    assert {s.concept for s in read_samples(tmp_path / "ada")} == {"ada"}


def test_tables_of_every_kind_give_the_same_samples(tmp_path: Path) -> None:
    draw(tmp_path / "a.png")
    draw(tmp_path / "b.png", 1)
    rows = [row(), row("b.png", task="classification", choices=["Ada.", "y"]), row(None)]
    jsonl(tmp_path / "s.jsonl", *rows)
    for name, separator in (("s.csv", ","), ("s.tsv", "\t")):
        with (tmp_path / name).open("w", encoding="utf-8-sig", newline="") as file:
            writer = csv.writer(file, delimiter=separator)
            writer.writerow(["image", "question", "answer", "concept", "task", "choices"])
            for r in rows:
                choices = json.dumps(r["choices"]) if "choices" in r else ""
                writer.writerow(
                    [r["image"] or "", "Who?", "Ada.", "Ada", r.get("task", ""), choices]
                )
    full = [{"task": None, "choices": None, **r} for r in rows]
    pq.write_table(pa.Table.from_pylist(full), tmp_path / "s.parquet")
    wanted = [
        Sample("1", "Who?", "Ada.", Picture.from_path(tmp_path / "a.png"), "Ada"),
        Sample(
            "2", "Who?", "Ada.", Picture.from_path(tmp_path / "b.png"), "Ada", ("Ada.", "y"),
            "classification",
        ),
        Sample("3", "Who?", "Ada.", None, "Ada"),
    ]  # fmt: skip
    for name in ("s.jsonl", "s.csv", "s.tsv", "s.parquet"):
        assert read_samples(tmp_path / name) == wanted, name


@pytest.mark.parametrize("struct_column", [True, False])
def test_parquet_with_encoded_pictures(tmp_path: Path, struct_column: bool) -> None:
    data = draw(tmp_path / "a.png").read_bytes()
    value: Any = {"bytes": data, "path": None} if struct_column else data
    rows = [row(value), row(value, question="What?")]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "s.parquet")
    first, second = read_samples(tmp_path / "s.parquet")
    assert first.picture is second.picture, "one picture, decoded once"
    assert first.picture is not None
    assert first.picture.source == f"{tmp_path / 's.parquet'}#1"
    assert first.picture.digest == Picture.from_path(tmp_path / "a.png").digest


def test_absolute_paths_and_ids(tmp_path: Path) -> None:
    image = draw(tmp_path / "elsewhere" / "a.png")
    table = jsonl(tmp_path / "s.jsonl", row(str(image), id=7), row(str(image), id="eight"))
    assert [s.id for s in read_samples(table)] == ["7", "eight"]


def test_retain_rows_need_no_concept(tmp_path: Path) -> None:
    table = jsonl(tmp_path / "s.jsonl", {"image": None, "question": "2+2?", "answer": "4"})
    assert read_samples(table, "retain")[0].concept is None
    assert "column 'concept' is missing" in message(table)


def test_missing_path(tmp_path: Path) -> None:
    text = message(tmp_path / "absent")
    assert str(tmp_path / "absent") in text
    assert "does not exist" in text
    assert "Give a folder" in text


def test_one_picture_is_no_set(tmp_path: Path) -> None:
    assert "goes into a folder" in message(draw(tmp_path / "a.png"))


@pytest.mark.parametrize("name", ["set.xlsx", "set.json", "weights.pt"])
def test_unread_kind(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"x")
    text = message(tmp_path / name)
    assert name in text
    assert ".jsonl" in text


def test_empty_folder_names_a_table_in_it(tmp_path: Path) -> None:
    jsonl(tmp_path / "set.jsonl", row())
    text = message(tmp_path)
    assert "is empty" in text
    assert str(tmp_path / "set.jsonl") in text


@pytest.mark.parametrize("name", ["s.jsonl", "s.csv", "s.parquet"])
def test_empty_table(tmp_path: Path, name: str) -> None:
    if name.endswith("csv"):
        (tmp_path / name).write_text("image,question,answer,concept\n")
    elif name.endswith("jsonl"):
        (tmp_path / name).write_text("\n")
    else:
        schema = pa.schema([("image", pa.string()), ("concept", pa.string())])
        pq.write_table(pa.Table.from_pylist([], schema), tmp_path / name)
    text = message(tmp_path / name)
    assert name in text
    assert "the forget set is empty" in text


@pytest.mark.parametrize(
    ("where", "kind"),
    [
        ("table", "missing"),
        *[(where, k) for where in ("table", "folder") for k in ("corrupt", "truncated", "bomb")],
    ],
)
def test_bad_picture(tmp_path: Path, where: str, kind: str) -> None:
    image = tmp_path / "photos" / "ada" / "bad.png"
    draw(image)
    if kind == "missing":
        image.unlink()
    elif kind == "corrupt":
        image.write_bytes(b"this is no picture")
    elif kind == "truncated":
        image.write_bytes(image.read_bytes()[:-200])
    else:
        bomb(image)
    draw(tmp_path / "photos" / "ada" / "good.png")
    table = jsonl(tmp_path / "s.jsonl", row("photos/ada/good.png"), row("photos/ada/bad.png"))
    text = message(table if where == "table" else tmp_path / "photos")
    assert "bad.png" in text
    assert "good.png" not in text
    assert "remove it" in text or "drop the row" in text
    if where == "table":
        assert f"{table}, line 2: " in text
    if kind == "bomb":
        assert "decompression bomb" in text


def test_unreadable_kind_of_picture_is_not_skipped(tmp_path: Path) -> None:
    draw(tmp_path / "ada" / "1.png")
    (tmp_path / "ada" / "2.HEIC").write_bytes(b"x")
    text = message(tmp_path)
    assert "2.HEIC" in text
    assert "Convert it to JPEG" in text


def test_path_relative_to_the_wrong_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    draw(tmp_path / "a.png")
    (tmp_path / "tables").mkdir()
    table = jsonl(tmp_path / "tables" / "s.jsonl", row("a.png"))
    monkeypatch.chdir(tmp_path)
    assert f"Paths are relative to the table's folder, {table.parent}" in message(table)


@pytest.mark.parametrize(
    ("column", "wrong"),
    [
        ("image", "images"),
        ("image", "Image"),
        ("image", "photo"),
        ("question", "quesiton"),
        ("answer", "label"),
        ("concept", "person"),
        ("choices", "choice"),
    ],
)
def test_wrong_column(tmp_path: Path, column: str, wrong: str) -> None:
    draw(tmp_path / "a.png")
    good = row(choices=["Ada.", "y"])
    table = jsonl(tmp_path / "s.jsonl", {wrong if k == column else k: v for k, v in good.items()})
    text = message(table)
    assert str(table) in text
    assert f"'{column}'" in text
    assert "Did you mean" in text
    assert f"'{wrong}'" in text


def test_a_table_of_a_benchmark_is_recognised(tmp_path: Path) -> None:
    pq.write_table(
        pa.Table.from_pylist([{"ID": "1", "Generation_Task": "x"}]), tmp_path / "s.parquet"
    )
    assert "MLLMU-Bench: write one row a question" in message(tmp_path / "s.parquet")


def test_broken_json_names_the_line(tmp_path: Path) -> None:
    table = tmp_path / "s.jsonl"
    table.write_text(json.dumps(row(None)) + "\n\n{'image': 1}\n[1]\n")
    text = message(table)
    assert f"{table}, line 3: is not JSON" in text
    assert f"{table}, line 4: is a JSON list" in text
    assert "one whole object a line" in text


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"answer": 4}, "answer is 4, a int; it must be text"),
        ({"question": ["Who?"]}, "question is ['Who?'], a list"),
        ({"concept": True}, "concept is True, a bool"),
        ({"image": 3.5}, "image is 3.5, a float"),
        ({"image": "https://a.b/c.png"}, "is an address. Download it"),
        ({"answer": ""}, "has a question and no answer"),
        ({"question": None}, "has an answer and no question"),
        ({"image": None, "question": None, "answer": None}, "neither image nor question"),
        ({"concept": " "}, "concept is empty"),
        ({"task": "essay"}, "Allowed: generation, cloze, classification"),
        ({"choices": "a|b"}, 'it must be a list of texts, such as ["baker", "nurse"]'),
        ({"choices": [1, 2]}, "it must be a list of texts"),
        (
            {"task": "classification", "choices": ["baker", "nurse"], "answer": "C"},
            "answer 'C' is not among the choices. Give a letter A to B, or the text of one",
        ),
        (
            {"choices": ["baker", "nurse"], "answer": "C"},
            "answer 'C' is not among the choices. Give a letter A to B, or the text of one",
        ),
        (
            {"task": "classification", "choices": ["baker", "nurse"], "answer": "a pilot"},
            "answer 'a pilot' is not among the choices",
        ),
        ({"task": "classification", "answer": "banker"}, "Give a letter A to Z."),
        (
            {"task": "ranking", "choices": ["baker", "nurse"], "answer": "A"},
            "Give the text of one of the choices.",
        ),
    ],
)
def test_bad_value(tmp_path: Path, change: dict[str, Any], words: str) -> None:
    draw(tmp_path / "a.png")
    table = jsonl(tmp_path / "s.jsonl", row(), row(**change))
    text = message(table)
    assert text.startswith(f"{table}, line 2: ")
    assert words in text


def test_row_with_choices_is_a_classification_unless_its_task_says_otherwise(
    tmp_path: Path,
) -> None:
    draw(tmp_path / "a.png")
    rows = [row(choices=["baker", "nurse"], answer="B"), row(choices=[]), row()]
    rows.append(row(task="generation", choices=["baker", "nurse"], answer="This is a baker."))
    samples = read_samples(jsonl(tmp_path / "s.jsonl", *rows))
    assert [s.task for s in samples] == ["classification", *["generation"] * 3]


@pytest.mark.parametrize(
    "answer",
    ["B", "b", "(B)", "B: nurse", "Nurse", " nurse ", "nurse.", "\uff22", "\uff08\uff22\uff09"],
)
def test_answer_of_a_choice_is_a_letter_or_an_option(tmp_path: Path, answer: str) -> None:
    draw(tmp_path / "a.png")
    chosen = row(task="classification", choices=["baker", "nurse"], answer=answer)
    (sample,) = read_samples(jsonl(tmp_path / "s.jsonl", chosen))
    assert sample.answer == answer and true_option(sample) == 1


@pytest.mark.parametrize(
    ("answer", "choices"),
    [
        ("O", ["A", "O"]),
        ("Jose\u0301", ["Ana", "Jos\u00e9"]),
        (
            "\u043f\u0438\u043b\u043e\u0442",
            ["\u043f\u043e\u0432\u0430\u0440", "\u041f\u0438\u043b\u043e\u0442"],
        ),
        ("\u98de\u884c\u5458\u3002", ["\u62a4\u58eb", "\u98de\u884c\u5458\u3002"]),
        ("\uff11\uff19", ["18", "19"]),
    ],
)
def test_true_option_is_that_of_every_answer_that_is_read(
    tmp_path: Path, answer: str, choices: list[str]
) -> None:
    draw(tmp_path / "a.png")
    chosen = row(task="classification", choices=choices, answer=answer)
    (sample,) = read_samples(jsonl(tmp_path / "s.jsonl", chosen))
    assert true_option(sample) == 1


def test_all_bad_rows_at_once_but_ten_at_most(tmp_path: Path) -> None:
    draw(tmp_path / "a.png")
    table = jsonl(tmp_path / "s.jsonl", *[row(answer=i) for i in range(13)])
    lines = message(table).splitlines()
    assert len(lines) == 11
    assert lines[-1] == f"and 3 more in {table}."


def test_an_id_twice(tmp_path: Path) -> None:
    draw(tmp_path / "a.png")
    table = jsonl(tmp_path / "s.jsonl", row(id="p"), row(id="p"))
    assert f"line 2: id 'p' is also that of {table}, line 1" in message(table)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("image;question;answer;concept\n", "separated by ';'"),
        ("image,image\n", "column 'image' comes twice"),
        ("image,question,answer,concept\na.png,Who, me?,Ada,Ada\n", "line 2: has more fields"),
        ("image,question,answer,concept\na.png,Who?,\xe4,Ada\n", "is not UTF-8"),
    ],
)
def test_bad_csv(tmp_path: Path, text: str, words: str) -> None:
    table = tmp_path / "s.csv"
    table.write_bytes(text.encode("latin-1"))
    found = message(table)
    assert str(table) in found
    assert words in found


def test_bad_parquet(tmp_path: Path) -> None:
    (tmp_path / "s.parquet").write_bytes(b"PAR1 but not really")
    text = message(tmp_path / "s.parquet")
    assert "s.parquet: is not a readable parquet file" in text


def sample(path: Path, name: str, concept: str = "Ada") -> Sample:
    """A sample about a picture file."""
    return Sample(name, "Who?", "Ada.", Picture.from_path(path), concept)


def test_shared_picture_is_found_by_content(tmp_path: Path) -> None:
    forget = sample(draw(tmp_path / "forget" / "1.png"), "f")
    # Another name and another lossless format, the same pixels.
    retain = sample(draw(tmp_path / "retain" / "9.bmp"), "r", "Bo")
    other = sample(draw(tmp_path / "retain" / "8.bmp", 1), "o", "Bo")
    with pytest.raises(DataError, match="Nothing can be both forgotten and kept") as caught:
        make_data([forget], [other, retain], [])
    assert "1.png" in str(caught.value)
    assert "9.bmp" in str(caught.value)
    assert "8.bmp" not in str(caught.value)
    check_disjoint([forget], [other, Sample("t", "Who?", "Bo.")])


def test_nothing_to_forget() -> None:
    with pytest.raises(DataError, match="forget set is empty"):
        make_data([])


def test_holdout_keeps_pictures_whole(tmp_path: Path) -> None:
    samples: list[Sample] = []
    for person, count in (("Ada", 8), ("Bo", 2), ("Cy", 1)):
        for index in range(count):
            image = draw(tmp_path / person / f"{index}.png", len(samples))
            samples += [sample(image, f"{person}/{index}/{q}", person) for q in "ab"]
    samples.append(Sample("text", "Who?", "Ada.", None, "Ada"))
    kept, held = split_holdout(samples, 0.25, seed=3)
    assert sorted(s.id for s in kept + held) == sorted(s.id for s in samples)
    assert not {s.picture for s in kept} & {s.picture for s in held}
    assert [len({s.picture for s in held if s.concept == c}) for c in ("Ada", "Bo", "Cy")] == [
        2,
        1,
        0,
    ]
    assert split_holdout(samples, 0.25, seed=3) == (kept, held)
    assert any(split_holdout(samples, 0.25, seed=s)[1] != held for s in range(4, 9))
    assert split_holdout(samples, 0.0) == (samples, [])
    with pytest.raises(ConfigError, match="held-out share is 1"):
        split_holdout(samples, 1)


def test_data_hash_reads_content_not_names(tmp_path: Path) -> None:
    one, two = draw(tmp_path / "1.png"), draw(tmp_path / "2.png")
    other = draw(tmp_path / "3.png", 1)

    def hashed(image: Path, answer: str = "Ada.", stranger: Path = other) -> str:
        kept = Sample("k", "Who?", answer, Picture.from_path(image), "Ada")
        return data_hash(Data([kept], [], [Picture.from_path(stranger)]))

    assert hashed(one) == hashed(two)
    assert hashed(one) != hashed(other)
    assert hashed(one) != hashed(one, "Bo.")
    assert hashed(one) != hashed(one, stranger=one)


def test_pocket_split_and_its_strangers() -> None:
    samples = read_samples("pocket:forget")
    assert {s.modality for s in samples} == {"vqa", "text"}
    pictures = [s for s in samples if s.picture is not None]
    strangers = make_data(pictures).strangers
    assert strangers
    assert not {p.digest for p in strangers} & {s.picture.digest for s in pictures if s.picture}


def test_a_split_of_a_build_of_ones_own(tmp_path: Path) -> None:
    from unsee.benchmarks.pocket import SHIPPED

    (tmp_path / "mine").symlink_to(SHIPPED)
    own = read_samples(f"pocket:general@{tmp_path / 'mine'}")
    shipped = read_samples("pocket:general")
    assert [s.question for s in own] == [s.question for s in shipped]
    assert {s.picture.path.parts[: len(tmp_path.parts)] for s in own if s.picture} == {
        tmp_path.parts
    }
    with pytest.raises(DataError, match="unsee pocket build --out"):
        read_samples(f"pocket:general@{tmp_path / 'none'}")


def test_unknown_pocket_split() -> None:
    with pytest.raises(UnknownNameError, match="'forgot'. Did you mean 'forget'"):
        read_samples("pocket:forgot")
