"""What a user points at, read and checked: samples to forget and to keep, pictures of strangers."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, get_args

import numpy as np

from unsee.errors import ConfigError, DataError
from unsee.spec import parse_spec
from unsee.tables import SUFFIXES, Row, read_rows, report
from unsee.types import Data, Picture, Sample, Task

PICTURES = (
    ".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".pgm", ".ppm", ".tif", ".tiff",
)  # fmt: skip
# Pictures that are not read: leaving one out in silence would leave a person half forgotten.
UNREAD = (".heic", ".heif", ".avif", ".jxl", ".jp2", ".svg", ".psd", ".dng", ".cr2", ".nef", ".arw")
TASKS: tuple[str, ...] = get_args(Task)


def read_samples(path: str | Path, role: str = "forget") -> list[Sample]:
    """The samples in a folder of pictures, a table, or a split of a benchmark.

    Every picture is decoded once here, so that a run does not fail on one later.

    Args:
        path: A folder of pictures (a subfolder a person, or flat: its name is the concept); a
            .jsonl, .csv, .tsv or .parquet file with columns image, question, answer, concept; or
            "NAME:SPLIT" for a split of a benchmark; see `parse_spec`.
        role: What the set is for: "forget", "retain", ...; used in messages, and a forget set must
            say of every row whom it is about.

    Raises:
        DataError: If anything in it cannot be used; up to ten bad rows or files are named.
    """
    text = str(path)
    spec = parse_spec(text)
    if spec is not None:
        if not spec.split:
            raise DataError(
                f"the {role} set '{path}' names no split. Type {spec.name}:SPLIT; "
                f"the splits are {', '.join(spec.open().splits)}."
            )
        return list(spec.open().load(spec.split))
    path = Path(path)
    if path.is_dir():
        samples = _read_folder(path, role)
    elif not path.exists():
        raise DataError(
            f"the {role} set '{path}' does not exist. Give a folder of pictures, a "
            f"{', '.join(SUFFIXES)} file, or NAME:SPLIT of a benchmark."
        )
    elif path.suffix.lower() in SUFFIXES:
        samples = _read_table(path, role)
    else:
        one = " One picture alone goes into a folder." if path.suffix.lower() in PICTURES else ""
        raise DataError(
            f"the {role} set '{path}' is of a kind that is not read.{one} Give a folder of "
            f"pictures, a {', '.join(SUFFIXES)} file, or NAME:SPLIT of a benchmark."
        )
    return samples


def make_data(
    forget: Sequence[Sample],
    retain: Sequence[Sample] | None = None,
    strangers: Sequence[Picture] | None = None,
) -> Data:
    """Puts together what a method may see.

    Args:
        forget: Samples to forget.
        retain: Samples to keep.
        strangers: Pictures of people the model was never told about; None takes those of the
            pocket benchmark, which come with the package.

    Raises:
        DataError: If there is nothing to forget, or forget and retain share a picture.
    """
    if not forget:
        raise DataError("the forget set is empty. Give it at least one sample.")
    retain = tuple(retain or ())
    check_disjoint(forget, retain)
    known = pocket_strangers() if strangers is None else strangers
    return Data(tuple(forget), retain, tuple(known))


def pocket_strangers() -> list[Picture]:
    """Pictures of people without a name, from the pocket benchmark in the package."""
    from unsee.benchmarks import BENCHMARKS

    benchmark: Any = BENCHMARKS.get("pocket")()
    return list(benchmark.data().strangers)


def check_disjoint(forget: Sequence[Sample], retain: Sequence[Sample]) -> None:
    """Refuses sets that share a picture, compared by decoded content.

    Raises:
        DataError: If they do, with both names of up to ten shared pictures.
    """
    known = {s.picture.digest: s.picture for s in forget if s.picture is not None}
    shared = {
        s.picture.source: known[s.picture.digest].source
        for s in retain
        if s.picture is not None and s.picture.digest in known
    }
    problems = [
        f"the retain picture {kept} is the forget picture {lost}. Nothing can be both forgotten "
        "and kept: remove it from one of the sets."
        for kept, lost in shared.items()
    ]
    report(problems, "the retain set")


def split_holdout(
    samples: Sequence[Sample], share: float = 0.25, seed: int = 0
) -> tuple[list[Sample], list[Sample]]:
    """Keeps some pictures of each concept aside: (samples to use, samples held out).

    A picture goes with all its samples and all its copies. Every concept of two or more pictures
    gives at least one and keeps at least one; a concept of one picture gives none. Text-only
    samples are never held out.

    Args:
        samples: Samples of any number of concepts.
        share: Share of each concept's pictures to hold out, 0..1.
        seed: Decides which.

    Raises:
        ConfigError: If `share` is outside 0..1.
    """
    if not 0 <= share < 1:
        raise ConfigError(f"the held-out share is {share}; it must be at least 0 and below 1.")
    by_concept: dict[str | None, dict[str, None]] = {}
    for sample in samples:
        if sample.picture is not None:
            by_concept.setdefault(sample.concept, {})[sample.picture.digest] = None
    held: set[tuple[str | None, str]] = set()
    for index, (concept, digests) in enumerate(by_concept.items()):
        names = list(digests)
        count = min(max(1, round(share * len(names))), len(names) - 1) if share > 0 else 0
        order = np.random.default_rng([seed, index]).permutation(len(names))
        held.update((concept, names[i]) for i in order[:count])
    kept: list[Sample] = []
    aside: list[Sample] = []
    for sample in samples:
        out = sample.picture is not None and (sample.concept, sample.picture.digest) in held
        (aside if out else kept).append(sample)
    return kept, aside


def data_hash(data: Data) -> str:
    """SHA-256 over everything a method sees of the data, in order; paths do not count."""
    digest = hashlib.sha256()
    sets = (("forget", data.forget), ("retain", data.retain), ("by name", data.by_name))
    for name, samples in sets:
        for sample in samples:
            digest.update(json.dumps([name, *_content(sample)]).encode())
    for picture in data.strangers:
        digest.update(json.dumps(["stranger", picture.digest]).encode())
    return digest.hexdigest()


def _content(sample: Sample) -> list[Any]:
    picture = sample.picture.digest if sample.picture is not None else None
    return [
        sample.question, sample.answer, picture, sample.concept, list(sample.choices), sample.task,
    ]  # fmt: skip


def _read_folder(folder: Path, role: str) -> list[Sample]:
    samples: list[Sample] = []
    problems: list[str] = []
    tables: list[str] = []
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder)
        # ".thumbnails/", "._1.jpg" and "__MACOSX/" are made by desktops, not by the user.
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
    report(problems, folder)
    if not samples:
        hint = f" To read a table, name the file: {tables[0]}." if tables else ""
        raise DataError(
            f"the {role} set is empty: no picture in {folder} or its subfolders "
            f"({', '.join(PICTURES)}).{hint}"
        )
    return samples


def _read_table(path: Path, role: str) -> list[Sample]:
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
    report(problems, path)
    return samples


def _sample(
    path: Path, number: int, placed: Row, role: str, pictures: dict[object, Picture]
) -> Sample:
    place, row = placed
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
    wrong = f'choices is {value!r}; it must be a list of texts, such as ["baker", "nurse"].'
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except ValueError as error:
            raise DataError(wrong) from error
    if value is None:
        return ()
    if not isinstance(value, list) or not all(isinstance(choice, str) for choice in value):
        raise DataError(wrong)
    return tuple(value)


def _picture(
    table: Path, place: str, value: Any, pictures: dict[object, Picture]
) -> Picture | None:
    """The picture of a row; rows that show the same one share it, so it is decoded once."""
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
    """What is wrong with a picture; None if it decodes. Its digest is kept on the way."""
    try:
        _ = picture.digest
    except DataError as error:
        return str(error)
    return None
