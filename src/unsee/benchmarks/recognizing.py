"""Recognition of published data sets by their files: which benchmark would read them.

What a benchmark reads is found by asking it, with files that note what is asked for and are not
there; it declares nothing beside its reader.
"""

from __future__ import annotations

import difflib
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from unsee.benchmarks import BENCHMARKS
from unsee.benchmarks.published import Published
from unsee.benchmarks.published_records import Files, Record, parquet_patterns
from unsee.errors import DataError, UnseeError

# Share of a benchmark's files that must be there for it to be named.
LIKELY = 0.5


@dataclass(frozen=True)
class Need:
    """A file that a benchmark reads, or one in parts.

    Attributes:
        patterns: Patterns of its path.
        columns: Columns that it must have; () if they are not known before it is read.
    """

    patterns: tuple[str, ...]
    columns: tuple[str, ...]

    def found(self, names: Collection[str]) -> list[str]:
        """The files of it that are there."""
        return [n for n in names if any(fnmatch(n, pattern) for pattern in self.patterns)]


@dataclass(frozen=True)
class Likeness:
    """A benchmark that a data set looks like.

    Attributes:
        name: The benchmark.
        ratio: The published ratio to forget (%); None if it has none.
        found: Number of its files that are there.
        needed: Number of its files.
        absent: Files that are not there, as patterns.
        problems: Columns that are missing, with the nearest that there are.
    """

    name: str
    ratio: str | None
    found: int
    needed: int
    absent: tuple[str, ...]
    problems: tuple[str, ...]


class _Asked(DataError):
    """A file was asked for, and noted."""


class _Notes(Files):
    """Files of which none is there; what is asked for is noted."""

    def __init__(self, name: str) -> None:
        self.name, self.location, self.repository = name, name, None
        self.local = Path("/dev/null") / name
        self.needs: list[Need] = []

    def parquet(
        self,
        config: str,
        columns: Sequence[str],
        split: str = "train",
        optional: Sequence[str] | None = (),
    ) -> list[Record]:
        """Notes the files of a split."""
        self.needs.append(Need(parquet_patterns(config, split), tuple(columns)))
        raise _Asked(config)

    def json(self, name: str) -> tuple[Path, Any]:
        """Notes a JSON file."""
        self.needs.append(Need((name, f"*/{name}"), ()))
        raise _Asked(name)


def likenesses(columns: Mapping[str, Collection[str]], hub_id: str | None = None) -> list[Likeness]:
    """The benchmarks that a data set looks like, the likeliest first.

    Args:
        columns: The columns of each file, by its path; () if they are not known.
        hub_id: The data set's name on the hub, which may be that of a benchmark.
    """
    found = []
    for _, kind in BENCHMARKS.items():
        if not issubclass(kind, Published):
            continue
        likely = [_likeness(kind, ratio, columns) for ratio in kind.ratios or (None,)]
        best = max(likely, key=lambda one: (one.found / max(one.needed, 1), -len(one.problems)))
        if best.needed and (best.found / best.needed >= LIKELY or hub_id == kind.hub):
            found.append(best)
    return sorted(found, key=lambda one: (-one.found / one.needed, len(one.problems)))


def _likeness(
    kind: type[Published], ratio: str | None, columns: Mapping[str, Collection[str]]
) -> Likeness:
    """How far the files are those of a benchmark at a ratio."""
    needs = _needs(kind, ratio)
    absent: list[str] = []
    problems: list[str] = []
    for need in needs:
        there = need.found(columns)
        if not there:
            absent.append(need.patterns[0])
        for name in there[:1]:
            known = columns[name]
            problems += [
                f"{name}: column '{column}' is missing{_nearest(column, known)}"
                for column in need.columns
                if known and column not in known
            ]
    return Likeness(
        kind.name, ratio, len(needs) - len(absent), len(needs), tuple(absent), tuple(problems)
    )


def _needs(kind: type[Published], ratio: str | None) -> list[Need]:
    """The first file that each split of a benchmark reads, and the training data."""
    notes = _Notes(kind.name)
    for split in (*kind.splits, "train_forget", "train_retain"):
        # A reader that is afraid of what is missing has asked for it before.
        with suppress(UnseeError):
            kind(notes, ratio, None).load(split)
    return list(dict.fromkeys(notes.needs))


def _nearest(column: str, known: Collection[str]) -> str:
    by_lower = {name.lower(): name for name in known}
    near = difflib.get_close_matches(column.lower(), by_lower, 1, 0.5)
    return f"; the nearest is '{by_lower[near[0]]}'" if near else ""
