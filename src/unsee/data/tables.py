"""Reads tables of samples: JSON, CSV, TSV and parquet files, and folders of `datasets`."""

from __future__ import annotations

import csv
import difflib
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from unsee.data import conversations
from unsee.errors import DataError, first_line, quoted, shorten
from unsee.pixels import require_regular_file

# A row: its location for error messages, such as "data.csv, line 3", and its values by column.
TableRow = tuple[str, dict[str, Any]]


SUFFIXES = (".jsonl", ".ndjson", ".json", ".csv", ".tsv", ".parquet")


COLUMNS = ("image", "question", "answer", "concept", "id", "task", "choices")


# Further columns: several pictures, a box around a face, and questions as conversations.
FURTHER_COLUMNS = ("images", "file_name", "box", *conversations.COLUMNS)

# Limits against files that decode to far more than they hold.
MAX_ROWS = 1_000_000
MAX_LINE = 1 << 26
MAX_JSON = 1 << 30
MAX_TEXT = 100_000
MIN_DECODED, MAX_RATIO = 1 << 28, 30

# Names of the columns in other data sets.
ALIASES = {
    "image": ("img", "picture", "photo", "image_path", "file", "filename", "path"),
    "question": ("prompt", "query", "input", "q"),
    "answer": ("label", "target", "response", "output", "caption", "a"),
    "concept": ("name", "person", "subject", "identity", "class", "entity"),
}


def is_dataset_folder(folder: Path) -> bool:
    """Returns whether a folder was written by `save_to_disk` of the library `datasets`."""
    return any((folder / name).is_file() for name in ("state.json", "dataset_dict.json"))


def read_rows(path: Path, role: str, concept_known: bool = False) -> list[TableRow]:
    """Returns all rows of a table after checking its columns.

    Args:
        path: A file whose suffix is one of `SUFFIXES`, or a folder of `datasets`.
        role: Role of the set in error messages; "forget" requires a concept column.
        concept_known: Whether the concept of a row is known without a column.

    Raises:
        DataError: If the file is broken, has no rows, or lacks a column.
    """
    suffix = path.suffix.lower()
    try:
        if path.is_dir():
            columns, rows = _read_dataset_folder(path)
        else:
            size = require_regular_file(path, str(path))
            if suffix == ".parquet":
                columns, rows = _read_parquet(path)
            elif suffix in {".csv", ".tsv"}:
                columns, rows = _read_csv(path, "\t" if suffix == ".tsv" else ",")
            elif suffix == ".json":
                columns, rows = _read_json(path, size)
            else:
                columns, rows = _read_jsonl(path)
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: is not UTF-8 ({error}). Save it as UTF-8.") from error
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error}).") from error
    if not rows:
        raise DataError(f"{path}: the {role} set is empty. Give it at least one row.")
    if isinstance(rows[0][1].get("images"), list) and "image" not in columns:
        columns = ["image" if name == "images" else name for name in columns]
    check_columns(path, columns, role, concept_known)
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


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    """The lines of a text file with their numbers.

    Raises:
        DataError: If a line is longer than `MAX_LINE` characters.
    """
    with path.open(encoding="utf-8-sig", newline="") as file:
        number = 0
        while line := file.readline(MAX_LINE + 1):
            number += 1
            if len(line) > MAX_LINE:
                raise DataError(
                    f"{path}, line {number}: has more than {MAX_LINE:,} characters. Write pictures "
                    "to files, or split the row."
                )
            yield number, line


def _read_jsonl(path: Path) -> tuple[list[str], list[TableRow]]:
    columns: dict[str, None] = {}
    rows: list[TableRow] = []
    problems: list[str] = []
    for number, line in _lines(path):
        if not line.strip():
            continue
        place = f"{path}, line {number}"
        try:
            row = parse_json(line)
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


def parse_json(text: str) -> Any:
    """Parses JSON.

    Raises:
        ValueError: If it is none, nested too deep, or holds a number of thousands of digits.
    """
    try:
        return json.loads(text)
    except RecursionError as error:
        raise ValueError("nested too deep") from error
    except ValueError as error:
        raise ValueError(shorten(first_line(error), 200)) from error


def _read_json(path: Path, size: int) -> tuple[list[str], list[TableRow]]:
    """A list of objects, alone or as "data" of an object; or an object a line."""
    if size > MAX_JSON:
        raise DataError(
            f"{path}: has {size:,} bytes; at most {MAX_JSON:,} are read. Write it as .jsonl."
        )
    text = path.read_text("utf-8-sig")
    try:
        content = parse_json(text)
    except ValueError as error:
        first = next((line for line in text.splitlines() if line.strip()), "").strip()
        if first.startswith("{") and first.endswith("}"):
            return _read_jsonl(path)
        raise DataError(
            f"{path}: is not JSON ({error}). Write a list of objects, or an object a line, as in "
            ".jsonl."
        ) from error
    if isinstance(content, dict):
        data = content.get("data")
        content = data if isinstance(data, list) else [content]
    if not isinstance(content, list):
        raise DataError(f"{path}: is a JSON {type(content).__name__}. Write a list of objects.")
    columns: dict[str, None] = {}
    rows: list[TableRow] = []
    problems: list[str] = []
    for number, row in enumerate(content, start=1):
        if isinstance(row, dict):
            columns.update(dict.fromkeys(row))
            rows.append((f"{path}, row {number}", row))
        else:
            problems.append(
                f"{path}, row {number}: is a JSON {type(row).__name__}, not an object. Write "
                "objects with the columns as keys."
            )
    raise_problems(problems, path)
    return list(columns), rows


@contextmanager
def _long_csv_fields() -> Iterator[None]:
    """Allows fields of `MAX_LINE` characters; the module's limit is 128 kB, for all readers."""
    before = csv.field_size_limit(MAX_LINE)
    try:
        yield
    finally:
        csv.field_size_limit(before)


def _read_csv(path: Path, delimiter: str) -> tuple[list[str], list[TableRow]]:
    rows: list[TableRow] = []
    problems: list[str] = []
    with _long_csv_fields():
        reader = csv.reader((line for _, line in _lines(path)), delimiter=delimiter)
        try:
            columns = _csv_header(path, next(reader, []))
            for values in reader:
                place = f"{path}, line {reader.line_num}"
                if not any(values):
                    continue
                # Spreadsheets write columns that are empty at the end of every line.
                if any(values[len(columns) :]):
                    problems.append(
                        f"{place}: has more fields than the header's {len(columns)}. Put values "
                        "that contain the separator in double quotes."
                    )
                    continue
                row = dict.fromkeys(columns) | dict(zip(columns, values, strict=False))
                unnamed = row.pop("", None)
                if unnamed:
                    problems.append(
                        f"{place}: has {quoted(unnamed)} in a column without a name. Name the "
                        "column in line 1, or remove the value."
                    )
                    continue
                rows.append((place, {key: value or None for key, value in row.items()}))
        except csv.Error as error:
            raise DataError(
                f"{path}, line {reader.line_num}: is not CSV ({error}). Save it again as CSV."
            ) from error
    raise_problems(problems, path)
    return [name for name in columns if name], rows


def _csv_header(path: Path, columns: list[str]) -> list[str]:
    """The names of the columns; empty ones at the end are dropped."""
    columns = list(columns)
    while columns and not columns[-1].strip():
        columns.pop()
    twice = next((name for name in columns if columns.count(name) > 1), None)
    if twice is not None:
        raise DataError(f"{path}, line 1: column '{shorten(twice)}' comes twice. Rename one.")
    if len(columns) == 1 and ";" in columns[0]:
        raise DataError(
            f"{path}, line 1: columns are separated by ';'. Save it with commas, or as .tsv with "
            "tabs."
        )
    return columns


def parquet_batches(path: Path, columns: Sequence[str]) -> Iterator[Any]:
    """Yields record batches of some columns of a parquet file, small ones if values are large.

    Raises:
        DataError: If the file decodes to far more than it holds, as no table of samples does.
        pyarrow.ArrowException: If it is damaged.
    """
    import pyarrow.parquet as pq

    with pq.ParquetFile(path) as file:
        _check_row_count(path, file.metadata.num_rows)
        groups = [file.metadata.row_group(i) for i in range(file.num_row_groups)]
        chunks = [group.column(i) for group in groups for i in range(group.num_columns)]
        # A dictionary-encoded value may be as large as its whole chunk, and be repeated.
        largest = max((chunk.total_uncompressed_size for chunk in chunks), default=0)
        size = max(1, min(1024, MIN_DECODED // 4 // max(1, largest)))
        yield from _limited(
            path, path.stat().st_size, file.iter_batches(batch_size=size, columns=list(columns))
        )


def _check_row_count(path: Path, rows: int) -> None:
    if rows > MAX_ROWS:
        raise DataError(
            f"{path}: has {rows:,} rows; at most {MAX_ROWS:,} are read. Split the file."
        )


def _limited(path: Path, size: int, batches: Iterator[Any]) -> Iterator[Any]:
    """Yields batches until they hold far more than the file does."""
    limit = max(MIN_DECODED, MAX_RATIO * size)
    decoded = 0
    for batch in map(_plain_columns, batches):
        decoded += batch.nbytes + 16 * sum(map(_count_values, batch.columns))
        if decoded > limit:
            raise DataError(
                f"{path}: decodes to more than {limit:,} bytes from {size:,} (a guard against "
                "decompression bombs). Write the file again with fewer or smaller values."
            )
        yield batch


def _plain_columns(batch: Any) -> Any:
    """The batch with dictionary-encoded columns written out, so that its size is what it holds.

    Raises:
        ValueError: If a column repeats values in another way, which its size does not tell.
    """
    import pyarrow as pa

    if not batch.num_columns:
        return batch
    columns = [
        column.dictionary_decode() if pa.types.is_dictionary(column.type) else column
        for column in batch.columns
    ]
    for name, column in zip(batch.schema.names, columns, strict=True):
        if re.search(r"dictionary<|_view|run_end_encoded<", str(column.type)):
            raise ValueError(
                f"column '{shorten(name)}' has the type {shorten(str(column.type))}, which is not "
                "read"
            )
    return pa.RecordBatch.from_arrays(columns, names=batch.schema.names)


def _count_values(array: Any) -> int:
    """The number of values in a column, those inside lists included."""
    import pyarrow as pa

    count = len(array)
    if pa.types.is_list(array.type) or pa.types.is_large_list(array.type):
        count += _count_values(array.flatten())
    return count


def _read_parquet(path: Path) -> tuple[list[str], list[TableRow]]:
    import pyarrow.parquet as pq

    def read() -> tuple[Any, Callable[[Sequence[str]], Iterator[Any]]]:
        return pq.read_schema(path), lambda wanted: parquet_batches(path, wanted)

    return _read_arrow(path, "parquet file", read)


def _read_dataset_folder(folder: Path) -> tuple[list[str], list[TableRow]]:
    """The rows in a folder of `save_to_disk`: a data set, or a dictionary with one split."""
    splits = folder / "dataset_dict.json"
    if splits.is_file():
        names = sorted(p.name for p in folder.iterdir() if (p / "state.json").is_file())
        if len(names) != 1:
            shown = ", ".join(names[:10]) or "none"
            raise DataError(
                f"{folder}: has the splits {shown}. Name one of them: {folder / 'SPLIT'}."
            )
        folder = folder / names[0]

    def read() -> tuple[Any, Callable[[Sequence[str]], Iterator[Any]]]:
        import pyarrow as pa

        state = parse_json((folder / "state.json").read_text("utf-8"))
        if state.get("_indices_data_files"):
            raise ValueError("it has an index of selected rows. Save it with flatten_indices()")
        files = [folder / Path(entry["filename"]).name for entry in state["_data_files"]]
        sizes = [require_regular_file(file, str(file)) for file in files]

        def batches(wanted: Sequence[str]) -> Iterator[Any]:
            for file, size in zip(files, sizes, strict=True):
                with pa.memory_map(str(file)) as source, pa.ipc.open_stream(source) as stream:
                    yield from (b.select(list(wanted)) for b in _limited(file, size, iter(stream)))

        if not files:
            return pa.schema([]), batches
        with pa.memory_map(str(files[0])) as source, pa.ipc.open_stream(source) as stream:
            return stream.schema, batches

    return _read_arrow(folder, "data set of save_to_disk", read)


def _read_arrow(
    path: Path,
    kind: str,
    read: Callable[[], tuple[Any, Callable[[Sequence[str]], Iterator[Any]]]],
) -> tuple[list[str], list[TableRow]]:
    """The rows of an Arrow table.

    Args:
        path: The file or folder.
        kind: What it is in messages.
        read: Returns the schema, and a function that yields batches of some columns.
    """
    import pyarrow as pa

    rows: list[TableRow] = []
    try:
        schema, batches = read()
        columns = list(schema.names)
        labels = _class_labels(schema.metadata or {})
        known = [*COLUMNS, *FURTHER_COLUMNS]
        # A label with names of classes is whom the picture shows.
        named = [name for name in labels if name in ("label", *ALIASES["concept"])]
        concept = named[0] if len(named) == 1 and "concept" not in columns else None
        wanted = [name for name in columns if name in known or name == concept]
        for batch in batches(wanted):
            for row in batch.to_pylist():
                for name in labels.keys() & row.keys():
                    row[name] = _label_name(row[name], labels[name])
                if concept is not None:
                    row["concept"] = row.pop(concept)
                rows.append((f"{path}, row {len(rows) + 1}", row))
    except (
        pa.ArrowException, OSError, ValueError, KeyError, TypeError, AttributeError, OverflowError
    ) as error:  # fmt: skip
        raise DataError(
            f"{path}: is not a readable {kind} ({shorten(first_line(error), 200)}). "
            "Write or download it again."
        ) from error
    return ["concept" if name == concept else name for name in columns], rows


def _class_labels(metadata: Mapping[bytes, bytes]) -> dict[str, list[str]]:
    """The names of classes by column, as `datasets` notes them in a schema."""
    try:
        content = parse_json(metadata.get(b"huggingface", b"{}").decode())
        features = content["info"]["features"]
        return {
            name: list(map(str, feature["names"]))
            for name, feature in features.items()
            if isinstance(feature, dict) and feature.get("_type") == "ClassLabel"
        }
    except (ValueError, KeyError, TypeError, AttributeError):
        return {}


def _label_name(value: Any, names: Sequence[str]) -> Any:
    if isinstance(value, int) and not isinstance(value, bool):
        return names[value] if 0 <= value < len(names) else None
    return value


def check_columns(
    path: Path, columns: Sequence[str], role: str, concept_known: bool = False
) -> None:
    """Checks the columns of a table of samples.

    Args:
        path: The table, for the message.
        columns: Its columns.
        role: Role of the set in the message; "forget" requires a concept column.
        concept_known: Whether the concept of a row is known without a column.

    Raises:
        DataError: If one is missing, or an unknown one is like one that is read; the nearest is
            named.
    """
    known = [*COLUMNS, *conversations.COLUMNS]
    talks = any(name in columns for name in conversations.COLUMNS)
    if path.name.startswith("metadata."):
        known.append("file_name")
    if talks:
        known.append("images")
    required = [] if talks or {"file_name"} & {*columns} & {*known} else ["image"]
    if "question" in columns or "answer" in columns:
        required += ["question", "answer"]
    if role == "forget" and not concept_known:
        required.append("concept")
    others = [name for name in columns if name not in known][:200]
    listed = shorten(", ".join(columns), 300) or "none"
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
                f"{path}: column '{name}' is missing; it has {listed}.{hint} "
                f"A {role} set has the columns image (empty for text only), question, answer and "
                "concept; optional are id, task, choices and box."
            )
        if near:
            raise DataError(f"{path}: column '{alias[0]}' is unknown. Did you mean '{name}'?")
