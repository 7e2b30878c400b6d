"""Redaction of commands and settings that could name a person."""

from __future__ import annotations

import re
import shlex
import unicodedata
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import Any

from unsee.benchmarks import BENCHMARKS
from unsee.hub.names import find


def hub_id(source: str | Path) -> str | None:
    """The hub id of a source, without its revision; None for a folder, whose name may be private.

    Example:
        >>> hub_id("some-lab/some-model@v1.0")
        'some-lab/some-model'
    """
    repository = find(source)
    return repository.id if repository is not None else None


def redact_setting(key: str, value: Any) -> Any:
    """Returns a setting's value, with paths, which may name a person, replaced by their key."""
    if isinstance(value, str | Path) and (_private(key, str(value)) or Path(value).exists()):
        return key.upper()
    return value


# Options whose values may name a person ("--forget photos/ada_berg"); patches are published.
PRIVATE = frozenset(
    "--forget --retain --strangers --non-members --model --out --name --faces --reference --target "
    "--holdout --retain-holdout --retain-only --visual-refit --data --base --pocket --patch --box "
    "--cache --offload --salt --tasks-path --photos --id --ledger --path --location".split()
)


def redact(command: str, names: Iterable[str] = ()) -> str:
    """Returns a command line without the values that could name a person.

    Args:
        command: The command line.
        names: Names that no other word may hold either, not even in part or in another spelling.

    Example:
        >>> redact("unsee unlearn --forget photos/ada")
        'unsee unlearn --forget FORGET'
    """
    words: list[str] = []
    known = {part for name in names for part in _parts(name) if len(part) > 1}
    for word in shlex.split(command):
        option, joined, value = word.partition("=")
        before = words[-1] if words else ""
        if before in PRIVATE and not _is_shipped(word):
            words.append(before.lstrip("-").upper())
        elif joined and _private(option, value):
            words.append(f"{option}={option.lstrip('-').upper()}")
        elif _is_file(word):
            # A recipe may be called like a person.
            words.append("RECIPE")
        elif not word.startswith("-") and _names(word, known):
            words.append("REDACTED")
        else:
            words.append(word)
    return shlex.join(words)


def _is_file(word: str) -> bool:
    """Whether a word without an option is a path: of a recipe, a run, a patch."""
    if word.startswith("-") or "=" in word or _is_shipped(word):
        return False
    return word.endswith((".yaml", ".yml", ".json")) or "/" in word or "\\" in word


def _parts(text: str) -> list[str]:
    """The words of a text, without case and accents."""
    folded = unicodedata.normalize("NFKD", unicodedata.normalize("NFKC", text).casefold())
    return re.findall(r"[^\W_]+", "".join(c for c in folded if not unicodedata.combining(c)))


def _names(word: str, known: Collection[str]) -> bool:
    """Whether a word holds a part of a name; of three letters or fewer, as a whole."""
    parts = _parts(word)
    joined = "".join(parts)
    short = {part for part in known if len(part) < 4 and part.isascii()}
    return bool(short & set(parts)) or any(part in joined for part in set(known) - short)


def _is_shipped(value: str) -> bool:
    """Whether it is NAME:SPLIT or NAME:ROLE of a benchmark that ships with the package."""
    name, colon, _ = value.partition(":")
    shipped = (name for name, kind in BENCHMARKS.items() if kind.checkpoints)
    return bool(colon) and name in shipped


def _private(option: str, value: str) -> bool:
    """Whether key=value could name a person: what is a path, or the key of one."""
    if not value or _is_shipped(value):
        return False
    name = "--" + option.lstrip("-").replace("_", "-")
    return name in PRIVATE or "/" in value or "\\" in value
