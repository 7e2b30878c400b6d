"""The fields of a configuration class: defaults, types, choices, bounds and descriptions."""

from __future__ import annotations

import re
from collections.abc import Mapping
from inspect import cleandoc
from typing import Any

from pydantic import TypeAdapter

from unsee.recipes.parsing import format_value

# What a JSON Schema calls a bound, and how `unsee show` words it.
BOUNDS = {
    "minimum": "at least {}",
    "exclusiveMinimum": "above {}",
    "maximum": "at most {}",
    "exclusiveMaximum": "below {}",
}


def describe_fields(kind: type) -> dict[str, dict[str, Any]]:
    """The fields of a dataclass by name, in order.

    Each has a `type` ("integer", "number", "string", "boolean", "null", "list of strings", or
    several of them joined by " or ") and a `default`; and, where there are any, `choices`, the
    bounds `minimum`, `exclusiveMinimum`, `maximum` and `exclusiveMaximum` of a number, the
    `pattern` of a string, and a `description`.

    Args:
        kind: A dataclass whose annotations pydantic understands.
    """
    properties = TypeAdapter(kind).json_schema().get("properties", {})
    descriptions: dict[str, str] = {}
    for base in reversed(kind.__mro__):
        descriptions |= _attributes(base.__doc__ or "")
    described = {}
    for name, schema in properties.items():
        field = _describe(schema)
        if name in descriptions:
            field["description"] = descriptions[name]
        described[name] = field
    return described


def to_yaml(values: Mapping[str, Any], fields: Mapping[str, Mapping[str, Any]], indent: int) -> str:
    """Fields as YAML lines, each with a comment that says what is allowed.

    Args:
        values: Values by field, as JSON.
        fields: What `describe_fields` says of them.
        indent: Spaces before each line.
    """
    lines = []
    for name, value in values.items():
        text = f"{' ' * indent}{name}: {format_value(value)}"
        allowed = _allowed(fields.get(name, {}))
        lines.append(f"{text}  # {allowed}" if allowed else text)
    return "\n".join(lines)


def _describe(schema: Mapping[str, Any]) -> dict[str, Any]:
    """One property of a JSON Schema, with its alternatives put together."""
    alternatives = schema.get("anyOf", [schema])
    types: list[str] = []
    choices: list[Any] = []
    field: dict[str, Any] = {}
    for alternative in alternatives:
        constant = [alternative["const"]] if "const" in alternative else []
        choices += alternative.get("enum", constant)
        kind, items = str(alternative.get("type", "object")), alternative.get("items", {})
        if kind == "array":
            kind = f"list of {items.get('type', 'object')}s"
            choices += items.get("enum", ())
        if kind not in types:
            types.append(kind)
        field |= {key: alternative[key] for key in (*BOUNDS, "pattern") if key in alternative}
    return (
        {"type": " or ".join(types), "default": schema.get("default")}
        | ({"choices": choices} if choices else {})
        | field
    )


def _allowed(field: Mapping[str, Any]) -> str:
    """The type, the choices and the bounds of a field, in words."""
    kind = str(field.get("type", ""))
    if choices := [format_value(choice) for choice in field.get("choices", ())]:
        others = [name for name in kind.split(" or ") if not name.startswith(("string", "list"))]
        kind = " or ".join([", ".join(choices), *others])
        kind = f"list of {kind}" if str(field["type"]).startswith("list") else kind
    bounds = [words.format(field[key]) for key, words in BOUNDS.items() if key in field]
    pattern = re.fullmatch(r"\^\(([\w|]+)\)\$", field.get("pattern", ""))
    if pattern is not None:
        kind = ", ".join(pattern[1].split("|"))
    return ", ".join([kind, *bounds]) if kind else ""


def _attributes(docstring: str) -> dict[str, str]:
    """Descriptions by name in the "Attributes:" section of a docstring in Google style."""
    section = re.search(r"^Attributes:\n((?:(?: +.*)?\n?)+)", cleandoc(docstring), re.MULTILINE)
    if section is None:
        return {}
    named = re.findall(r"^    (\w+): (.*(?:\n {5,}.*)*)", section[1], re.MULTILINE)
    return {name: re.sub(r"\s+", " ", text).strip() for name, text in named}
