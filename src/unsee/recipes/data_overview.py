"""Overview of a data set before anything large is read: its tables, and what they look like."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from unsee.benchmarks.recognizing import Likeness, likenesses
from unsee.data.folders import METADATA, PICTURES
from unsee.data.tables import check_columns, is_dataset_folder
from unsee.errors import DataError, counted, listed
from unsee.hub.names import PREFIX, find
from unsee.recipes.listings import Listing, Table, list_hub, list_local, tables_in
from unsee.recipes.specs import parse_spec

ARCHIVES = (".zip", ".tar", ".gz")


def with_prefix(text: str) -> str:
    """The text of a data set, with "hub:" before OWNER/NAME if there is no such folder.

    Args:
        text: A folder, a table, a benchmark, or OWNER/NAME[@REVISION].
    """
    on_hub = not text.startswith(PREFIX) and parse_spec(text) is None and find(text) is not None
    return f"{PREFIX}{text}" if on_hub else text


def overview(text: str) -> dict[str, Any] | None:
    """The content of a data set on the hub, or of a folder that holds tables.

    Args:
        text: hub:OWNER/NAME[@REVISION], or a path.

    Returns:
        "data" (the place), "commit", "files", "bytes", "pictures" and "archives" (numbers of
        files), "tables" (configuration, split, files, bytes, columns, rows), "looks_like" (the
        benchmarks that would read it), "notes" and "problems"; None if it is to be read sample by
        sample: a folder of pictures, a table, or a benchmark.

    Raises:
        DataError: If it is on the hub and cannot be read there.
    """
    if parse_spec(text) is not None:
        return None
    repository = find(text) if text.startswith(PREFIX) else None
    folder = Path(text)
    if repository is not None:
        listing = list_hub(repository)
    elif folder.is_dir() and not is_dataset_folder(folder):
        listing = list_local(folder)
    else:
        return None
    own = any(Path(name).name in METADATA for name in listing.sizes)
    pictures = _count(listing, PICTURES)
    if repository is None and own:
        return None
    tables = tables_in(listing)
    columns: dict[str, Collection[str]] = dict.fromkeys(listing.sizes, ())
    columns |= {name: tuple(table.columns) for table in tables for name in table.files}
    like = likenesses(columns, repository.id if repository is not None else None)
    if repository is None and (not tables or (pictures and not any(map(_complete, like)))):
        return None
    return {
        "data": listing.place,
        "commit": listing.commit,
        "files": len(listing.sizes),
        "bytes": sum(listing.sizes.values()),
        "pictures": pictures,
        "archives": _count(listing, ARCHIVES),
        "tables": [asdict(table) for table in tables],
        "looks_like": [asdict(one) | {"check": _command(one, listing)} for one in like],
        "notes": [] if like else _as_samples(tables),
        "problems": [*_unreadable(tables), *(like[0].problems if like else ())],
    }


def _count(listing: Listing, suffixes: Collection[str]) -> int:
    return sum(Path(name).suffix.lower() in suffixes for name in listing.sizes)


def _complete(likeness: Likeness) -> bool:
    return likeness.found == likeness.needed


def _command(likeness: Likeness, listing: Listing) -> str:
    """The command that checks every sample as the benchmark reads it."""
    ratio = f"?ratio={likeness.ratio}" if likeness.ratio is not None else ""
    return f"unsee data check '{likeness.name}@{listing.place}{ratio}'"


def _unreadable(tables: Collection[Table]) -> list[str]:
    return [table.problem for table in tables if table.problem]


def _as_samples(tables: Collection[Table]) -> list[str]:
    """A sentence on each table: whether it can be read as samples of one's own."""
    notes: list[str] = []
    for table in tables:
        if table.problem:
            continue
        try:
            check_columns(Path(table.files[0]), list(table.columns), "forget")
        except DataError as error:
            notes.append(f"not as samples of your own: {error}")
        else:
            notes.append(f"{table.files[0]}: has the columns of samples of your own.")
    return notes


def lines(found: Mapping[str, Any]) -> list[str]:
    """The overview as lines to print.

    Args:
        found: The result of `overview`.
    """
    commit = f" at commit {found['commit'][:12]}" if found["commit"] else ""
    parts = [counted(found["files"], "file"), f"{found['bytes'] / 1e6:,.1f} MB"]
    parts += [counted(found["pictures"], "picture")] if found["pictures"] else []
    parts += [counted(found["archives"], "archive")] if found["archives"] else []
    shown = [f"{found['data']}{commit}: {', '.join(parts)}"]
    for table in found["tables"]:
        rows = "rows not counted" if table["rows"] is None else counted(table["rows"], "row")
        columns = ", ".join(f"{name} ({kind})" for name, kind in table["columns"].items())
        files = f"{counted(len(table['files']), 'file')}, {table['bytes'] / 1e6:,.1f} MB"
        shown.append(f"{table['config']}/{table['split']}: {rows} ({files}): {columns or 'none'}")
    for one in found["looks_like"]:
        absent = f"; not there: {listed(one['absent'])}" if one["absent"] else ""
        shown.append(
            f"looks like {one['name']}: {one['found']} of the {one['needed']} files that it reads "
            f"are there{absent}. To read every sample, type: {one['check']}"
        )
    if not found["looks_like"]:
        shown.append("looks like no published benchmark that `unsee list benchmarks` names")
    return [*shown, *found["notes"]]
