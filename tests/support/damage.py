"""Damage to JSON values and to files, for the fuzz suites."""

from __future__ import annotations

import json
import os
import random
import shutil
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

# What may stand in JSON where something else belongs.
JSON_VALUES: list[Any] = [
    None, True, False, 0, -1, 1, 7, 2**31, 2**63, 2**80, 10**400, 0.5, -0.5, 1e-320, 1e308, -1e308,
    float("nan"), float("inf"), float("-inf"), "", "x", "5", "nan", "\ud800", "\x00", "\x1b[2J",
    "<script>alert(1)</script>", "x" * 100_000, "/etc/passwd", "../../../etc/passwd", "/dev/zero",
    "https://example.org/x.png", [], [[]], [None], ["x"], [1, 2, 3], {}, {"": {}}, {"x": 1},
    {"value": "x"}, [{"step": 0, "value": 1}], {"\ud800": 1},
]  # fmt: skip


def fields(value: Any, at: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Yields the path of every value in a JSON value, containers included."""
    if at:
        yield at
    items: Any = value.items() if isinstance(value, dict) else ()
    for key, inner in enumerate(value[:3]) if isinstance(value, list) else items:
        yield from fields(inner, (*at, key))


def replaced(value: Any, at: tuple[Any, ...], new: Any) -> Any:
    """A copy of a JSON value in which another stands at a path."""
    if not at:
        return new
    copy = list(value) if isinstance(value, list) else dict(value)
    copy[at[0]] = replaced(copy[at[0]], at[1:], new)
    return copy


def dump(value: Any) -> bytes:
    """JSON in UTF-8, where Python writes NaN and lone surrogates as it reads them."""
    return json.dumps(value).encode()


def nested(levels: int = 100_000) -> bytes:
    """JSON that is nested deep."""
    return b"[" * levels + b"]" * levels


def mixed(rng: random.Random, content: bytes) -> bytes:
    """Bytes that are cut short, flipped, repeated or replaced."""
    action = rng.randrange(5)
    if action == 0:
        return content[: rng.randrange(len(content) + 1)]
    if action == 1:
        return rng.choice([b"", b"\0" * 64, b"\xff\xfe", b"5", b"null", b"[]", b'"x"', nested()])
    if action == 2:
        at = rng.randrange(len(content) + 1)
        return content[:at] + rng.randbytes(rng.randint(1, 9)) + content[at:]
    flipped = bytearray(content)
    for _ in range(rng.randint(1, 4) if flipped else 0):
        flipped[rng.randrange(len(flipped))] ^= 1 << rng.randrange(8)
    return bytes(flipped)


def odd_files(outside: Path) -> Mapping[str, Callable[[Path], None]]:
    """Ways to put something else in the place of a file, by name.

    Args:
        outside: A file elsewhere, which links point to.
    """
    return {
        "missing": lambda path: None,
        "folder": lambda path: path.mkdir(),
        "fifo": os.mkfifo,
        "link": lambda path: path.symlink_to(outside),
        "link to itself": lambda path: path.symlink_to(path),
        "broken link": lambda path: path.symlink_to(path.with_name("none")),
        "endless": lambda path: path.symlink_to("/dev/zero"),
    }


def put(path: Path, make: Callable[[Path], None]) -> None:
    """Replaces a file by what `make` puts in its place."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
    make(path)
