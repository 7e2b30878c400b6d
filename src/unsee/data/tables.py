"""Reads tables of samples: JSONL, CSV, TSV and parquet files."""

from __future__ import annotations

import csv
import difflib
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from unsee.errors import DataError

# A row: its location for error messages, such as "data.csv, line 3", and its values by column.
TableRow = tuple[str, dict[str, Any]]


SUFFIXES = (".jsonl", ".ndjson", ".csv", ".tsv", ".parquet")


COLUMNS = ("image", "question", "answer", "concept", "id", "task", "choices")


# Names of the columns in other data sets.
ALIASES = {
    "image": ("img", "picture", "photo", "image_path", "file", "filename", "path"),
    "question": ("prompt", "query", "input", "q"),
    "answer": ("label", "target", "response", "output", "caption", "a"),
    "concept": ("name", "person", "subject", "identity", "class", "entity"),
}


def read_rows(path: Path, role: str) -> list[TableRow]:
    """Returns all rows of a table after checking its columns.

    Args:
        path: A file whose suffix is one of `SUFFIXES`.
        role: Role of the set in error messages; "forget" requires a concept column.

    Raises:
        DataError: If the file is broken, has no rows, or lacks a column.
    """
    suffix = path.suffix.lower()
    try:
        if suffix == ".parquet":
            columns, rows = _read_parquet(path)
        elif suffix in {".csv", ".tsv"}:
            columns, rows = _read_csv(path, "\t" if suffix == ".tsv" else ",")
        else:
            columns, rows = _read_jsonl(path)
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: is not UTF-8 ({error}). Save it as UTF-8.") from error
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error}).") from error
    if not rows:
        raise DataError(f"{path}: the {role} set is empty. Give it at least one row.")
    _check_columns(path, columns, role)
    return rows


def raise_problems(problems: Sequence[str], path: object) -> None:
    """Raises one error that lists the first ten problems, if there are any.

    Raises:
        DataError: If there is any problem.
    """
    if not problems:
        return
    shown = list(problems[:10])
    if len(problems) > 10:
        shown.append(f"and {len(problems) - 10} more in {path}.")
    raise DataError("\n".join(shown))


def picture_bytes(reference: str) -> bytes:
    """Returns the encoded bytes of a picture inside a parquet file.

    Args:
        reference: `Picture.source`: FILE#ROW.FIELD, counting rows from 1, such as
            "train.parquet#3.images[0]". Without FIELD, the column is "image".

    Raises:
        DataError: If the file or the picture in it cannot be read.
    """
    import pyarrow as pa

    match = re.fullmatch(r"(.+\.parquet)#(\d+)(?:\.(\w+))?(?:\[(\d+)\])?", reference)
    if match is None:
        raise DataError(f"picture {reference}: is not in a parquet file.")
    path, row, field = Path(match[1]), int(match[2]) - 1, match[3] or "image"
    try:
        cell = _cell(path, row, field)
    except (pa.ArrowException, OSError, KeyError) as error:
        raise DataError(f"picture {reference}: {path} cannot be read ({error}).") from error
    if match[4] is not None and isinstance(cell, list):
        cell = cell[int(match[4])] if int(match[4]) < len(cell) else None
    data = cell.get("bytes") if isinstance(cell, dict) else cell
    if not isinstance(data, bytes):
        raise DataError(f"picture {reference}: is no longer in {path}.")
    return data


def _cell(path: Path, row: int, field: str) -> Any:
    """Returns a value of a parquet file, read in small batches; None past the last row."""
    import pyarrow.parquet as pq

    with pq.ParquetFile(path) as file:
        for group in range(file.num_row_groups):
            size = file.metadata.row_group(group).num_rows
            if row < size:
                batches = file.iter_batches(batch_size=16, row_groups=[group], columns=[field])
                for batch in batches:
                    if row < len(batch):
                        return batch.column(field)[row].as_py()
                    row -= len(batch)
            row -= size
    return None


def _read_jsonl(path: Path) -> tuple[list[str], list[TableRow]]:
    columns: dict[str, None] = {}
    rows: list[TableRow] = []
    problems: list[str] = []
    with path.open(encoding="utf-8-sig") as file:
        for number, line in enumerate(file, start=1):
            if not line.strip():
                continue
            place = f"{path}, line {number}"
            try:
                row = json.loads(line)
            except ValueError as error:
                problems.append(
                    f"{place}: is not JSON ({error}). Write one whole object a line, such as "
                    '{"image": "1.jpg", "question": "...", "answer": "...", "concept": "..."}.'
                )
                continue
            if not isinstance(row, dict):
                problems.append(
                    f"{place}: is a JSON {type(row).__name__}, not an object. Write one object a "
                    "line, with the columns as its keys."
                )
                continue
            columns.update(dict.fromkeys(row))
            rows.append((place, row))
    raise_problems(problems, path)
    return list(columns), rows


def _read_csv(path: Path, delimiter: str) -> tuple[list[str], list[TableRow]]:
    rows: list[TableRow] = []
    problems: list[str] = []
    with path.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.DictReader(file, delimiter=delimiter)
        try:
            columns = list(reader.fieldnames or [])
            twice = next((name for name in columns if columns.count(name) > 1), None)
            if twice is not None:
                raise DataError(f"{path}, line 1: column '{twice}' comes twice. Rename one.")
            if len(columns) == 1 and ";" in columns[0]:
                raise DataError(
                    f"{path}, line 1: columns are separated by ';'. Save it with commas, or as "
                    ".tsv with tabs."
                )
            for row in reader:
                place = f"{path}, line {reader.line_num}"
                if None in row:
                    problems.append(
                        f"{place}: has more fields than the header's {len(columns)}. Put values "
                        "that contain the separator in double quotes."
                    )
                    continue
                rows.append((place, {key: value or None for key, value in row.items()}))
        except csv.Error as error:
            raise DataError(
                f"{path}, line {reader.line_num}: is not CSV ({error}). Save it again as CSV."
            ) from error
    raise_problems(problems, path)
    return columns, rows


def _read_parquet(path: Path) -> tuple[list[str], list[TableRow]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path) as file:
            columns = list(file.schema_arrow.names)
            wanted = [name for name in columns if name in COLUMNS]
            rows: list[TableRow] = []
            for batch in file.iter_batches(columns=wanted):
                for row in batch.to_pylist():
                    rows.append((f"{path}, row {len(rows) + 1}", row))
    except pa.ArrowException as error:
        raise DataError(
            f"{path}: is not a readable parquet file ({str(error).splitlines()[0]}). "
            "Write or download it again."
        ) from error
    return columns, rows


def _check_columns(path: Path, columns: Sequence[str], role: str) -> None:
    required = ["image"]
    if "question" in columns or "answer" in columns:
        required += ["question", "answer"]
    if role == "forget":
        required.append("concept")
    others = [name for name in columns if name not in COLUMNS]
    for name in COLUMNS:
        if name in columns:
            continue
        near = difflib.get_close_matches(name, [other.lower() for other in others], 1, 0.8)
        alias = [o for o in others if o.lower() in near or o.lower() in ALIASES.get(name, ())]
        if name in required:
            hint = f" Did you mean '{alias[0]}'? Rename it." if alias else ""
            if "Generation_Task" in columns:
                hint = " This is a table of MLLMU-Bench: write one row a question instead."
            raise DataError(
                f"{path}: column '{name}' is missing; it has {', '.join(columns) or 'none'}.{hint} "
                f"A {role} set has the columns image (empty for text only), question, answer and "
                "concept; optional are id, task and choices."
            )
        if near:
            raise DataError(f"{path}: column '{alias[0]}' is unknown. Did you mean '{name}'?")
