"""Reading the parquet and JSON files of published benchmarks; errors name file, row and field."""

from __future__ import annotations

import ast
import hashlib
import os
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from unsee.data.archives import Archive, path_endings
from unsee.data.tables import MAX_JSON, parquet_batches, parse_json, raise_problems
from unsee.errors import DataError, UnknownNameError
from unsee.files import path_text
from unsee.hub.names import find
from unsee.hub.snapshots import commit_of, snapshot
from unsee.pixels import require_regular_file
from unsee.types import Picture, Sample


@dataclass(frozen=True)
class Record:
    """A row of a published file, or an object nested in one, with its position for error messages.

    Attributes:
        place: File and row, such as "data/x.parquet, row 3".
        values: The fields by name.
        within: The field in which the object is nested, such as "Mask_Task[2]"; "" for a whole row.
        file: The file; paths of pictures are relative to its folder.
    """

    place: str
    values: Mapping[str, Any]
    within: str = ""
    file: Path = Path()

    def error(self, field: str, message: str) -> DataError:
        """An error about a field, with the record's position."""
        return DataError(f"{self.place}: field '{self._name(field)}' {message}")

    def text(self, field: str) -> str:
        """A field that holds text."""
        text: str = self._require_type(field, str, "text", self._get(field))
        return text

    def texts(self, field: str) -> tuple[str, ...]:
        """A field that holds a list of texts; a single text is read as a list of one."""
        value = self._get(field)
        texts = (
            [value] if isinstance(value, str) else self._require_type(field, list, "a list", value)
        )
        for index, item in enumerate(texts):
            self._require_type(f"{field}[{index}]", str, "text", item)
        return tuple(texts)

    def nested(self, field: str) -> Record:
        """A field that holds an object."""
        return self._record(field, self._get(field))

    def items(self, field: str) -> list[Record]:
        """A field that holds a list of objects."""
        value = self._require_type(field, list, "a list", self._get(field))
        return [self._record(f"{field}[{i}]", item) for i, item in enumerate(value)]

    def parsed(self, field: str, literal: bool = False) -> Record:
        """A field that holds an object or list as JSON text, or as a Python literal.

        An object is returned as a record. A list is returned as a record with the one field
        `field`.
        """
        text = self.text(field)
        kind = "a Python literal" if literal else "JSON"
        try:
            value = ast.literal_eval(text) if literal else parse_json(text)
        except (ValueError, SyntaxError, MemoryError, RecursionError) as error:
            raise self.error(
                field, f"is not {kind} ({error}). Download the file again, or correct the row."
            ) from error
        if isinstance(value, list):
            return Record(self.place, {field: value}, self.within, self.file)
        return self._record(field, value)

    def picture(self, field: str, cache: dict[str, Picture]) -> Picture:
        """A picture: a struct {bytes, path}, or a path relative to the file's folder.

        Args:
            field: The field's name.
            cache: Pictures by the hash of their bytes, so that equal ones are decoded once; new
                ones are added.

        Raises:
            DataError: If the field is null or cannot be decoded.
        """
        picture = self.picture_or_none(field, cache)
        if picture is None:
            raise self.error(field, "is null. Every such record needs a picture.")
        return picture

    def picture_or_none(self, field: str, cache: dict[str, Picture]) -> Picture | None:
        """As `picture`, but None where the field is null.

        Args:
            field: As in `picture`.
            cache: As in `picture`.
        """
        value = self._get(field)
        data = value.get("bytes") if isinstance(value, Mapping) else None
        if value is None or (isinstance(value, Mapping) and not data and not value.get("path")):
            return None
        if data is None and isinstance(value, Mapping):
            value = value["path"]
        if data is not None:
            data = self._require_type(f"{field}.bytes", bytes, "encoded bytes", data)
            source = f"{self.file}#{self.place.rpartition(' ')[2]}.{field}"
            key = hashlib.sha256(data).hexdigest()
            return self._known(field, key, lambda: Picture(source=source, data=data), cache)
        name = self._require_type(field, str, "a struct {bytes, path}", value)
        return self._known(field, name, lambda: self._find_picture(field, name), cache)

    def _known(
        self, field: str, key: str, find: Callable[[], Picture], cache: dict[str, Picture]
    ) -> Picture:
        """The picture with this key, decoded once."""
        if key not in cache:
            picture = find()
            try:
                _ = picture.digest
            except DataError as error:
                raise self.error(field, f"is no picture: {error}") from error
            cache[key] = picture
        return cache[key]

    def _find_picture(self, field: str, name: str) -> Picture:
        """The picture of a path: beside the record's file, or in a zip file there.

        Published paths begin where the authors' code ran, such as "./dataset/SFHQ/1.jpg" in a file
        that is itself in "dataset".
        """
        folder = self.file.parent
        endings = path_endings(name)
        for path in (folder / name, folder.parent / name, *(folder / e for e in endings)):
            if os.path.exists(path) and not path.is_dir():
                return Picture.from_path(path)
        zipped = sorted(path for path in folder.glob("*.zip") if path.exists())
        stats = ((path, path.stat()) for path in zipped)
        archives = [_archive(path, stat.st_mtime_ns, stat.st_size) for path, stat in stats]
        for archive in archives:
            try:
                member = archive.find(name)
                if member is not None:
                    data = archive.read(member)
                    return Picture(source=f"{archive.path}#{member}", data=data)
            except DataError as error:
                raise self.error(field, f"is no picture: {error}") from error
        zips = ", ".join(archive.path.name for archive in archives) or "there is none"
        raise self.error(
            field,
            f"is no picture: {name}: no such file in {folder} or in a zip file there ({zips}). "
            "Put the published pictures there, as they are or in their zip file.",
        )

    def pictures(self, field: str, cache: dict[str, Picture]) -> list[Picture]:
        """A field that holds a list of pictures."""
        value = self._require_type(field, list, "a list", self._get(field))
        fields = {f"{field}[{i}]": item for i, item in enumerate(value)}
        record = Record(self.place, fields, self.within, self.file)
        return [record.picture(name, cache) for name in fields]

    def _get(self, field: str) -> Any:
        if field not in self.values:
            unknown = UnknownNameError("field", field, map(str, self.values))
            raise self.error(field, f"is missing: {unknown}")
        return self.values[field]

    def _name(self, field: str) -> str:
        return f"{self.within}.{field}" if self.within else field

    def _record(self, field: str, value: Any) -> Record:
        values = self._require_type(field, dict, "an object", value)
        return Record(self.place, values, self._name(field), self.file)

    def _require_type(self, field: str, kind: type, label: str, value: Any) -> Any:
        if not isinstance(value, kind):
            text = repr(value)[:80]
            raise self.error(field, f"is {text}, a {type(value).__name__}; it must be {label}.")
        return value


@lru_cache(maxsize=8)
def _archive(path: Path, changed: int, size: int) -> Archive:
    """The zip file, whose list of members is read once as long as it does not change."""
    return Archive(path)


def parquet_patterns(config: str, split: str) -> tuple[str, ...]:
    """Patterns of the parquet files of a split, by the places that data sets keep them in.

    Args:
        config: The configuration's name; "" if the files are in the folder itself.
        split: Beginning of the files' names.
    """
    inner = f"{config}/" if config else ""
    return tuple(f"{place}{inner}{split}-*.parquet" for place in ("", "data/", "default/"))


class Files:
    """The published files of a benchmark: in a local folder, or on the hub, fetched as needed."""

    def __init__(self, location: str | Path, name: str) -> None:
        """Sets the location; nothing is read yet.

        Args:
            location: A local folder, or a hub id such as "OWNER/NAME" or "OWNER/NAME@v1.0".
            name: The benchmark's name, for error messages.

        Raises:
            DataError: If `location` is neither a folder nor looks like a hub id.
        """
        advice = "give the folder of the published files, or a hub id such as OWNER/NAME."
        self.location = path_text(f"{name} at ", location, advice, DataError)
        self.name, self.local = name, Path(os.path.expanduser(self.location))
        self.repository = None if self.local.is_dir() else find(self.location)
        if self.repository is None and not self.local.is_dir():
            raise DataError(
                f"{name}: no folder '{location}'. Give the folder of the published files, or a hub "
                "id such as OWNER/NAME, with @REVISION for a branch, a tag or a commit; see "
                "docs/benchmarks.md."
            )

    @property
    def on_hub(self) -> bool:
        """Whether the files are on the hub."""
        return self.repository is not None

    @property
    def commit(self) -> str | None:
        """The commit that was read from the hub; None for a folder."""
        return commit_of(self.repository, "dataset") if self.repository is not None else None

    def parquet(
        self,
        config: str,
        columns: Sequence[str],
        split: str = "train",
        optional: Sequence[str] | None = (),
    ) -> list[Record]:
        """All rows of a split of a configuration.

        Args:
            config: The configuration's name; "" if the files are in the folder itself.
            columns: Columns to read; all must exist.
            split: Beginning of the files' names.
            optional: Columns to read where they exist; None reads all that there are.

        Raises:
            DataError: If a file or column is missing or broken, or there are no rows.
        """
        paths, wanted = self._parquet_files(config, split)
        if not paths:
            raise DataError(f"{self.name}: {self.location} has no file {wanted}. Download it.")
        total = re.search(r"-of-(\d+)\.parquet$", paths[0].name)
        if total is not None and int(total[1]) != len(paths):
            raise DataError(
                f"{self.name}: {paths[0].parent} has {len(paths)} of {int(total[1])} parquet files "
                f"{wanted}. Download the rest."
            )
        records = [record for path in paths for record in _read_parquet(path, columns, optional)]
        if not records:
            raise DataError(f"{paths[0]}: has no rows. Download it again.")
        return records

    def table(self, splits: Sequence[str], spellings: Mapping[str, Sequence[str]]) -> list[Record]:
        """All rows of a split in parquet files or in a JSON file, by one spelling of their columns.

        It reads data whose files could not be seen when the reader was written.

        Args:
            splits: Names that the split may have, the likeliest first: the beginning of the parquet
                files' names, or the name of the JSON file.
            spellings: Other names of a column by the one that records get; case does not count.

        Raises:
            DataError: If there is neither, or a file is broken. A missing column is named, with
                the nearest that there is, when a record is asked for it.
        """
        for split in splits:
            if self._parquet_files("", split)[0]:
                records = self.parquet("", (), split, None)
                return [_respelled(record, spellings) for record in records]
        names = [f"{split}.{end}" for split in splits for end in ("json", "jsonl")]
        places = [f"{place}{name}" for name in names for place in ("", "data/")]
        folder = self.folder(places)
        name = next((place for place in places if (folder / place).is_file()), None)
        if name is None:
            raise DataError(
                f"{self.name}: {self.location} has neither {splits[0]}-00000-of-0000N.parquet nor "
                f"{names[0]}. Download one of them."
            )
        return [_respelled(record, spellings) for record in self.json_records(name)]

    def _parquet_files(self, config: str, split: str) -> tuple[list[Path], str]:
        """The parquet files of a split, fetched from the hub, and how they are called."""
        patterns = parquet_patterns(config, split)
        folder = self.folder(patterns)
        paths = next((p for p in (sorted(folder.glob(x)) for x in patterns) if p), [])
        return paths, patterns[0].replace("*", "00000-of-0000N")

    def json(self, name: str) -> tuple[Path, Any]:
        """The path and the parsed content of a JSON file.

        Raises:
            DataError: If it is missing or broken.
        """
        folder = self.folder([name, f"data/{name}"])
        path = next((p for p in (folder / name, folder / "data" / name) if p.is_file()), None)
        if path is None:
            raise DataError(f"{self.name}: {self.location} has no file {name}. Download it.")
        try:
            text = _read_text(path)
        except (OSError, ValueError) as error:
            raise DataError(f"{path}: is not JSON ({error}). Download it again.") from error
        try:
            return path, parse_json(text)
        except ValueError as error:
            lines = _json_lines(path, text)
            if lines is None:
                raise DataError(f"{path}: is not JSON ({error}). Download it again.") from error
            return path, lines

    def json_records(self, name: str) -> list[Record]:
        """The records of a JSON file that is a list of objects, or has one object a line.

        Raises:
            DataError: If the file is missing or broken, or holds something else.
        """
        path, content = self.json(name)
        if isinstance(content, dict):
            # A file with an object a line, of which there is one.
            content = [content]
        if not isinstance(content, list):
            raise DataError(
                f"{path}: is a JSON {type(content).__name__}; it must be a list. Download it again."
            )
        whole = Record(str(path), {"record": content}, "", path)
        return [
            Record(f"{path}, row {i}", item.values, "", path)
            for i, item in enumerate(whole.items("record"), start=1)
        ]

    def folder(self, patterns: Sequence[str]) -> Path:
        """The local folder; from the hub, the files of these patterns are downloaded first.

        Raises:
            DataError: If the files cannot be downloaded.
        """
        if self.repository is None:
            return self.local
        return snapshot(self.repository, "dataset", patterns, f"{self.name}: ", DataError)


def _read_text(path: Path) -> str:
    if require_regular_file(path, str(path)) > MAX_JSON:
        raise ValueError(f"more than {MAX_JSON:,} bytes")
    return path.read_text("utf-8-sig")


def _json_lines(path: Path, text: str) -> list[Any] | None:
    """The values of a text with one JSON object a line; None if the first line is none.

    Raises:
        DataError: If a later line is none.
    """
    values: list[Any] = []
    # Other separators, such as U+2028, may stand unescaped in a JSON string.
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip():
            try:
                values.append(parse_json(line))
            except ValueError as error:
                if not values:
                    return None
                raise DataError(
                    f"{path}, line {number}: is not JSON ({error}). Download the file again."
                ) from error
    return values if isinstance(values[0], dict) else None


def _respelled(record: Record, spellings: Mapping[str, Sequence[str]]) -> Record:
    """The record with its fields under the names that its reader uses."""
    renamed = dict(record.values)
    for name, others in spellings.items():
        wanted = [spelling.casefold() for spelling in (name, *others)]
        found = [key for key in renamed if str(key).casefold() in wanted]
        if name not in renamed and found:
            first = min(found, key=lambda key: wanted.index(str(key).casefold()))
            renamed[name] = renamed.pop(first)
    return replace(record, values=renamed)


def _read_parquet(
    path: Path, columns: Sequence[str], optional: Sequence[str] | None = ()
) -> Iterable[Record]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    records: list[Record] = []
    try:
        with pq.ParquetFile(path) as file:
            available = list(file.schema_arrow.names)
            missing = [name for name in columns if name not in available]
            if missing:
                unknown = UnknownNameError("column", missing[0], available)
                raise DataError(
                    f"{path}, row 1: field '{missing[0]}' is missing: {unknown} Download the file "
                    "again."
                )
        further = available if optional is None else [o for o in optional if o in available]
        for batch in parquet_batches(path, list(dict.fromkeys([*columns, *further]))):
            for row in batch.to_pylist():
                records.append(Record(f"{path}, row {len(records) + 1}", row, "", path))
    except (pa.ArrowException, OSError) as error:
        raise DataError(
            f"{path}: is not a readable parquet file ({str(error).splitlines()[0]}). Download it "
            "again."
        ) from error
    return records


def gather(
    records: Iterable[Record], make: Callable[[Record], Iterable[Sample]], where: object
) -> list[Sample]:
    """The samples of all records; one error lists up to ten bad records.

    Args:
        records: Rows of published files.
        make: Makes the samples of a record.
        where: The source to name in the error, such as a file or configuration.

    Raises:
        DataError: If a record does not follow the schema, or two samples have the same id.
    """
    samples: list[Sample] = []
    problems: list[str] = []
    places: dict[str, str] = {}
    for record in records:
        try:
            new_samples = list(make(record))
        except DataError as error:
            problems.append(str(error))
            continue
        for sample in new_samples:
            if sample.id in places:
                problems.append(
                    f"{record.place}: its sample '{sample.id}' is also that of "
                    f"{places[sample.id]}. Ids must be unique: remove one of the records."
                )
                break
            places[sample.id] = record.place
        samples += new_samples
    raise_problems(problems, where)
    return samples
