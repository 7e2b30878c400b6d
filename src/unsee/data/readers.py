"""Reads and checks a user's own samples: folders of pictures, and tables."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any, get_args

from unsee.data.tables import SUFFIXES, TableRow, raise_problems, read_rows
from unsee.errors import DataError
from unsee.types import Picture, Sample, Task

PICTURES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".pgm", ".ppm", ".tif", ".tiff")


# Picture formats that cannot be read. Skipping them silently would leave a person half forgotten.
UNREAD = (".heic", ".heif", ".avif", ".jxl", ".jp2", ".svg", ".psd", ".dng", ".cr2", ".nef", ".arw")


TASKS: tuple[str, ...] = get_args(Task)


def read_folder(folder: Path, role: str) -> list[Sample]:
    """Returns a sample without a question for every picture in a folder and its subfolders.

    Args:
        folder: The folder. Each subfolder is one concept; pictures directly in it are one concept.
        role: Role of the set in error messages, such as "forget".

    Raises:
        DataError: If a picture cannot be read, or there is none.
    """
    samples: list[Sample] = []
    problems: list[str] = []
    tables: list[str] = []
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder)
        # ".thumbnails/", "._1.jpg" and "__MACOSX/" are created by desktops, not by the user.
        if any(part.startswith((".", "__MACOSX")) for part in name.parts) or not path.is_file():
            continue
        suffix = path.suffix.lower()
        if suffix in UNREAD:
            problems.append(f"picture {path}: {suffix} is not read. Convert it to JPEG or PNG.")
        elif suffix in SUFFIXES:
            tables.append(str(path))
        elif suffix in PICTURES:
            picture = Picture.from_path(path)
            problem = _problem(picture)
            if problem is not None:
                problems.append(problem)
                continue
            concept = name.parts[0] if len(name.parts) > 1 else folder.resolve().name
            samples.append(Sample(name.as_posix(), "", "", picture, concept))
    raise_problems(problems, folder)
    if not samples:
        hint = f" To read a table, name the file: {tables[0]}." if tables else ""
        raise DataError(
            f"the {role} set is empty: no picture in {folder} or its subfolders "
            f"({', '.join(PICTURES)}).{hint}"
        )
    return samples


def read_table(path: Path, role: str) -> list[Sample]:
    """Returns the samples in the rows of a table.

    Args:
        path: A JSONL, CSV, TSV or parquet file.
        role: Role of the set; "forget" requires a concept in every row.

    Raises:
        DataError: If the table or a row cannot be used; up to ten rows are named.
    """
    samples: list[Sample] = []
    problems: list[str] = []
    pictures: dict[object, Picture] = {}
    places: dict[str, str] = {}
    for number, (place, row) in enumerate(read_rows(path, role), start=1):
        try:
            sample = _sample(path, number, (place, row), role, pictures)
        except DataError as error:
            problems.append(f"{place}: {error}")
            continue
        if sample.id in places:
            problems.append(f"{place}: id '{sample.id}' is also that of {places[sample.id]}.")
        places[sample.id] = place
        samples.append(sample)
    raise_problems(problems, path)
    return samples


def _sample(
    path: Path, number: int, located: TableRow, role: str, pictures: dict[object, Picture]
) -> Sample:
    place, row = located
    question, answer = _text(row, "question"), _text(row, "answer")
    concept, task = _text(row, "concept"), _text(row, "task") or "generation"
    picture = _picture(path, place, row.get("image"), pictures)
    if bool(question) != bool(answer):
        raise DataError(
            "has a question and no answer. Give both, or neither."
            if question
            else "has an answer and no question. Give both, or neither."
        )
    if picture is None and not question:
        raise DataError("has neither image nor question. Give one, or drop the row.")
    if role == "forget" and not concept:
        raise DataError("concept is empty. Say who or what is to be forgotten.")
    if task not in TASKS:
        raise DataError(f"task '{task}' is unknown. Allowed: {', '.join(TASKS)}.")
    return Sample(
        id=_text(row, "id") or str(number),
        question=question,
        answer=answer,
        picture=picture,
        concept=concept or None,
        choices=_choices(row.get("choices")),
        task=task,  # type: ignore[arg-type]
    )


def _text(row: dict[str, Any], column: str) -> str:
    value = row.get(column)
    if column == "id" and isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    if value is None:
        return ""
    if not isinstance(value, str):
        raise DataError(
            f"{column} is {value!r}, a {type(value).__name__}; it must be text. Put it in quotes."
        )
    return value.strip() if column in {"concept", "task", "id"} else value


def _choices(value: Any) -> tuple[str, ...]:
    message = f'choices is {value!r}; it must be a list of texts, such as ["baker", "nurse"].'
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except ValueError as error:
            raise DataError(message) from error
    if value is None:
        return ()
    if not isinstance(value, list) or not all(isinstance(choice, str) for choice in value):
        raise DataError(message)
    return tuple(value)


def _picture(
    table: Path, place: str, value: Any, pictures: dict[object, Picture]
) -> Picture | None:
    """Returns the picture of a row; rows with the same picture share it, so it is decoded once."""
    data: bytes | None = None
    if isinstance(value, dict):
        data, value = value.get("bytes"), value.get("path")
    elif isinstance(value, bytes):
        data, value = value, None
    if data is None and (value is None or value == ""):
        return None
    if data is not None:
        key: object = hashlib.sha256(data).digest()
        picture = Picture(source=f"{table}#{place.rpartition(' ')[2]}", data=data)
    elif isinstance(value, str):
        if "://" in value:
            raise DataError(f"image '{value}' is an address. Download it and give the file.")
        file = Path(os.path.expanduser(value))
        key = file if file.is_absolute() else table.parent / file
        picture = Picture.from_path(str(key))
    else:
        raise DataError(
            f"image is {value!r}, a {type(value).__name__}; it must be a path, encoded bytes, or "
            "empty for text only."
        )
    if key not in pictures:
        problem = _problem(picture)
        if problem is not None:
            if isinstance(value, str) and not Path(value).is_absolute() and os.path.exists(value):
                problem += f" Paths are relative to the table's folder, {table.parent}."
            raise DataError(problem)
        pictures[key] = picture
    return pictures[key]


def _problem(picture: Picture) -> str | None:
    """Returns what is wrong with a picture; None if it can be decoded. Caches its digest."""
    try:
        _ = picture.digest
    except DataError as error:
        return str(error)
    return None
