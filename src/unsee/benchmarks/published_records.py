"""Records of published files: parquet and JSON, and errors that name file, row and field."""

from __future__ import annotations

import ast
import hashlib
import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from unsee.data.tables import raise_problems
from unsee.errors import DataError, UnknownNameError, first_line
from unsee.types import Picture, Sample


@dataclass(frozen=True)
class Record:
    """A published record, or an object inside one, that knows where it stands.

    Attributes:
        place: File and row, in words.
        values: What it holds.
        within: The field that holds it, such as "Mask_Task[2]"; "" for a whole row.
        file: The file, whose folder picture paths are relative to.
    """

    place: str
    values: Mapping[str, Any]
    within: str = ""
    file: Path = Path()

    def wrong(self, field: str, message: str) -> DataError:
        """The error that says what is wrong with a field."""
        return DataError(f"{self.place}: field '{self._name(field)}' {message}")

    def text(self, field: str) -> str:
        """A text."""
        found: str = self._of(field, str, "text", self._get(field))
        return found

    def texts(self, field: str) -> tuple[str, ...]:
        """A list of texts; one text alone is a list of one."""
        value = self._get(field)
        found = [value] if isinstance(value, str) else self._of(field, list, "a list", value)
        for index, item in enumerate(found):
            self._of(f"{field}[{index}]", str, "text", item)
        return tuple(found)

    def inside(self, field: str) -> Record:
        """An object."""
        return self._record(field, self._get(field))

    def items(self, field: str) -> list[Record]:
        """A list of objects."""
        value = self._of(field, list, "a list", self._get(field))
        return [self._record(f"{field}[{i}]", item) for i, item in enumerate(value)]

    def parsed(self, field: str, literal: bool = False) -> Record:
        """An object or list that the data holds as JSON text, or as a Python literal.

        The object itself is returned; a list is the field `field` of the record returned.
        """
        text = self.text(field)
        kind = "a Python literal" if literal else "JSON"
        try:
            value = ast.literal_eval(text) if literal else json.loads(text)
        except (ValueError, SyntaxError, MemoryError, RecursionError) as error:
            raise self.wrong(
                field, f"is not {kind} ({error}). Download the file again, or mend the row."
            ) from error
        if isinstance(value, list):
            return Record(self.place, {field: value}, self.within, self.file)
        return self._record(field, value)

    def picture(self, field: str, known: dict[str, Picture], path: Path | None = None) -> Picture:
        """A picture: a struct {bytes, path}, or a path relative to the file's folder.

        Args:
            field: Its name.
            known: Pictures by the hash of their bytes, so that equal ones are decoded once.
            path: Where a picture given by its path is, if not relative to the record's file.

        Raises:
            DataError: If there is none, or it cannot be decoded.
        """
        found = self.picture_or_none(field, known, path)
        if found is None:
            raise self.wrong(field, "is null. Every such record needs a picture.")
        return found

    def picture_or_none(
        self, field: str, known: dict[str, Picture], path: Path | None = None
    ) -> Picture | None:
        """As `picture`, None where the data has null."""
        value = self._get(field)
        data = value.get("bytes") if isinstance(value, Mapping) else None
        if value is None or (isinstance(value, Mapping) and not data and not value.get("path")):
            return None
        if data is None and isinstance(value, Mapping):
            value = value["path"]
        if data is not None:
            data = self._of(f"{field}.bytes", bytes, "encoded bytes", data)
            key = hashlib.sha256(data).hexdigest()
            made = Picture(source=f"{self.file}#{self.place.rpartition(' ')[2]}.{field}", data=data)
        else:
            file = path or self.file.parent / self._of(field, str, "a struct {bytes, path}", value)
            key, made = str(file), Picture.from_path(file)
        if key not in known:
            try:
                _ = made.digest
            except DataError as error:
                raise self.wrong(field, f"is no picture: {error}") from error
            known[key] = made
        return known[key]

    def pictures(self, field: str, known: dict[str, Picture]) -> list[Picture]:
        """A list of pictures."""
        value = self._of(field, list, "a list", self._get(field))
        inner = {f"{field}[{i}]": item for i, item in enumerate(value)}
        holder = Record(self.place, inner, self.within, self.file)
        return [holder.picture(name, known) for name in inner]

    def _get(self, field: str) -> Any:
        if field not in self.values:
            near = UnknownNameError("field", field, map(str, self.values))
            raise self.wrong(field, f"is missing: {near}")
        return self.values[field]

    def _name(self, field: str) -> str:
        return f"{self.within}.{field}" if self.within else field

    def _record(self, field: str, value: Any) -> Record:
        found = self._of(field, dict, "an object", value)
        return Record(self.place, found, self._name(field), self.file)

    def _of(self, field: str, kind: type, label: str, value: Any) -> Any:
        if not isinstance(value, kind):
            raise self.wrong(
                field, f"is {value!r:.80}, a {type(value).__name__}; it must be {label}."
            )
        return value


class Files:
    """The published files of a benchmark: in a local folder, or on the hub, fetched as needed."""

    def __init__(self, location: str | Path, name: str) -> None:
        """Says where they are; nothing is read yet.

        Raises:
            DataError: If `location` is neither a folder nor looks like a hub id.
        """
        self.location, self.name = str(location), name
        self.local = Path(location).expanduser()
        self.on_hub = not self.local.is_dir()
        if self.on_hub and not re.fullmatch(r"[\w-]+/[\w.-]+", self.location):
            raise DataError(
                f"{name}: no folder '{location}'. Give the folder of the published files, or a hub "
                "id such as OWNER/NAME; see docs/benchmarks.md."
            )

    def parquet(self, config: str, columns: Sequence[str], split: str = "train") -> list[Record]:
        """All rows of a split of a configuration.

        Args:
            config: Its name; "" is files that stand in the folder itself.
            columns: Those that are read; all must be there.
            split: What the files' names begin with.

        Raises:
            DataError: If a file or column is missing or broken, or there is no row.
        """
        inner = f"{config}/" if config else ""
        patterns = [f"{place}{inner}{split}-*.parquet" for place in ("", "data/", "default/")]
        folder = self.folder(patterns)
        paths = next((p for p in (sorted(folder.glob(x)) for x in patterns) if p), [])
        wanted = f"{inner}{split}-00000-of-0000N.parquet"
        if not paths:
            raise DataError(f"{self.name}: {self.location} has no file {wanted}. Download it.")
        total = re.search(r"-of-(\d+)\.parquet$", paths[0].name)
        if total is not None and int(total[1]) != len(paths):
            raise DataError(
                f"{self.name}: {paths[0].parent} has {len(paths)} of {int(total[1])} parquet files "
                f"{wanted}. Download the rest."
            )
        found = [record for path in paths for record in _parquet(path, columns)]
        if not found:
            raise DataError(f"{paths[0]}: has no rows. Download it again.")
        return found

    def json(self, name: str) -> tuple[Path, Any]:
        """A JSON file, with its path.

        Raises:
            DataError: If it is missing or broken.
        """
        folder = self.folder([name, f"data/{name}"])
        path = next((p for p in (folder / name, folder / "data" / name) if p.is_file()), None)
        if path is None:
            raise DataError(f"{self.name}: {self.location} has no file {name}. Download it.")
        try:
            return path, json.loads(path.read_text("utf-8"))
        except (OSError, ValueError, RecursionError) as error:
            raise DataError(f"{path}: is not JSON ({error}). Download it again.") from error

    def json_records(self, name: str) -> list[Record]:
        """The records of a JSON file that is a list of objects."""
        path, content = self.json(name)
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
        """The local folder, with the files of these patterns in it.

        Raises:
            DataError: If the hub does not give them.
        """
        if not self.on_hub:
            return self.local
        from huggingface_hub import snapshot_download

        try:
            found = snapshot_download(
                self.location, repo_type="dataset", allow_patterns=list(patterns)
            )
        except Exception as error:
            raise DataError(
                f"{self.name}: no folder '{self.location}', and the hub did not give it "
                f"({first_line(error)}). Check the name and the network, or give the folder of the "
                "published files."
            ) from error
        return Path(found)


def _parquet(path: Path, columns: Sequence[str]) -> Iterable[Record]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    found: list[Record] = []
    try:
        with pq.ParquetFile(path) as file:
            there = list(file.schema_arrow.names)
            missing = [name for name in columns if name not in there]
            if missing:
                raise DataError(
                    f"{path}, row 1: field '{missing[0]}' is missing; the columns are "
                    f"{', '.join(there)}. Download the file again."
                )
            for batch in file.iter_batches(columns=list(columns)):
                for row in batch.to_pylist():
                    found.append(Record(f"{path}, row {len(found) + 1}", row, "", path))
    except (pa.ArrowException, OSError) as error:
        raise DataError(
            f"{path}: is not a readable parquet file ({str(error).splitlines()[0]}). Download it "
            "again."
        ) from error
    return found


def gather(
    records: Iterable[Record], make: Callable[[Record], Iterable[Sample]], where: object
) -> list[Sample]:
    """The samples of all records; bad records are named together, up to ten.

    Raises:
        DataError: If a record is out of schema, or two samples have one id.
    """
    samples: list[Sample] = []
    problems: list[str] = []
    places: dict[str, str] = {}
    for record in records:
        try:
            made = list(make(record))
        except DataError as error:
            problems.append(str(error))
            continue
        for sample in made:
            if sample.id in places:
                problems.append(
                    f"{record.place}: its sample '{sample.id}' is also that of "
                    f"{places[sample.id]}. Ids must be unique: remove one of the records."
                )
                break
            places[sample.id] = record.place
        samples += made
    raise_problems(problems, where)
    return samples
