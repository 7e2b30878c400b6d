"""Random pictures, tables and folders: read, or refused in a short message; never another error.

A short run by default; `UNSEE_FUZZ=2000 pytest tests/fuzz/test_inputs.py` makes a long one.
"""

from __future__ import annotations

import contextlib
import csv
import io
import json
import os
import random
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from support.fuzz import cases, check_refusal, refusal
from unsee.recipes.sources import read_samples
from unsee.types import Picture

CASES = cases(60)

TURNS = [{"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}]
IMAGE_URL = {"type": "image_url", "image_url": {"url": 3}}

VALUES: list[Any] = [
    None, True, 0, -1, 2**80, 1.5, float("nan"), float("inf"), "", "x", "a.png", "\ud800", "\x00",
    "\x1b[2J", "x" * 300_000, "<image>", "data:image/png;base64,AAAA", "data:,", "/", ".", "..",
    "~nobody/x", "a" * 300, "/dev/zero", "file:///x", [], [[]], {}, {"bytes": None}, {"bytes": 5},
    {"bytes": "!!"}, {"path": 5}, {"path": "a.png"}, ["a.png", "a.png"], [None],
    {"a": {"b": ["c"] * 50}}, TURNS, [5], [{"from": {}, "value": []}],
    [{"role": "user", "content": [{"type": "image"}]}],
    [{"role": "user", "content": [IMAGE_URL]}, {"role": "assistant", "content": "a"}],
    [{"role": ["user"], "content": "x"}], [{"role": "user", "content": [5]}],
]  # fmt: skip

COLUMNS = [
    "image", "images", "question", "answer", "concept", "id", "task", "choices", "conversations",
    "messages", "file_name", "", "\ud800", "x\n",
]  # fmt: skip

GOOD = {"image": "a.png", "question": "q", "answer": "a", "concept": "A"}


def check(path: Path) -> None:
    """Reads a set, or gets one message that names it."""
    message = refusal(lambda: read_samples(path))
    if message is not None:
        check_refusal(2, message, path.name, path.parent.name)


def random_rows(rng: random.Random) -> list[dict[str, Any]]:
    """Two rows with columns and values of any kind."""
    rows = []
    for _ in range(2):
        names = rng.sample(COLUMNS, rng.randint(1, 7))
        row = {c: rng.choice(VALUES) if rng.random() < 0.6 else GOOD.get(c) for c in names}
        rows.append({"image": "a.png", "concept": "A", **row} if rng.random() < 0.8 else row)
    return rows


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with one picture."""
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    return tmp_path


@pytest.mark.parametrize("suffix", ["jsonl", "json", "csv", "parquet"])
def test_read_samples_random_tables(folder: Path, suffix: str) -> None:
    rng = random.Random(suffix)
    path = folder / f"t.{suffix}"
    for _ in range(CASES):
        rows = random_rows(rng)
        if suffix == "jsonl":
            path.write_text("\n".join(map(json.dumps, rows)))
        elif suffix == "json":
            path.write_text(json.dumps(rows))
        elif suffix == "csv":
            text = io.StringIO()
            csv.writer(text).writerows(
                [list(rows[0]), *([str(v) for v in r.values()] for r in rows)]
            )
            path.write_bytes(text.getvalue().encode("utf-8", "surrogatepass"))
        else:
            # Not every mixture of values is a column of a parquet file.
            with contextlib.suppress(pa.ArrowException, UnicodeError, TypeError, OverflowError):
                pq.write_table(pa.Table.from_pylist(rows), path)
        if path.exists():
            check(path)


@pytest.mark.parametrize("suffix", ["jsonl", "json", "csv", "parquet"])
def test_read_samples_damaged_tables(folder: Path, suffix: str) -> None:
    rng = random.Random(suffix)
    path = folder / f"t.{suffix}"
    if suffix == "parquet":
        pq.write_table(pa.Table.from_pylist([GOOD] * 3), path)
    elif suffix == "csv":
        path.write_text("image,question,answer,concept\na.png,q,a,A\n")
    else:
        path.write_text(json.dumps([GOOD]) if suffix == "json" else json.dumps(GOOD))
    whole = path.read_bytes()
    for _ in range(CASES):
        damaged = bytearray(whole[: rng.randint(0, len(whole))] if rng.random() < 0.3 else whole)
        for _ in range(rng.randint(1, 5) if damaged else 0):
            damaged[rng.randrange(len(damaged))] = rng.randrange(256)
        path.write_bytes(damaged)
        check(path)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "GIF", "TIFF", "BMP", "PPM", "AVIF"])
def test_picture_open_damaged_files(kind: str) -> None:
    rng = random.Random(kind)
    buffer = io.BytesIO()
    Image.effect_noise((24, 24), 50).convert("RGB").save(buffer, kind)
    whole = buffer.getvalue()
    for _ in range(CASES):
        damaged = bytearray(whole[: rng.randint(1, len(whole))] if rng.random() < 0.3 else whole)
        for _ in range(rng.randint(1, 6)):
            damaged[rng.randrange(min(len(damaged), rng.choice([40, 10**6])))] = rng.randrange(256)
        picture = Picture("damaged", data=bytes(damaged))
        message = refusal(picture.open)
        if message is None:
            assert picture.open().mode == "RGB"
        else:
            check_refusal(2, message, "damaged")


def test_read_samples_random_folders(tmp_path: Path) -> None:
    rng = random.Random(0)
    names = ["ada", "bo", "@eaDir", ".x", "a\x1bb", "\u202eb", "e\u0301", "a.png", "b", "c.heic"]
    for case in range(CASES):
        top = tmp_path / f"case{case}"
        folders = [top]
        top.mkdir()
        for number in range(rng.randint(1, 8)):
            path = (
                rng.choice(folders) / f"{rng.choice(names)}{number if rng.random() < 0.5 else ''}"
            )
            if path.exists() or path.is_symlink():
                continue
            action = rng.randrange(6)
            if action == 0:
                path.mkdir()
                folders.append(path)
            elif action == 1:
                path.symlink_to(rng.choice([*folders, path, tmp_path / "none", Path("/dev/zero")]))
            elif action == 2:
                os.mkfifo(path)
            elif action == 3:
                path.write_bytes(rng.randbytes(rng.randint(0, 64)))
            else:
                Image.new("RGB", (8, 8), (rng.randrange(256),) * 3).save(path, "PNG")
        check(top)
