"""YAML of plain values: what JSON can hold, in a form that people can write.

Scalars are read by the core schema of YAML 1.2 without its octal and hexadecimal numbers: null,
true, false, decimal numbers; everything else is text. YAML 1.1, which PyYAML reads, also takes
`no` for false, `010` for 8, `1:30` for 90 and `2001-01-01` for a date, and `1e-4` for text.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from unsee.errors import ConfigError, first_line, quoted, shorten
from unsee.files import is_regular

# A recipe has some dozen values in three levels. The limits hold a file of aliases in aliases, or
# one that is no recipe at all, to little memory and time.
MAX_BYTES, MAX_DEPTH, MAX_VALUES = 1 << 20, 32, 10_000
MAX_INTEGER = 2**63 - 1

NULLS = ("", "~", "null", "Null", "NULL")
BOOLEANS = {
    "true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False,
}  # fmt: skip
INTEGER = re.compile(r"[-+]?(?:0|[1-9][0-9]*)")
FLOAT = re.compile(r"[-+]?(?:\.[0-9]+|(?:0|[1-9][0-9]*)(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?")
NOT_FINITE = re.compile(r"[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)")


def read_file(path: Path, what: str) -> Any:
    """The value in a YAML file.

    Args:
        path: The file.
        what: What it is, such as "recipe my.yaml"; begins the message of an error.

    Raises:
        ConfigError: If it is no ordinary file, is too large, is not UTF-8, or `parse` refuses it.
    """
    try:
        path.stat()
        if not is_regular(path):
            raise ConfigError(
                f"{what}: is a folder, a pipe or a device. Give an ordinary YAML file."
            )
        with path.open("rb") as file:
            content = file.read(MAX_BYTES + 1)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or first_line(error)
        raise ConfigError(f"{what}: cannot be read ({reason}). Give a YAML file.") from error
    if len(content) > MAX_BYTES:
        raise ConfigError(
            f"{what}: has more than {MAX_BYTES:,} bytes, so it is no recipe. Give another file."
        )
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ConfigError(
            f"{what}: is not UTF-8 text (byte {error.start}). Save it as UTF-8."
        ) from error
    return parse(text, what)


def parse(text: str, what: str) -> Any:
    """The value that a YAML text stands for: mappings with text as keys, lists and scalars.

    An alias is read as a copy of what its anchor marks.

    Args:
        text: The text.
        what: What it is; begins the message of an error.

    Raises:
        ConfigError: If it is no YAML; if it has tags, a key twice, several documents, numbers that
            are not finite or halves of surrogate pairs; or is nested too deeply or too long.

    Example:
        >>> parse("{steps: 10, lr: 1e-4, when: 2001-01-01, precision: no}", "example")
        {'steps': 10, 'lr': 0.0001, 'when': '2001-01-01', 'precision': 'no'}
    """
    try:
        return _Builder(text, what).document()
    except yaml.reader.ReaderError as error:
        raise ConfigError(
            f"{what}: cannot be read as YAML (the character {chr(error.character)!r} at position "
            f"{error.position} is not allowed). Remove it."
        ) from error
    except (yaml.YAMLError, ValueError, OverflowError) as error:
        # PyYAML has no error of its own for escapes such as "\UFFFFFFFF".
        mark = getattr(error, "problem_mark", None)
        place = f", line {mark.line + 1}, column {mark.column + 1}" if mark is not None else ""
        problem = shorten(getattr(error, "problem", None) or first_line(error), 160)
        raise ConfigError(f"{what}{place}: cannot be read as YAML ({problem}).") from error


def dump(value: Any) -> str:
    """A value as YAML that `parse` and readers of YAML 1.1 read alike."""
    text: str = yaml.dump(value, Dumper=_Dumper, sort_keys=False, allow_unicode=True)
    return text


def dump_inline(value: Any) -> str:
    """A value as YAML on one line, without a line break at its end."""
    text: str = yaml.dump(
        value,
        Dumper=_Dumper,
        default_flow_style=True,
        sort_keys=False,
        width=1 << 30,
        allow_unicode=True,
    )
    return text.removesuffix("\n").removesuffix("\n...")


class _Dumper(yaml.SafeDumper):
    """Quotes text that either version of YAML would read as another value; writes no aliases."""

    def ignore_aliases(self, data: Any) -> bool:
        """Always: an alias is hard to read, and `parse` would copy it."""
        return True


def _write_text(dumper: yaml.SafeDumper, value: str) -> yaml.Node:
    style = None
    if any(form.fullmatch(value) for form in (INTEGER, FLOAT, NOT_FINITE)):
        style = "'"
    elif re.search("[\x85\u2028\u2029]", value):
        # Line breaks of YAML 1.1, which other quotes would fold.
        style = '"'
    return dumper.represent_scalar("tag:yaml.org,2002:str", value, style=style)


_Dumper.add_representer(str, _write_text)


def scalar(text: str, what: str) -> Any:
    """The value of a plain scalar by the schema of this module.

    Raises:
        ConfigError: If it is a number that is not finite, or an integer of more than 64 bits.
    """
    if text in NULLS:
        return None
    if text in BOOLEANS:
        return BOOLEANS[text]
    if INTEGER.fullmatch(text):
        if len(text) > 20 or abs(int(text)) > MAX_INTEGER:
            raise ConfigError(f"{what}: {quoted(text)} is too large a number; give a smaller one.")
        return int(text)
    if NOT_FINITE.fullmatch(text) or (FLOAT.fullmatch(text) and math.isinf(float(text))):
        raise ConfigError(f"{what}: {quoted(text)} is no finite number. Give one, such as 1e-4.")
    return float(text) if FLOAT.fullmatch(text) else text


class _Builder:
    """Builds a value from the events of PyYAML's parser, and counts as it goes."""

    def __init__(self, text: str, what: str) -> None:
        """Starts to read a text."""
        self._events: Iterator[Any] = yaml.parse(text, Loader=yaml.SafeLoader)
        self._what, self._name_lines = what, "\n" in text
        # What an anchor marks, and the number of values in it; None while it is being read.
        self._anchors: dict[str, tuple[Any, int] | None] = {}
        self._values = 0

    def document(self) -> Any:
        """The value of the only document; None if there is none."""
        value, seen = None, False
        for event in self._events:
            if isinstance(event, yaml.DocumentStartEvent):
                if seen:
                    raise self._error(
                        event, "a second document starts. Keep one, without '---' between"
                    )
                value, seen = self._value(next(self._events), 0), True
        return value

    def _value(self, event: Any, depth: int) -> Any:
        if isinstance(event, yaml.AliasEvent):
            return self._alias(event)
        if event.tag is not None:
            raise self._error(event, "tags (!, !!int) are not read. Write the value alone")
        self._count(event, 1)
        if depth > MAX_DEPTH:
            raise self._error(event, f"more than {MAX_DEPTH} levels are nested. Write fewer")
        before, anchor = self._values, event.anchor
        if anchor is not None:
            self._anchors[anchor] = None
        if isinstance(event, yaml.ScalarEvent):
            value = self._scalar(event)
        elif isinstance(event, yaml.SequenceStartEvent):
            value = self._sequence(depth)
        else:
            value = self._mapping(depth)
        if anchor is not None:
            self._anchors[anchor] = (value, self._values - before + 1)
        return value

    def _alias(self, event: Any) -> Any:
        marked = self._anchors.get(event.anchor)
        if marked is None:
            raise self._error(event, f"*{shorten(event.anchor)} refers to nothing before it")
        value, count = marked
        self._count(event, count)
        return _copy(value)

    def _count(self, event: Any, number: int) -> None:
        self._values += number
        if self._values > MAX_VALUES:
            raise self._error(event, f"there are more than {MAX_VALUES:,} values. Write fewer")

    def _scalar(self, event: Any) -> Any:
        plain, where = event.implicit[0], self._where(event)
        value = scalar(event.value, where) if plain else event.value
        if isinstance(value, str):
            self._check_text(event)
        return value

    def _sequence(self, depth: int) -> list[Any]:
        items: list[Any] = []
        while not isinstance(event := next(self._events), yaml.SequenceEndEvent):
            items.append(self._value(event, depth + 1))
        return items

    def _mapping(self, depth: int) -> dict[str, Any]:
        items: dict[str, Any] = {}
        while not isinstance(event := next(self._events), yaml.MappingEndEvent):
            if not isinstance(event, yaml.ScalarEvent):
                raise self._error(event, "a key must be text. Write it as NAME: VALUE")
            if event.tag is not None:
                raise self._error(event, "tags (!, !!str) are not read. Write the key alone")
            self._check_text(event)
            key = event.value
            if key == "<<" and event.implicit[0]:
                raise self._error(event, "merge keys (<<) are not read. Write the fields out")
            if key in items:
                raise self._error(event, f"the key {quoted(key)} is given twice. Keep one")
            items[key] = self._value(next(self._events), depth + 1)
        return items

    def _check_text(self, event: Any) -> None:
        if re.search("[\x00\ud800-\udfff]", event.value):
            raise self._error(
                event, f"{quoted(event.value)} holds a NUL or half of a surrogate pair. Remove it"
            )

    def _where(self, event: Any) -> str:
        return f"{self._what}, line {event.start_mark.line + 1}" if self._name_lines else self._what

    def _error(self, event: Any, problem: str) -> ConfigError:
        return ConfigError(f"{self._where(event)}: {problem}.")


def _copy(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _copy(inner) for key, inner in value.items()}
    return [_copy(inner) for inner in value] if isinstance(value, list) else value
