"""The JSON Schema of a recipe, for editors: fields with types, choices, bounds and descriptions."""

from __future__ import annotations

import re
from inspect import cleandoc
from typing import Any

from pydantic import TypeAdapter

from unsee.attacks import ATTACKS
from unsee.benchmarks import BENCHMARKS
from unsee.methods import METHODS, Method
from unsee.recipes.unlearn import RunOptions, make_recipe
from unsee.training.settings import TrainingSettings

DIALECT = "https://json-schema.org/draft/2020-12/schema"


def recipe_json_schema() -> dict[str, Any]:
    """The JSON Schema of what `unsee run` reads.

    Fields of "set" depend on "method". Former names of fields are marked as deprecated.

    Example:
        >>> schema = recipe_json_schema()
        >>> schema["properties"]["device"]["enum"]
        ['auto', 'cpu', 'cuda']
    """
    options = _properties(RunOptions)
    options["benchmark"]["enum"] = BENCHMARKS.names()
    method = make_recipe().method.name
    return {
        "$schema": DIALECT,
        "title": "unsee recipe",
        "description": "What `unsee run` does: unlearn, evaluate and attack a model.",
        "type": "object",
        "additionalProperties": False,
        "properties": {
            "method": {
                "enum": METHODS.names(),
                "default": method,
                "description": "The unlearning method; `unsee list methods` describes each.",
            },
            "set": {
                "type": "object",
                "description": "Fields of the method and the training settings.",
            },
            "attacks": _attacks(),
            **options,
        },
        "allOf": [_fields_of(name, kind, name == method) for name, kind in METHODS.items()],
    }


def _fields_of(name: str, kind: type[Method], default: bool) -> dict[str, Any]:
    """The fields of "set" where "method" is this one."""
    properties = {**_properties(TrainingSettings), **_properties(kind)}
    for field, value in kind.defaults.items():
        properties[field] = {**properties[field], "default": value}
    for preset, values in kind.presets.items():
        pairs = ", ".join(f"{field}={value}" for field, value in values.items())
        properties[preset] = {"type": "boolean", "description": f"Stands for {pairs}."}
    condition: dict[str, Any] = {"properties": {"method": {"const": name}}}
    if not default:
        condition["required"] = ["method"]
    fields = {"properties": properties, "additionalProperties": False}
    return {"if": condition, "then": {"properties": {"set": fields}}}


def _attacks() -> dict[str, Any]:
    """Parses "attacks": text as after `--attack`, or mappings of fields."""
    text = {
        "type": "string",
        "description": "NAME?field=value&field=value, with + between the attacks of a chain.",
    }
    mapping = {
        "type": "object",
        "description": "Fields of the attack under the key `attack`; relearn if there is none.",
        "properties": {
            "attack": {**text, "default": "relearn", "examples": ATTACKS.names()},
        },
    }
    entry = {"anyOf": [text, mapping]}
    return {
        "description": "Attacks to make on the unlearned model; `unsee list attacks` names them.",
        "anyOf": [{"type": "array", "items": entry}, text, mapping],
    }


def _properties(kind: type) -> dict[str, dict[str, Any]]:
    """The JSON Schema of a dataclass's fields, with the descriptions in its docstring."""
    schema = TypeAdapter(kind).json_schema()
    described = _attributes(kind)
    properties: dict[str, dict[str, Any]] = {}
    for name, value in schema.get("properties", {}).items():
        field = {key: item for key, item in value.items() if key != "title"}
        if name in described:
            field["description"] = described[name]
        if name.endswith("_layers"):
            # One layer needs no list.
            one = {key: field.pop(key) for key in ("type", "items", "anyOf") if key in field}
            field["anyOf"] = [one, {"type": "string"}]
        properties[name] = field
    for old, new in getattr(kind, "aliases", {}).items():
        if new in properties:
            note = f"Former name of `{new}`."
            properties[old] = {**properties[new], "deprecated": True, "description": note}
    return properties


def _attributes(kind: type) -> dict[str, str]:
    """The descriptions under "Attributes:" in the docstrings of a class and its bases, by name."""
    described: dict[str, str] = {}
    for base in reversed(kind.__mro__):
        section = re.search(
            r"^Attributes:\n((?:[ ]{4}.*\n?|\n)+)", cleandoc(base.__doc__ or "") + "\n", re.M
        )
        if section is not None:
            items = re.findall(r"^ {4}(\w+): (.+(?:\n {8}.+)*)", section[1], re.M)
            described |= {name: " ".join(text.split()) for name, text in items}
    return described
