"""The files of a data set in a folder or on the hub, and the tables among them.

Of a table only the footer (parquet) or the beginning is read, on the hub by requests for a range
of bytes, so that nothing large is downloaded.
"""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import IO, Any

from unsee.data.tables import SUFFIXES, parse_json
from unsee.errors import DataError, first_line
from unsee.hub.names import Repository
from unsee.hub.snapshots import explain

CARD = "README.md"

# Bytes that are read of a table that is not parquet, and of the end of one that is.
HEAD, BLOCK = 1 << 20, 1 << 16

# Files of a split whose rows are counted.
MOST_COUNTED = 32

_NAME = re.compile(r"(?:data/|default/)?(?:(?P<config>.+)/)?(?P<split>.+?)(?:-\d+-of-\d+)?\.[a-z]+")


@dataclass(frozen=True)
class Listing:
    """The files of a data set.

    Attributes:
        place: The folder, or OWNER/NAME[@REVISION].
        sizes: The size of each file in bytes, by its path.
        opener: Opens a file, to read parts of it.
        commit: The commit, on the hub.
    """

    place: str
    sizes: Mapping[str, int]
    opener: Callable[[str], IO[bytes]]
    commit: str | None = None

    def read(self, name: str, most: int = HEAD) -> bytes:
        """The beginning of a file.

        Raises:
            DataError: If it cannot be read.
        """
        try:
            with self.opener(name) as file:
                return file.read(most)
        except Exception as error:
            raise DataError(
                f"{self.place}: {name} cannot be read ({first_line(error)})."
            ) from error


@dataclass(frozen=True)
class Table:
    """A split of a configuration, in one file or several.

    Attributes:
        config: The configuration; "default" if there is one only.
        split: The split.
        files: Paths of its files.
        bytes: Their size.
        columns: Types by name; a picture is an "image".
        rows: Number of rows; None if they were not counted.
        problem: Why it cannot be read; "" if it can.
    """

    config: str
    split: str
    files: tuple[str, ...]
    bytes: int
    columns: Mapping[str, str]
    rows: int | None
    problem: str = ""


def list_local(folder: Path) -> Listing:
    """The files of a folder and its subfolders, but the hidden ones."""
    paths = [p for p in sorted(folder.rglob("*")) if p.is_file()]
    names = {p.relative_to(folder): p.stat().st_size for p in paths}
    sizes = {
        name.as_posix(): size
        for name, size in names.items()
        if not any(part.startswith(".") for part in name.parts)
    }
    return Listing(str(folder), sizes, lambda name: (folder / name).open("rb"))


def list_hub(repository: Repository) -> Listing:
    """The files of a data set on the hub, at its commit.

    Raises:
        DataError: If the hub cannot be reached, has no such data set or revision, or does not let
            this account read it.
    """
    from huggingface_hub import HfApi, HfFileSystem
    from huggingface_hub.hf_api import RepoFile

    api = HfApi()
    try:
        commit = api.dataset_info(repository.id, revision=repository.revision).sha or "main"
        tree = api.list_repo_tree(
            repository.id, recursive=True, revision=commit, repo_type="dataset"
        )
        sizes = {file.path: file.size for file in tree if isinstance(file, RepoFile)}
    except Exception as failure:
        raise DataError(explain(failure, repository, "dataset", "data set ")) from failure
    system = HfFileSystem(skip_instance_cache=True)
    root = f"datasets/{repository.id}@{commit}"

    def opener(name: str) -> IO[bytes]:
        opened: IO[bytes] = system.open(f"{root}/{name}", "rb", block_size=BLOCK)
        return opened

    return Listing(str(repository), sizes, opener, commit)


def tables_in(listing: Listing) -> list[Table]:
    """The tables of a data set by configuration and split, with what their files say of them."""
    groups: dict[tuple[str, str], list[str]] = {}
    for name, config, split in _named(listing):
        groups.setdefault((config, split), []).append(name)
    return [_table(listing, *key, sorted(names)) for key, names in groups.items()]


def _named(listing: Listing) -> Iterator[tuple[str, str, str]]:
    """Each table's path, configuration and split: as the card says, else as the path does."""
    patterns = _patterns(listing)
    for name in sorted(listing.sizes):
        if Path(name).suffix.lower() not in SUFFIXES or Path(name).name.startswith("."):
            continue
        declared = [(c, s) for pattern, c, s in patterns if fnmatch(name, pattern)]
        match = _NAME.fullmatch(name)
        if declared:
            yield from ((name, config, split) for config, split in declared)
        elif match is not None:
            yield name, match["config"] or "default", match["split"]


def _patterns(listing: Listing) -> list[tuple[str, str, str]]:
    """Pattern, configuration and split of the files that the card of a data set declares."""
    if CARD not in listing.sizes:
        return []
    from huggingface_hub import DatasetCard

    text = listing.read(CARD).decode("utf-8", "replace")
    found: list[tuple[str, str, str]] = []
    # A card may declare them in other forms, and then the paths say it.
    with suppress(Exception):
        for config in DatasetCard(text).data.get("configs") or []:
            files = config["data_files"]
            entries = [{"split": "train", "path": files}] if isinstance(files, str) else files
            for entry in entries:
                paths = [entry["path"]] if isinstance(entry["path"], str) else entry["path"]
                found += [(path, config["config_name"], entry["split"]) for path in paths]
    return found


def _table(listing: Listing, config: str, split: str, names: Sequence[str]) -> Table:
    size = sum(listing.sizes[name] for name in names)
    try:
        if Path(names[0]).suffix.lower() == ".parquet":
            columns, rows = _parquet(listing, names)
        else:
            columns, rows = _text(listing, names[0])
            rows = rows if len(names) == 1 else None
    except DataError as error:
        return Table(config, split, tuple(names), size, {}, None, str(error))
    return Table(config, split, tuple(names), size, columns, rows)


def _parquet(listing: Listing, names: Sequence[str]) -> tuple[dict[str, str], int | None]:
    """The columns and the number of rows of parquet files, from their footers."""
    import pyarrow.parquet as pq

    columns: dict[str, str] = {}
    rows = 0
    for name in names[:MOST_COUNTED]:
        try:
            with listing.opener(name) as opened, pq.ParquetFile(opened) as file:
                columns = columns or {f.name: _type(f.type) for f in file.schema_arrow}
                rows += file.metadata.num_rows
        except Exception as error:
            raise DataError(
                f"{name}: is not a readable parquet file ({first_line(error)}). Download it again."
            ) from error
    return columns, rows if len(names) <= MOST_COUNTED else None


def _type(kind: Any) -> str:
    """The type of a column; a struct of bytes and path is a picture."""
    import pyarrow as pa

    if pa.types.is_struct(kind):
        inside = [kind.field(i).name for i in range(kind.num_fields)]
        return "image" if set(inside) == {"bytes", "path"} else f"struct<{', '.join(inside)}>"
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        return f"list<{_type(kind.value_type)}>"
    return str(kind)


def _text(listing: Listing, name: str) -> tuple[dict[str, str], int | None]:
    """The columns of a JSON, JSONL or CSV file, and the rows of one that was read to its end."""
    content = listing.read(name)
    whole = listing.sizes[name] <= len(content)
    text = content.decode("utf-8-sig", "replace")
    suffix = Path(name).suffix.lower()
    if suffix in (".csv", ".tsv"):
        lines = list(csv.reader(io.StringIO(text), delimiter="\t" if suffix == ".tsv" else ","))
        return dict.fromkeys(lines[0] if lines else (), "text"), len(lines) - 1 if whole else None
    first, rows = _first_object(text, name, whole)
    return {key: type(value).__name__ for key, value in first.items()}, rows


def _first_object(text: str, name: str, whole: bool) -> tuple[dict[str, Any], int | None]:
    """The first row of a JSON file, and the number of its rows if all of it is there.

    Raises:
        DataError: If it does not begin with an object or a list of them.
    """
    try:
        if whole:
            content = parse_json(text)
            rows = content if isinstance(content, list) else [content]
            first = rows[0] if rows else {}
            return (first if isinstance(first, dict) else {}), len(rows)
        beginning = text.lstrip().removeprefix("[").lstrip()
        content, _ = json.JSONDecoder().raw_decode(beginning)
    except ValueError as error:
        line = text.lstrip().partition("\n")[0]
        try:
            content = parse_json(line)
        except ValueError:
            reason = f"{name}: does not begin with a JSON object ({first_line(error)})."
            raise DataError(f"{reason} Write a list of objects, or an object a line.") from error
        counted = sum(bool(one.strip()) for one in text.split("\n"))
        return (content if isinstance(content, dict) else {}), counted if whole else None
    return (content if isinstance(content, dict) else {}), None
