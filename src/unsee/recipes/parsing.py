"""From plain values, as YAML and key=value hold them, to validated dataclasses."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import TypeAdapter, ValidationError

from unsee.errors import ConfigError, UnknownNameError, warn_renamed
from unsee.recipes.catalog import find_recipe

T = TypeVar("T")


def validate(kind: type[T], values: Mapping[str, Any]) -> T:
    """Builds a dataclass from plain values.

    Raises:
        ConfigError: If a field is unknown or a value not allowed; all are named at once.
    """
    problems: list[str] = []
    known = {f.name for f in fields(kind)}  # type: ignore[arg-type]
    label = getattr(kind, "name", kind.__name__.lower())
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
        str(UnknownNameError(f"field of {label}", name, known, aliases=aliases or {}))
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
    label = getattr(kind, "name", kind.__name__.lower())
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


def read_yaml(path: Path, example: str) -> dict[str, Any]:
    """The keys and values in a recipe's file.

    Args:
        path: The file, or the name of a shipped recipe.
        example: A line that such a recipe may hold.

    Raises:
        ConfigError: If it cannot be read, or holds anything else.
    """
    path = find_recipe(path)
    try:
        content = yaml.safe_load(path.read_text("utf-8")) or {}
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigError(f"recipe {path}: cannot be read as YAML ({error}).") from error
    if not isinstance(content, dict):
        raise ConfigError(f"recipe {path}: must be keys with values, such as '{example}'.")
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
            raise ConfigError(f"'{pair}' is not key=value. Type, for example, lr=1e-4.")
        try:
            values[key.strip()] = _number(yaml.safe_load(value))
        except yaml.YAMLError as error:
            raise ConfigError(f"'{pair}': the value cannot be read ({error}).") from error
    return values


def format_value(value: Any) -> str:
    """A value as `parse_overrides` reads it after "=": YAML on one line.

    Example:
        >>> [format_value(value) for value in (None, True, 1e-4, ("all",), "no", "no: 1")]
        ['null', 'true', '0.0001', '[all]', "'no'", "'no: 1'"]
    """
    plain = list(value) if isinstance(value, tuple) else value
    text = yaml.safe_dump(
        plain, default_flow_style=True, sort_keys=False, width=10**6, allow_unicode=True
    )
    return text.removesuffix("\n").removesuffix("\n...")


def _number(value: Any) -> Any:
    """YAML takes 1e-4 for text; people mean a number."""
    if isinstance(value, str):
        try:
            return float(value)
        except ValueError:
            return value
    return value


def collect(problems: list[str], kind: type[T], values: Mapping[str, Any]) -> T | None:
    """The dataclass, or None with a message for each value that is not allowed.

    Args:
        problems: The messages are added to it.
        kind: The dataclass.
        values: Values of its fields.
    """
    cleaned = {k: tuple(v) if isinstance(v, list) else v for k, v in values.items()}
    cleaned = {
        k: (v,) if k.endswith("_layers") and isinstance(v, str) else v for k, v in cleaned.items()
    }
    try:
        return TypeAdapter(kind).validate_python(cleaned)
    except ValidationError as error:
        label = getattr(kind, "name", kind.__name__.lower())
        for item in error.errors():
            where = ".".join(str(part) for part in item["loc"]) or label
            problems.append(
                f"{label}: {where}={item['input']!r} is not allowed: {item['msg']}. "
                f"`unsee show {label}` lists what is."
            )
        return None
