"""`unsee show`."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import pytest
import yaml

from support.cli import unsee
from unsee.attacks import ATTACKS
from unsee.benchmarks import BENCHMARKS
from unsee.families import ENCODERS, FAMILIES
from unsee.methods import METHODS
from unsee.metrics import METRICS
from unsee.recipes.components import build_chains, build_method
from unsee.recipes.finetune import make_finetune
from unsee.recipes.parsing import format_value, parse_overrides
from unsee.recipes.plain_yaml import parse
from unsee.recipes.unlearn import make_recipe
from unsee.training.settings import TrainingSettings


def pairs(values: dict[str, Any]) -> list[str]:
    """The values as they may be typed after --set."""
    return [f"{key}={format_value(value)}" for key, value in values.items()]


@pytest.mark.parametrize("name", METHODS.names())
def test_show_method_prints_a_recipe(name: str) -> None:
    shown = yaml.safe_load(unsee("show", name))
    recipe = make_recipe(shown, {})
    assert recipe.method.name == name
    kind = METHODS.get(name)
    assert recipe.method == kind()
    assert build_method(name, parse_overrides(pairs(shown["set"]))) == kind()


@pytest.mark.parametrize("name", ATTACKS.names())
def test_show_attack_prints_part_of_a_recipe(name: str) -> None:
    shown = yaml.safe_load(unsee("show", name))
    default = ATTACKS.get(name)()
    (chain,) = make_recipe({"method": "vkd", **shown}, {}).attacks
    assert chain == (default,)
    (entry,) = shown["attacks"]
    typed = pairs({key: value for key, value in entry.items() if key != "attack"})
    assert build_chains([name + ("?" + "&".join(typed) if typed else "")]) == [(default,)]


def test_show_settings_prints_part_of_a_recipe() -> None:
    shown = yaml.safe_load(unsee("show", "settings"))
    assert make_recipe({"method": "npo", **shown}, {}).training == TrainingSettings()
    assert parse_overrides(pairs(shown["set"])) == shown["set"]


def test_show_finetune_prints_a_recipe() -> None:
    shown = yaml.safe_load(unsee("show", "finetune"))
    recipe = make_finetune(shown | {"benchmark": "pocket"})
    assert asdict(make_finetune({"benchmark": "pocket"})) == asdict(recipe)


@pytest.mark.parametrize(
    "name",
    [*METRICS.names(), *BENCHMARKS.names(), *FAMILIES.names(), *ENCODERS.names()],
)
def test_show_prints_the_docstring(name: str) -> None:
    shown = unsee("show", name, "--json")
    assert shown["text"]
    printed = unsee("show", name)
    assert shown["text"].splitlines()[0] in printed
    expected = {"benchmark": name} if shown["kind"] == "benchmark" else None
    assert yaml.safe_load(printed) == expected


def test_show_json_gives_types_choices_and_bounds() -> None:
    shown = unsee("show", "vkd", "--json")
    assert shown["kind"] == "method"
    assert shown["fields"]["erase"] == "anonymous"
    assert "arXiv" in shown["source"]
    assert set(shown["schema"]) == set(shown["fields"])
    erase = shown["schema"]["erase"]
    assert erase["choices"] == ["anonymous", "stranger", "neutral", "push"]
    assert erase["type"] == "string"
    assert erase["description"]
    strength = shown["schema"]["erase_strength"]
    assert [strength[k] for k in ("type", "default", "exclusiveMinimum")] == ["number", 2.0, 0]
    assert shown["schema"]["cache"]["type"] == "string or null"
    assert shown["schema"]["train_layers"]["type"] == "list of strings"
    assert shown["presets"]["robust"]["steps"] == 400
    workers = unsee("show", "settings", "--json")["schema"]["workers"]
    assert (workers["type"], workers["choices"]) == ("string or integer", ["auto"])


@pytest.mark.parametrize("name", [*METHODS.names(), *ATTACKS.names(), "settings", "finetune"])
def test_show_json_describes_every_field(name: str) -> None:
    for field, schema in unsee("show", name, "--json")["schema"].items():
        assert schema["type"] != "object", field
        if field != "trains":
            assert schema.get("description"), field


def test_show_says_what_is_allowed() -> None:
    printed = unsee("show", "vkd")
    assert "  erase: anonymous  # anonymous, stranger, neutral, push" in printed
    assert "  erase_strength: 2.0  # number, above 0" in printed
    assert "  cache: null  # string or null" in printed
    assert "  train_layers: [all]  # list of strings" in printed
    assert "  workers: auto  # auto or integer, at least 0" in unsee("show", "settings")


def test_show_unknown_name_suggests_the_nearest() -> None:
    assert "Did you mean 'vkd'" in unsee("show", "vkdd", code=2)


@pytest.mark.parametrize("name", METHODS.names())
def test_show_method_prints_every_value_as_it_is_typed(name: str) -> None:
    """Each line can be pasted into a recipe, and after --set, and changes nothing."""
    default = make_recipe({"method": name})
    for kind in (name, "settings"):
        for line in unsee("show", kind).splitlines():
            if not line.startswith("  "):
                continue
            field, _, value = line.partition("  # ")[0].strip().partition(": ")
            for recipe in (
                make_recipe({"method": name, "set": {field: parse(value, field)}}),
                make_recipe({"method": name}, parse_overrides([f"{field}={value}"])),
            ):
                assert recipe.method == default.method, line
                if kind == name:
                    assert recipe.training == default.training, line


def test_show_recipe_prints_a_recipe() -> None:
    printed = unsee("show", "recipe")
    assert make_recipe(parse(printed, "x")) == make_recipe()
    pasted = [
        line.partition("  # ")[0].replace(": ", "=", 1)
        for line in printed.splitlines()
        if not line.startswith("#")
    ]
    assert make_recipe({}, parse_overrides(pasted)) == make_recipe()
