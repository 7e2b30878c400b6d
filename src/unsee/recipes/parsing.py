"""From plain values, as YAML and key=value hold them, to validated dataclasses."""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import MISSING, fields
from os import PathLike
from pathlib import Path
from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError

from unsee.errors import (
    ConfigError,
    UnknownNameError,
    quoted,
    shorten,
    suggestion,
    warn_renamed,
)
from unsee.recipes import plain_yaml
from unsee.recipes.catalog import find_recipe

T = TypeVar("T")

# The longest path that Linux opens; every other text of a recipe is shorter.
MAX_TEXT = 4096

# What lists the fields of a class that `unsee show` does not know.
LISTINGS = {"evaluation": "unsee evaluate --help", "tasks": "unsee evaluate --help"}

# What a field takes, in plain words, by pydantic's type of an error.
TAKES = {
    "bool_parsing": "true or false",
    "bool_type": "true or false",
    "dict_type": "keys with values",
    "float_parsing": "a number",
    "float_type": "a number",
    "int_from_float": "a whole number",
    "int_parsing": "a whole number",
    "int_type": "a whole number",
    "path_type": "a path",
    "string_type": "text",
    "tuple_type": "a list",
}


def label_of(kind: type) -> str:
    """The name of a class of configuration in messages and for `unsee show`."""
    label: str = getattr(kind, "name", kind.__name__.lower())
    return "settings" if label == "trainingsettings" else label


def validate(kind: type[T], values: Mapping[str, Any]) -> T:
    """Builds a dataclass from plain values.

    Raises:
        ConfigError: If a field is unknown or a value not allowed; all are named at once.
    """
    problems: list[str] = []
    known = {f.name for f in fields(kind)}  # type: ignore[arg-type]
    label = label_of(kind)
    values = rename_fields(kind, values)
    problems += unknown_fields(label, values, known, getattr(kind, "aliases", {}))
    result = collect(problems, kind, {k: v for k, v in values.items() if k in known})
    if problems or result is None:
        raise ConfigError("\n".join(problems))
    return result


def unknown_fields(
    label: str,
    names: Iterable[str],
    known: Collection[str],
    aliases: Mapping[str, str] | None = None,
) -> list[str]:
    """A message for each name that is no field, with the nearest one that is.

    Args:
        label: What the fields are of.
        names: The names that were given.
        known: The names of fields.
        aliases: Former names of fields, from old to new; they are suggested too.
    """
    return [
        str(UnknownNameError(f"field of {label}", str(name), known, aliases=aliases or {}))
        for name in names
        if name not in known
    ]


def rename_fields(kind: type, values: Mapping[str, Any]) -> dict[str, Any]:
    """The values under the current names of a dataclass's fields, and their values' current names.

    A class declares earlier names of its fields as `aliases: ClassVar[Mapping[str, str]]`, from old
    to new, and earlier values of a field as `value_aliases: ClassVar[Mapping[str, Mapping[str,
    str]]]`, by the field's current name. Each alias that is used gives a `FutureWarning`.

    Raises:
        ConfigError: If a field is given under both its names.
    """
    aliases: Mapping[str, str] = getattr(kind, "aliases", {})
    value_aliases: Mapping[str, Mapping[str, str]] = getattr(kind, "value_aliases", {})
    label = label_of(kind)
    renamed: dict[str, Any] = {}
    for key, value in values.items():
        name = aliases.get(key, key)
        if name != key:
            if name in values:
                raise ConfigError(
                    f"{label}: {key} is the old name of {name}, and both are given. "
                    f"Leave {key} out."
                )
            warn_renamed(f"field of {label}", key, name)
        old_values = value_aliases.get(name, {})
        if isinstance(value, str) and value in old_values:
            warn_renamed(f"value of {label}'s {name}", value, old_values[value])
            value = old_values[value]
        renamed[name] = value
    return renamed


def read_yaml(path: Path, example: str, trusted: bool = False) -> dict[str, Any]:
    """The keys and values in a recipe's file.

    Args:
        path: The file, or the name of a shipped recipe.
        example: A line that such a recipe may hold.
        trusted: Whether the caller says itself, outside of the file, what `trust_remote_code` is.

    Raises:
        ConfigError: If it cannot be read, or holds anything else; or if it asks to run the
            checkpoint's own code, and the caller does not.
    """
    path = find_recipe(path)
    name = f"recipe {shorten(str(path), 200)}"
    content = plain_yaml.read_file(path, name)
    if not isinstance(content, dict):
        given = "is empty" if content is None else f"holds {quoted(content)}"
        raise ConfigError(f"{name}: {given}; it must be keys with values, such as '{example}'.")
    if not trusted and content.get("trust_remote_code", False) is not False:
        raise ConfigError(
            f"{name}: trust_remote_code would run the Python code that comes with the checkpoint, "
            "and a recipe alone cannot allow that. If you trust the code, type "
            "--trust-remote-code too (in Python: trust_remote_code=True); else take it out."
        )
    return content


def parse_overrides(pairs: Sequence[str]) -> dict[str, Any]:
    """key=value pairs, values read as YAML: 3, 1e-4, true, [encoder.1, projector], text.

    Raises:
        ConfigError: If a pair has no "=" or its value cannot be read.
    """
    values = {}
    for pair in pairs:
        key, separator, value = pair.partition("=")
        if not separator or not key.strip():
            raise ConfigError(f"{quoted(pair)} is not key=value. Type, for example, lr=1e-4.")
        what = f"{shorten(key.strip())}={shorten(value)}"
        if re.match(r"(?![\s]*[\['\"{]).*(^|\s)#", value, re.DOTALL):
            raise ConfigError(f"{what}: what follows '#' would be a comment. Put it in quotes.")
        values[key.strip()] = plain_yaml.parse(value, what)
    return values


def format_value(value: Any) -> str:
    """A value as `parse_overrides` reads it after "=": YAML on one line.

    Example:
        >>> [format_value(value) for value in (None, True, 1e-4, ("all",), "no", "no: 1")]
        ['null', 'true', '0.0001', '[all]', "'no'", "'no: 1'"]
    """
    return plain_yaml.dump_inline(list(value) if isinstance(value, tuple) else value)


def as_tuple(value: Any) -> Any:
    """A value of a field that takes one or several: null is none, and text or a path is one.

    Example:
        >>> as_tuple(None), as_tuple("a"), as_tuple(["a", "b"])
        ((), ('a',), ('a', 'b'))
    """
    if value is None:
        return ()
    if isinstance(value, str | PathLike):
        return (str(value),)
    if isinstance(value, list | tuple):
        return tuple(str(item) if isinstance(item, PathLike) else item for item in value)
    return value


_adapters: dict[type, TypeAdapter[Any]] = {}


def _adapter(kind: type[T]) -> TypeAdapter[T]:
    """The validator of a class, which takes longer to make than to use."""
    if kind not in _adapters:
        _adapters[kind] = TypeAdapter(kind)
    return _adapters[kind]


def collect(problems: list[str], kind: type[T], values: Mapping[str, Any]) -> T | None:
    """The dataclass, or None with a message for each value that is not allowed.

    Args:
        problems: The messages are added to it.
        kind: The dataclass.
        values: Values of its fields.
    """
    label = label_of(kind)
    cleaned = {k: tuple(v) if isinstance(v, list) else v for k, v in values.items()}
    cleaned = {
        k: (v,) if k.endswith("_layers") and isinstance(v, str) else v for k, v in cleaned.items()
    }
    reasons = {k: [reason] for k, v in cleaned.items() if (reason := _never_allowed(v))}
    result = None
    try:
        result = _adapter(kind).validate_python(cleaned)
    except ValidationError as error:
        for item in error.errors(include_url=False, include_context=False):
            name = str(item["loc"][0]) if item["loc"] else label
            reason = TAKES.get(item["type"]) or _words(item["msg"].removeprefix("Input should be "))
            reasons.setdefault(name, []).append(f"it should be {reason}")
    for name, value in cleaned.items():
        if name not in reasons and result is not None:
            reason = _other_kind(value, getattr(result, name)) or _null_as_text(kind, name, value)
            reasons |= {name: [reason]} if reason else {}
    listing = LISTINGS.get(label, f"unsee show {label}")
    problems += [
        f"{label}: {name}={quoted(cleaned.get(name))} is not allowed: "
        f"{', or '.join(dict.fromkeys(texts))}."
        f"{_nearest(cleaned.get(name), texts) or _example(kind, name)} `{listing}` lists what is."
        for name, texts in reasons.items()
    ]
    return None if reasons else result


def _never_allowed(value: Any) -> str | None:
    """Why no field has such a value; None if one may."""
    if isinstance(value, list | tuple):
        return next((reason for item in value if (reason := _never_allowed(item))), None)
    if isinstance(value, float) and not math.isfinite(value):
        return "it should be a finite number"
    if isinstance(value, int) and abs(value) > plain_yaml.MAX_INTEGER:
        return f"it should be at most {plain_yaml.MAX_INTEGER}"
    if isinstance(value, str) and (len(value) > MAX_TEXT or "\0" in value):
        return f"it should be text of at most {MAX_TEXT:,} characters, without NUL"
    return None


def _other_kind(given: Any, result: Any) -> str | None:
    """Advice where pydantic has made a value of another kind of the one that was given."""
    if isinstance(given, list | tuple) and isinstance(result, list | tuple):
        pairs = zip(given, result, strict=True)
        return next((reason for pair in pairs if (reason := _other_kind(*pair))), None)
    if isinstance(result, bool):
        return None if isinstance(given, bool) else "it should be true or false"
    if isinstance(result, int | float) and isinstance(given, str | bool):
        return "it should be a number, without quotes"
    return None


def _words(message: str) -> str:
    """The words that a pattern allows, quoted as those of a choice are; else the message."""
    pattern = re.search(r"pattern '\^\((\w+(?:\|\w+)+)\)\$'", message)
    if pattern is None:
        return message
    *first, last = (f"'{word}'" for word in pattern[1].split("|"))
    return f"{', '.join(first)} or {last}"


def _nearest(value: Any, reasons: Iterable[str]) -> str:
    """A question that suggests the nearest of the words that the reasons quote."""
    words = [word for reason in reasons for word in re.findall(r"'([^']+)'", reason)]
    return suggestion(value, words) if isinstance(value, str) else ""


def _example(kind: type, name: str) -> str:
    """An example of a field's value: its default."""
    default = {f.name: f.default for f in fields(kind)}.get(name, MISSING)
    return "" if default is MISSING else f" Type, for example, {name}={format_value(default)}."


def _null_as_text(kind: type, name: str, value: Any) -> str | None:
    """Advice where Python's None is given as text, which would name a folder."""
    default = next((f.default for f in fields(kind) if f.name == name), "")
    if value == "None" and default is None:
        return f"type {name}=null for nothing, or {name}=./None for a file of this name"
    return None
