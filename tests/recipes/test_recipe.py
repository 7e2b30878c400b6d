"""Recipes: what is allowed, and how everything else is told."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import pytest
import yaml

from unsee.attacks import ATTACKS
from unsee.attacks.suites import STANDARD
from unsee.errors import ConfigError
from unsee.methods import METHODS
from unsee.recipes.benchmark_defaults import benchmark_fields
from unsee.recipes.catalog import SHIPPED, find_recipe, shipped_recipes
from unsee.recipes.components import attack_entry, build_chains, build_method, build_settings
from unsee.recipes.evaluate import read_evaluation
from unsee.recipes.finetune import read_finetune
from unsee.recipes.parsing import parse_overrides, validate
from unsee.recipes.unlearn import make_recipe, read_recipe

RECIPES = [path for path in sorted(SHIPPED.glob("*.yaml")) if not path.name.startswith("finetune-")]


def test_overrides_are_read_as_people_mean_them() -> None:
    found = parse_overrides(["lr=1e-4", "steps=3", "flag=true", "layers=[encoder.1, projector]"])
    assert found == {"lr": 1e-4, "steps": 3, "flag": True, "layers": ["encoder.1", "projector"]}
    assert parse_overrides(["output=npo", "base=a=b"]) == {"output": "npo", "base": "a=b"}
    for bad in ("lr", "=3", "lr=[1"):
        with pytest.raises(ConfigError, match="lr|=3"):
            parse_overrides([bad])


def test_a_plain_no_is_no() -> None:
    """What YAML takes for false, and a refusal tells people to type."""
    for word in ("no", "fp32"):
        typed = parse_overrides([f"precision={word}"])
        assert build_settings("vkd", typed).precision == word
    with pytest.raises(ConfigError, match="'no', 'bf16', 'fp16' or 'fp32'"):
        build_settings("vkd", parse_overrides(["precision=yes"]))


def test_fields_go_to_method_or_training_and_defaults_come_from_the_method() -> None:
    recipe = make_recipe({"method": "vkd", "seed": 3}, {"w_keep": 7, "lr": 1e-3, "seed": 5})
    method, settings, attacks = recipe.method, recipe.training, recipe.attacks
    assert method.w_keep == 7.0  # type: ignore[attr-defined]
    assert settings.lr == 1e-3
    assert settings.seed == 5
    assert settings.steps == type(method).defaults["steps"]
    assert attacks == ()
    assert build_settings("vkd", {}).steps == type(method).defaults["steps"]


def test_a_preset_stands_for_fields_and_settings_and_yields_to_those_given() -> None:
    preset = METHODS.get("vkd").presets["robust"]
    recipe = make_recipe({"set": {"robust": True}})
    method, settings, default = recipe.method, recipe.training, make_recipe()
    assert method.relearn_steps == preset["relearn_steps"]  # type: ignore[attr-defined]
    assert method.relearn_steps != default.method.relearn_steps  # type: ignore[attr-defined]
    assert settings.lr == preset["lr"] != default.training.lr
    assert recipe.fixed == {"robust", *preset} and default.fixed == set()
    recipe = make_recipe({"set": {"robust": True, "relearn_steps": 2, "steps": 7}})
    assert (recipe.method.relearn_steps, recipe.training.steps) == (2, 7)  # type: ignore[attr-defined]
    assert make_recipe({"set": {"robust": False}}) == make_recipe()
    with pytest.raises(ConfigError, match="robust='yes' is not allowed: type robust=true"):
        make_recipe({"set": {"robust": "yes"}})


def test_one_layer_needs_no_brackets() -> None:
    method = build_method("vkd", {"train_layers": "projector"})
    assert method.train_layers == ("projector",)  # type: ignore[attr-defined]


def test_max_new_tokens_is_part_of_the_identity_only_where_it_is_given() -> None:
    assert "max_new_tokens" not in make_recipe().identity()
    assert "max_new_tokens: 82" in make_recipe({"max_new_tokens": 82}).identity()
    with pytest.raises(ConfigError, match="max_new_tokens"):
        make_recipe({"max_new_tokens": 0})


def test_every_mistake_is_told_at_once() -> None:
    with pytest.raises(ConfigError) as caught:
        make_recipe(
            {"method": "vkd", "attacks": [{"share": 7}]}, {"lrr": 1, "steps": -1, "erase": "strngr"}
        )
    text = str(caught.value)
    assert "unknown field of vkd 'lrr'. Did you mean 'lr'?" in text
    assert "steps=-1" in text
    assert "'stranger', 'neutral' or 'push'" in text
    assert "share=7" in text


def test_attacks_of_a_recipe_are_typed_as_after_attack_or_as_mappings() -> None:
    typed = make_recipe({"attacks": ["relearn?share=0.2&steps=5", "quantize?bits=3+relearn"]})
    mapped = make_recipe(
        {"attacks": [{"share": 0.2, "steps": 5}, {"attack": "quantize?bits=3+relearn"}]}
    )
    assert typed == mapped
    assert make_recipe({"attacks": "relearn?share=0.2"}) == make_recipe(
        {"attacks": [{"share": 0.2}]}
    )
    with pytest.raises(ConfigError, match="attacks: 3 is not allowed"):
        make_recipe({"attacks": [3]})


def test_rename_fields_old_name_still_works_and_warns() -> None:
    @dataclass(frozen=True)
    class Fields:
        aliases: ClassVar[dict[str, str]] = {"colour": "color"}
        color: str = "red"

    with pytest.warns(FutureWarning, match="'colour' is now called 'color'"):
        assert validate(Fields, {"colour": "blue"}).color == "blue"
    with pytest.raises(ConfigError, match="colour is the old name of color, and both are given"):
        validate(Fields, {"colour": "blue", "color": "green"})


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"method": "vkdd"}, "unknown method 'vkdd'. Did you mean 'vkd'"),
        ({"methd": "vkd"}, "unknown field of recipe 'methd'. Did you mean 'method'"),
        ({"save": "zip"}, "'patch', 'model' or 'adapter'"),
        ({"seed": "x"}, "seed='x'"),
    ],
)
def test_wrong_keys(content: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make_recipe(content, {})


def test_published_rules_are_refused_for_data_of_ones_own() -> None:
    """The metrics' own rules score it in either case, so "own" is true and "published" is not."""
    assert make_recipe({"forget": "photos", "rules": "own"}).rules == "own"
    with pytest.raises(ConfigError, match="rules=published scores a benchmark's own questions"):
        make_recipe({"forget": "photos", "rules": "published"})
    with pytest.raises(ConfigError, match="the samples are of no benchmark"):
        benchmark_fields(None, {}, "published")


def test_attacks_are_checked() -> None:
    ((relearn,),) = build_chains(["relearn"], {"share": 0.5})
    assert relearn.share == 0.5
    with pytest.raises(ConfigError, match="Did you mean 'share'"):
        build_chains(["relearn"], {"shar": 0.5})
    with pytest.raises(ConfigError, match="unknown attack 'relern'"):
        build_chains(["relern"])
    with pytest.raises(ConfigError, match="bits"):
        build_chains(["quantize?bits=9"])


def test_standard_suite_is_every_attack_and_no_part_of_a_chain() -> None:
    chains = build_chains(["standard"], {"quantize.scheme": "rtn"}, seed=3)
    assert {chain[0].name for chain in chains} == set(ATTACKS.names())
    assert all(len(chain) == 1 for chain in chains) and len(chains) == len(STANDARD)
    assert {getattr(chain[0], "seed", 3) for chain in chains} == {3}
    recipe = make_recipe({"attacks": "standard", "seed": 3})
    assert tuple(recipe.attacks) == tuple(build_chains(["standard"], seed=3))
    assert attack_entry("standard") == {"attack": "standard"}
    for typed in ("standard?seed=1", "quantize+standard", "standard+jailbreak"):
        with pytest.raises(ConfigError, match="'standard' is a suite of attacks"):
            build_chains([typed])
    with pytest.raises(ConfigError, match="so steps would have no effect"):
        build_chains(["standard"], {"steps": 3})


def test_attacks_are_composed_as_they_are_typed() -> None:
    chains = build_chains(
        ["quantize?bits=8", "quantize+relearn"], {"relearn.steps": 3, "seed": 5, "bits": 2}
    )
    assert [[a.name for a in chain] for chain in chains] == [["quantize"], ["quantize", "relearn"]]
    # What is typed with the attack stands above what is set for all.
    assert [chain[0].bits for chain in chains] == [8, 2]
    assert (chains[1][1].steps, chains[1][1].seed) == (3, 5)
    assert {chain[0].name for chain in build_chains(["all"])} == set(ATTACKS.names())
    recipe = make_recipe(
        {"attacks": ({"attack": "quantize+jailbreak", "bits": 3}, {"share": 0.1}), "seed": 4}
    )
    first, second = recipe.attacks
    assert first[0].bits == 3
    assert (second[0].share, second[0].seed) == (0.1, 4)


def test_unreadable_recipes(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no such file"):
        read_recipe(tmp_path / "none.yaml")
    (tmp_path / "bad.yaml").write_text("a: [")
    with pytest.raises(ConfigError, match="cannot be read as YAML"):
        read_recipe(tmp_path / "bad.yaml")
    (tmp_path / "list.yaml").write_text("- a")
    with pytest.raises(ConfigError, match="keys with values"):
        read_recipe(tmp_path / "list.yaml")


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_shipped_recipes_are_valid_and_say_how_to_run_them(path: Path) -> None:
    assert path.read_text().startswith(f"# unsee run {path.stem}\n")
    recipe = read_recipe(path)
    assert recipe == make_recipe(yaml.safe_load(recipe.text("unsee run x")), {})


def test_there_are_recipes() -> None:
    assert len(RECIPES) >= 6


def test_find_recipe_takes_a_file_or_a_shipped_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name, path in shipped_recipes().items():
        assert find_recipe(name) == find_recipe(path) == path
    # A name that holds a dot, in a folder of the shipped ones.
    assert find_recipe("mllmu-5-llava-1.5-7b").parent.name == "published"
    own = Path("pocket-vkd")
    own.write_text("method: npo")
    assert find_recipe("pocket-vkd") == own
    assert read_recipe(own).method.name == "npo"


def test_find_recipe_takes_the_old_paths_with_a_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for old in ("recipes/pocket-vkd.yaml", "recipes/published/mllmu-5-llava-1.5-7b.yaml"):
        with pytest.warns(FutureWarning, match=f"type {Path(old).stem}"):
            path = find_recipe(old)
        assert path == SHIPPED / Path(old).relative_to("recipes")
    Path("recipes").mkdir()
    Path("recipes/pocket-vkd.yaml").write_text("method: npo")
    assert find_recipe("recipes/pocket-vkd.yaml") == Path("recipes/pocket-vkd.yaml")


def test_find_recipe_suggests_the_nearest_name() -> None:
    with pytest.raises(ConfigError, match="no such file, .* Did you mean 'pocket-vkd'"):
        find_recipe("pocket-vdk")


# A value of another kind for each kind of field, and what the message says is allowed.
ODD: list[tuple[str, object, str]] = [
    ("lr", "1e-4x", "a number"), ("lr", "0.1", "a number"), ("lr", None, "a number"),
    ("lr", [1], "a number"), ("lr", {"a": 1}, "a number"), ("lr", True, "a number"),
    ("lr", float("inf"), "a finite number"), ("steps", 1.5, "a whole number"),
    ("steps", "5", "a number"), ("steps", 2**70, "at most"), ("steps", None, "a whole number"),
    ("checkpointing", "yes", "true or false"), ("checkpointing", 1, "true or false"),
    ("checkpointing", None, "true or false"), ("offload", 5, "text"), ("offload", ["a"], "text"),
    ("offload", "None", "type offload=null"), ("cache", "None", "type cache=null"),
    ("train_layers", 5, "a list"), ("train_layers", None, "a list"),
    ("train_layers", [5], "text"),
    ("train_layers", {"a": 1}, "a list"), ("erase", 5, "'anonymous'"),
    ("erase", None, "'anonymous'"),
    ("precision", True, "'no', 'bf16'"), ("model", 5, "text"), ("model", ["a"], "text"),
    ("model", {"a": 1}, "text"), ("model", "x" * 5000, "at most 4,096 characters"),
    ("model", "a\0b", "without NUL"), ("forget", "None", "type forget=null"),
    ("forget_ratio", True, "text"), ("forget_ratio", [5], "text"), ("seed", "0", "a number"),
    ("seed", None, "a whole number"), ("names", "yes", "true or false"), ("save", [], "'patch'"),
    ("benchmark", None, "text"), ("method", 5, "type a name"), ("method", None, "type a name"),
    ("method", ["vkd"], "type a name"), ("attacks", 5, "give text"), ("attacks", True, "give text"),
    ("attacks", [None], "give text"), ("attacks", [{"attack": 5}], "type a name"),
    ("attacks", [{"share": "0.2"}], "a number"), ("attacks", ["relearn?share=1&share=1"], "twice"),
    ("set", 5, "give fields"), ("set", [], "give fields"), ("set", "", "give fields"),
    ("set", False, "give fields"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("name", "value", "allowed"), ODD, ids=[f"{n}-{v!s:.12}" for n, v, _ in ODD]
)
def test_make_recipe_names_the_field_and_what_is_allowed(
    name: str, value: object, allowed: str
) -> None:
    content = {"set": value} if name == "set" else {}
    with pytest.raises(ConfigError, match=allowed) as caught:
        make_recipe(content, {} if content else {name: value})
    message = str(caught.value)
    assert len(message) < 500
    assert name in message or allowed in message


def test_make_recipe_takes_whole_numbers_as_they_are_typed() -> None:
    recipe = make_recipe({}, {"steps": 1e2, "lr": 1, "forget_ratio": 5, "precision": False})
    assert (recipe.training.steps, recipe.training.lr) == (100, 1.0)
    assert (recipe.forget_ratio, recipe.training.precision) == ("5", "no")


def test_make_recipe_refuses_two_sources_of_data() -> None:
    own = {"model": "m", "forget": "photos"}
    for extra in ({"data": "d"}, {"forget_ratio": "5"}, {"shots": 0}, {"benchmark": "mllmu"}):
        with pytest.raises(ConfigError, match=f"{next(iter(extra))}= says which data"):
            make_recipe({**own, **extra})
    # As releases before wrote it.
    old = make_recipe({**own, "benchmark": "pocket", "data": None})
    assert old == make_recipe(own)
    written = yaml.safe_load(old.text("x"))
    assert not {"benchmark", "data", "forget_ratio", "shots"} & set(written)
    assert make_recipe(written) == old


@pytest.mark.parametrize("value", ["true", "yes", "1", "[x]"])
def test_trust_remote_code_of_a_recipe_needs_the_flag(tmp_path: Path, value: str) -> None:
    path = tmp_path / "r.yaml"
    path.write_text(f"trust_remote_code: {value}\n")
    for read in (read_recipe, read_finetune, read_evaluation):
        with pytest.raises(ConfigError, match="type --trust-remote-code too"):
            read(path)
    path.write_text("trust_remote_code: true\nmodel: m\n")
    assert read_recipe(path, ["trust_remote_code=true"]).trust_remote_code
    assert not read_recipe(path, ["trust_remote_code=false"]).trust_remote_code
    assert read_evaluation(path, trusted=True).trust_remote_code
    path.write_text("trust_remote_code: false\n")
    assert not read_recipe(path).trust_remote_code


def test_make_recipe_names_a_field_of_an_attack_that_is_no_text() -> None:
    with pytest.raises(ConfigError, match=r"unknown field of relearn '5'.*Allowed: .*share"):
        make_recipe({"method": "vkd", "attacks": [{"attack": "relearn", 5: 1}]})
