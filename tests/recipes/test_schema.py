"""The JSON Schema of a recipe."""

from __future__ import annotations

import json
from dataclasses import fields

import pytest

from unsee.methods import METHODS
from unsee.recipes.catalog import shipped_recipes
from unsee.recipes.parsing import read_yaml
from unsee.recipes.schema import recipe_json_schema
from unsee.recipes.unlearn import RunOptions, make_recipe
from unsee.training.settings import TrainingSettings

SCHEMA = recipe_json_schema()
RECIPES = {n: p for n, p in shipped_recipes().items() if not n.startswith("finetune-")}


def test_recipe_json_schema_has_every_key_with_a_description() -> None:
    assert json.loads(json.dumps(SCHEMA)) == json.loads(json.dumps(recipe_json_schema()))
    keys = {f.name for f in fields(RunOptions)} | {"method", "set", "attacks"}
    assert set(SCHEMA["properties"]) == keys | set(RunOptions.aliases)
    assert set(make_recipe().values()) == keys
    for name, field in SCHEMA["properties"].items():
        assert field["description"], name


@pytest.mark.parametrize("method", METHODS.names())
def test_recipe_json_schema_has_every_field_of_every_method(method: str) -> None:
    (part,) = (
        part["then"]["properties"]["set"]["properties"]
        for part in SCHEMA["allOf"]
        if part["if"]["properties"]["method"]["const"] == method
    )
    kind = METHODS.get(method)
    known = {f.name for f in (*fields(kind), *fields(TrainingSettings))}
    assert known | set(kind.presets) <= set(part)
    for name in known:
        assert part[name].get("description"), name
    for old in kind.aliases:
        assert part[old]["deprecated"]


@pytest.mark.parametrize("name", RECIPES)
def test_recipe_json_schema_accepts_the_shipped_recipes(name: str) -> None:
    validators = pytest.importorskip("jsonschema")
    validators.validate(read_yaml(RECIPES[name], "method: vkd"), SCHEMA)
