"""Reads and checks a user's own samples: folders of pictures, and tables."""

from __future__ import annotations

import base64
import binascii
import hashlib
import os
import re
import unicodedata
from collections.abc import Sequence
from pathlib import Path
from typing import Any, get_args

from unsee.data import conversations
from unsee.data.boxes import BOXES, conflicting_boxes, marked_picture, read_boxes
from unsee.data.folders import METADATA, PICTURES, FolderContents, list_folder, summary
from unsee.data.overlaps import copies
from unsee.data.tables import (
    MAX_TEXT,
    SUFFIXES,
    TableRow,
    is_dataset_folder,
    parse_json,
    raise_problems,
    read_rows,
)
from unsee.errors import DataError, counted, printable, quoted, shorten
from unsee.pixels import picture_format
from unsee.pixels.regions import Box, parse_box
from unsee.types import Picture, Sample, Task

__all__ = ["PICTURES", "SUFFIXES", "TASKS", "read_folder", "read_table"]

TASKS: tuple[str, ...] = get_args(Task)

# The columns of a table that are read.
COLUMNS = frozenset(
    [
        *("image", "images", "question", "answer", "concept", "id", "task", "choices", "file_name"),
        "box",
        *conversations.COLUMNS,
    ]
)


def read_folder(folder: Path, role: str, notes: list[str] | None = None) -> list[Sample]:
    """Returns a sample without a question for every picture in a folder and its subfolders.

    A folder with a "metadata.jsonl" (the ImageFolder of `datasets`) and one that `save_to_disk`
    wrote are read as tables.

    Args:
        folder: The folder. Each subfolder is one concept; pictures directly in it are one concept.
        role: Role of the set in error messages, such as "forget".
        notes: Sentences on what was read and what was not; added to.

    Raises:
        DataError: If a picture or a folder cannot be read, or there is no picture.
    """
    notes = [] if notes is None else notes
    if is_dataset_folder(folder):
        return read_table(folder, role, notes)
    contents = list_folder(folder)
    metadata = next((folder / name for name in METADATA if folder / name in contents.tables), None)
    if metadata is not None:
        raise_problems(contents.problems, folder)
        return _read_image_folder(folder, metadata, role, contents, notes)
    boxes = read_boxes(folder, contents.pictures)
    contents.unread = [name for name in contents.unread if name != BOXES]
    samples: list[Sample] = []
    problems = list(contents.problems)
    for path in contents.pictures:
        picture = Picture.from_path(path)
        if path in boxes:
            picture, problem = _marked(picture, boxes[path])
        else:
            problem = _problem(picture)
        if problem is not None:
            problems.append(problem)
            continue
        name = path.relative_to(folder)
        samples.append(Sample(name.as_posix(), "", "", picture, _concept(folder, name)))
    raise_problems(problems, folder)
    if not samples:
        tables = contents.tables
        hint = f" To read a table, name the file: {tables[0]}." if tables else ""
        raise DataError(
            f"the {role} set is empty: no picture in {folder} or its subfolders "
            f"({', '.join(PICTURES)}).{hint}"
        )
    twice = len(copies(samples))
    people = len({s.concept for s in samples})
    notes.append(summary(contents, role, people, len(samples) - twice, twice))
    if boxes:
        notes.append(
            f"{role}: of {counted(len(boxes), 'photograph')} only the face marked in {BOXES} is "
            "meant."
        )
    _note_frames(samples, role, notes)
    return samples


def _concept(folder: Path, name: Path) -> str:
    """Returns the name of a picture's first subfolder, else of the folder; spelled in NFC."""
    concept = name.parts[0] if len(name.parts) > 1 else folder.resolve().name
    return unicodedata.normalize("NFC", concept)


def _read_image_folder(
    folder: Path, metadata: Path, role: str, contents: FolderContents, notes: list[str]
) -> list[Sample]:
    """The rows of the metadata table of a folder; pictures without a row are named."""
    samples = read_table(metadata, role, notes, folder)
    named = {os.path.normpath(p.path) for s in samples for p in s.pictures if p.path is not None}
    contents.unread = [
        name for name in contents.unread if name != metadata.relative_to(folder).as_posix()
    ]
    contents.unread += [
        f"{path.relative_to(folder).as_posix()} (no row in {metadata.name})"
        for path in contents.pictures
        if os.path.normpath(path) not in named
    ]
    contents.empty = []
    notes.append(summary(contents, role, len({s.concept for s in samples}), len(named)))
    return samples


def _note_frames(samples: Sequence[Sample], role: str, notes: list[str]) -> None:
    """Says which pictures have several frames."""
    pictures = {picture.source: picture for s in samples for picture in s.pictures}
    several = [source for source, picture in pictures.items() if picture.has_several_frames]
    if several:
        notes.append(
            f"{role}: {counted(len(several), 'picture has', 'pictures have')} several frames, of "
            f"which the first is read: {', '.join(several[:3])}"
            f"{' ...' if len(several) > 3 else ''}."
        )


def read_table(
    path: Path, role: str, notes: list[str] | None = None, folder: Path | None = None
) -> list[Sample]:
    """Returns the samples in the rows of a table.

    Args:
        path: A JSON, JSONL, CSV, TSV or parquet file, or a folder that `save_to_disk` wrote.
        role: Role of the set; "forget" requires a concept in every row.
        notes: Sentences on what was not read; added to.
        folder: For a metadata table in a folder of pictures: the folder. A row without a concept
            has the one of the picture's subfolder.

    Raises:
        DataError: If the table or a row cannot be used; up to ten rows are named.
    """
    samples: list[Sample] = []
    problems: list[str] = []
    pictures: dict[object, Picture] = {}
    places: dict[str, str] = {}
    unread: dict[str, None] = {}
    systems = splits = 0
    for number, (place, whole) in enumerate(read_rows(path, role, folder is not None), start=1):
        try:
            rows, without_system = conversations.questions(_with_file_name(whole, folder))
            parts = [
                _sample(
                    path,
                    str(number) if len(rows) == 1 else f"{number}/{part}",
                    (place, row),
                    role,
                    pictures,
                )
                for part, row in enumerate(rows, start=1)
            ]
        except DataError as error:
            problems.append(f"{place}: {error}")
            continue
        unread |= dict.fromkeys(
            name
            for name, value in whole.items()
            if name not in COLUMNS and isinstance(value, str | list) and value
        )
        systems += without_system
        splits += len(rows) > 1
        for sample in parts:
            if sample.id in places:
                problems.append(f"{place}: id '{sample.id}' is also that of {places[sample.id]}.")
            places[sample.id] = place
        samples += parts
    raise_problems(problems or conflicting_boxes(samples), path)
    if notes is not None:
        if unread:
            names = ", ".join(shorten(printable(name), 40) for name in list(unread)[:10])
            notes.append(
                f"{role}: of {path.name}, these columns are not read: {names}"
                f"{' ...' if len(unread) > 10 else ''}. Text is read from question and answer."
            )
        if systems:
            notes.append(f"{role}: the system messages of {systems} conversations are not read.")
        if splits:
            notes.append(
                f"{role}: {splits} conversations have several questions; each is a sample of its "
                "own, without the turns before it."
            )
        _note_frames(samples, role, notes)
    return samples


def _with_file_name(row: dict[str, Any], folder: Path | None) -> dict[str, Any]:
    """The row of a metadata table with its picture, and whom it shows if that is known."""
    name = row.get("file_name")
    if folder is None or not isinstance(name, str) or row.get("image"):
        return row
    return {**row, "image": name, "concept": row.get("concept") or _concept(folder, Path(name))}


def _sample(
    path: Path, number: str, located: TableRow, role: str, pictures: dict[object, Picture]
) -> Sample:
    place, row = located
    question, answer = _text(row, "question"), _text(row, "answer")
    concept, task = _text(row, "concept"), _text(row, "task")
    shown = _pictures(path, place, row, pictures)
    if row.get("box") not in (None, "", []):
        shown = _marked_pictures(shown, parse_box(row["box"]), pictures)
    if bool(question) != bool(answer):
        raise DataError(
            "has a question and no answer. Give both, or neither."
            if question
            else "has an answer and no question. Give both, or neither."
        )
    if not shown and not question:
        raise DataError("has neither image nor question. Give one, or drop the row.")
    if role == "forget" and not concept:
        raise DataError("concept is empty. Say who or what is to be forgotten.")
    choices = _choices(row.get("choices"))
    task = task or ("classification" if choices else "generation")
    if task not in TASKS:
        raise DataError(f"task '{shorten(task)}' is unknown. Allowed: {', '.join(TASKS)}.")
    _check_choice(task, answer, choices)
    return Sample(
        id=_text(row, "id") or number,
        question=question,
        answer=answer,
        picture=shown[0] if shown else None,
        concept=unicodedata.normalize("NFC", concept) or None,
        choices=choices,
        task=task,  # type: ignore[arg-type]
        further=tuple(shown[1:]),
    )


def _check_choice(task: str, answer: str, choices: tuple[str, ...]) -> None:
    """Refuses a choice whose answer is none of its options, which every model would get wrong."""
    if not answer or task not in ("classification", "ranking"):
        return
    if _comparable(answer) in map(_comparable, choices):
        return
    # "B", "(B)" or "B: nurse", and not the article of "a pilot".
    plain = unicodedata.normalize("NFKC", answer).strip()
    letter = re.fullmatch(r"[\W_]*([A-Za-z])(?:(?!\s)[\W_].*)?", plain, re.DOTALL)
    last = chr(ord("A") + min(len(choices) or 26, 26) - 1)
    if task == "classification" and letter and letter[1].upper() <= last:
        return
    allowed = "the text of one of the choices"
    if task == "classification":
        allowed = f"a letter A to {last}" + (f", or {allowed}" if choices else "")
    raise DataError(f"answer {quoted(answer)} is not among the choices. Give {allowed}.")


def _comparable(text: str) -> str:
    """Returns a text as metrics compare it: without case, width, spaces and final punctuation."""
    return " ".join(unicodedata.normalize("NFKC", text).split()).casefold().rstrip(".!?,;: ")


def _text(row: dict[str, Any], column: str) -> str:
    value = row.get(column)
    if column == "id" and isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    if value is None:
        return ""
    if not isinstance(value, str):
        raise DataError(
            f"{column} is {quoted(value)}, a {type(value).__name__}; it must be text. Put it in "
            "quotes."
        )
    _check_text(column, value)
    return value.strip() if column in {"concept", "task", "id"} else value


def _check_text(column: str, value: str) -> None:
    """Refuses a text that a model cannot be given.

    Raises:
        DataError: If it is too long, holds half a surrogate pair, or a placeholder of a picture.
    """
    if len(value) > MAX_TEXT:
        raise DataError(f"{column} has {len(value):,} characters; at most {MAX_TEXT:,} are read.")
    half = re.search(r"[\ud800-\udfff]", value)
    if half is not None:
        raise DataError(
            f"{column} holds \\u{ord(half[0]):04x}, half a surrogate pair, which is no character. "
            "Write the whole character."
        )
    if column in {"question", "answer"} and conversations.PLACEHOLDER in value:
        raise DataError(
            f"{column} holds {conversations.PLACEHOLDER}, which stands for a picture. Remove it: "
            "pictures are given in the column image and shown before the question."
        )


def _choices(value: Any) -> tuple[str, ...]:
    message = f'choices is {quoted(value)}; it must be a list of texts, such as ["baker", "nurse"].'
    if isinstance(value, str):
        try:
            value = parse_json(value)
        except ValueError as error:
            raise DataError(message) from error
    if value is None:
        return ()
    if not isinstance(value, list) or not all(isinstance(choice, str) for choice in value):
        raise DataError(message)
    for choice in value:
        _check_text("choices", choice)
    return tuple(value)


def _pictures(
    table: Path, place: str, row: dict[str, Any], pictures: dict[object, Picture]
) -> list[Picture]:
    """Returns the pictures of a row; rows with the same picture share it: it is decoded once."""
    image, images = row.get("image"), row.get("images")
    if images and image:
        raise DataError("has both image and images. Give one of them.")
    column, value = ("images", images) if images else ("image", image)
    reference = f"{table}#{place.rpartition(' ')[2]}"
    if not isinstance(value, list):
        picture = _picture(table, reference, value, pictures)
        return [] if picture is None else [picture]
    several = [
        _picture(table, f"{reference}.{column}[{i}]", item, pictures)
        for i, item in enumerate(value)
    ]
    if None in several:
        raise DataError(f"{column}[{several.index(None)}] is empty. Remove it from the list.")
    return [picture for picture in several if picture is not None]


def _picture(
    table: Path, reference: str, value: Any, pictures: dict[object, Picture]
) -> Picture | None:
    """Returns a picture of a row: a path, encoded bytes, base64 or a data URI."""
    data, value = _bytes_and_path(value)
    if data is None and (value is None or value == ""):
        return None
    if data is not None:
        key: object = hashlib.sha256(data).digest()
        picture = Picture(source=reference, data=data)
    elif isinstance(value, str):
        _check_path(value)
        file = Path(os.path.expanduser(value))
        key = file if file.is_absolute() else table.parent / file
        picture = Picture.from_path(str(key))
    else:
        raise DataError(
            f"image is {quoted(value)}, a {type(value).__name__}; it must be a path, encoded "
            "bytes, or empty for text only."
        )
    if key not in pictures:
        problem = _problem(picture)
        if problem is not None:
            if isinstance(value, str) and not Path(value).is_absolute() and os.path.exists(value):
                problem += f" Paths are relative to the table's folder, {table.parent}."
            raise DataError(problem)
        pictures[key] = picture
    return pictures[key]


def _marked_pictures(
    shown: Sequence[Picture], box: Box, pictures: dict[object, Picture]
) -> list[Picture]:
    """Returns the picture of a row with the face in its box; rows with the same share it."""
    if len(shown) != 1:
        raise DataError(
            f"has the box {box} and {len(shown)} pictures; a box marks a face in one. Give the "
            "picture in the column image, or leave box empty."
        )
    marked = marked_picture(shown[0], box)
    if marked.source not in pictures:
        marked, problem = _marked(shown[0], box)
        if problem is not None:
            raise DataError(problem)
        pictures[marked.source] = marked
    return [pictures[marked.source]]


def _marked(picture: Picture, box: Box) -> tuple[Picture, str | None]:
    """A picture of which only the face in a box is shown, and what is wrong with it."""
    try:
        marked = marked_picture(picture, box)
    except DataError as error:
        return picture, str(error)
    return marked, _problem(marked)


def _bytes_and_path(value: Any) -> tuple[bytes | None, Any]:
    """Returns the encoded bytes of a picture, if the value holds them, and its path."""
    if isinstance(value, bytes):
        return value, None
    if isinstance(value, str):
        return _embedded(value), value
    if not isinstance(value, dict):
        return None, value
    data = value.get("bytes")
    encoded = _base64(data) if isinstance(data, str) else data
    if encoded is not None and not isinstance(encoded, bytes):
        raise DataError(f"image has the bytes {quoted(data)}; they must be encoded bytes.")
    return encoded, value.get("path")


def _check_path(text: str) -> None:
    """Refuses a text that is no path.

    Raises:
        DataError: If it is an address, or cannot be a path.
    """
    if "://" in text:
        raise DataError(
            f"image '{shorten(text, 200)}' is an address. Download it and give the file."
        )
    if len(text) > 4096 or "\0" in text or not _is_encodable(text):
        raise DataError(
            f"image {quoted(text)} is neither a path nor a picture in base64. Give one of them."
        )


def _is_encodable(text: str) -> bool:
    return re.search(r"[\ud800-\udfff]", text) is None


def _embedded(text: str) -> bytes | None:
    """Returns the bytes of a data URI, or of a picture in base64; None if it is neither.

    Raises:
        DataError: If a data URI holds no base64.
    """
    if text[:5].lower() == "data:":
        head, _, body = text.partition(",")
        data = _base64(body) if head.endswith(";base64") else None
        if data is None:
            raise DataError(
                f"image {quoted(text)} is a data URI without base64. Write "
                "data:image/png;base64,..."
            )
        return data
    if len(text) < 64 or "." in text[:64]:
        return None
    head_bytes = _base64(text[:64])
    if head_bytes is None or picture_format(head_bytes[:32]) is None:
        return None
    return _base64(text)


def _base64(text: str) -> bytes | None:
    """Returns what a text in base64 encodes; None if it is none. White space is ignored."""
    try:
        return base64.b64decode("".join(text.split()), validate=True)
    except (binascii.Error, ValueError):
        return None


def _problem(picture: Picture) -> str | None:
    """Returns what is wrong with a picture; None if it can be decoded. Caches its digest."""
    try:
        _ = picture.digest
    except DataError as error:
        return str(error)
    return None
