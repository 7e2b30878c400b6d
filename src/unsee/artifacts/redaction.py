"""Redaction."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from unsee.benchmarks import BENCHMARKS


def hub_id(source: str | Path) -> str | None:
    """The source if it is a hub id; None for a folder of this machine, whose name may tell."""
    text = str(source)
    is_id = text.count("/") == 1 and not text.startswith((".", "/", "~")) and "\\" not in text
    return text if is_id and not Path(text).exists() else None


def redact_setting(key: str, value: Any) -> Any:
    """A setting's value, but a path's, which may name a person, is replaced by its key."""
    if isinstance(value, str | Path) and (
        "/" in str(value) or "\\" in str(value) or Path(value).exists()
    ):
        return key.upper()
    return value


# Options whose values may name a person ("--forget photos/ada_berg"); a patch is passed on.
PRIVATE = {
    "--forget", "--retain", "--strangers", "--model", "--out", "--name", "--faces", "--reference",
    "--target", "--holdout", "--retain-holdout", "--retain-only", "--data", "--base", "--pocket",
}  # fmt: skip


def redact(command: str, names: Iterable[str] = ()) -> str:
    """A command line without the values that could name a person.

    Args:
        command: What was typed.
        names: Whom no other word may name either, not even in part.

    Example:
        `redact("unsee unlearn --forget photos/ada")` is `"unsee unlearn --forget FORGET"`.
    """
    words: list[str] = []
    known = {part for name in names for part in re.findall(r"\w+", name.lower()) if len(part) > 2}
    for word in shlex.split(command):
        option, joined, value = word.partition("=")
        before = words[-1] if words else ""
        if before in PRIVATE and not _is_shipped(word):
            words.append(before.lstrip("-").upper())
        elif joined and _private(option, value):
            words.append(f"{option}={option.lstrip('-').upper()}")
        elif not word.startswith("-") and any(part in word.lower() for part in known):
            words.append("REDACTED")
        elif not joined and Path(word).is_absolute():
            words.append(Path(word).name)
        else:
            words.append(word)
    return shlex.join(words)


def _is_shipped(value: str) -> bool:
    """Whether it is NAME:SPLIT or NAME:ROLE of a benchmark that ships with the package."""
    name, colon, _ = value.partition(":")
    shipped = (name for name, kind in BENCHMARKS.items() if kind.checkpoints)
    return bool(colon) and name in shipped


def _private(option: str, value: str) -> bool:
    """Whether key=value could name a person: what is a path, or the key of one."""
    if _is_shipped(value):
        return False
    name = "--" + option.lstrip("-").replace("_", "-")
    return name in PRIVATE or "/" in value or "\\" in value
