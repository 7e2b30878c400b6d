"""Resuming: the same command gives the same folder, and old recipes still mean the same."""

from __future__ import annotations

from dataclasses import replace

import pytest

from unsee.attacks import label
from unsee.recipes.components import build_chains, chain_text
from unsee.recipes.evaluate import EvaluationRequest, TaskSelection, make_evaluation
from unsee.recipes.finetune import make_finetune
from unsee.recipes.resume import same_recipe
from unsee.recipes.unlearn import default_out, demo_recipe, make_recipe

# What an audit of release 0.1 wrote as its recipe.
LITERAL = """\
# unsee audit --model DIR
model: 'DIR'
paths: {'forget': 'forget.jsonl'}
references: {'reference': 'REF'}
attacks: [{'quantize+jailbreak': [{'bits': 3, 'scheme': 'rtn', 'modules': 'all'}, \
{'styles': ('role_play',), 'retain': None}]}]
"""


@pytest.mark.parametrize(
    ("content", "folder"),
    [
        (
            {
                "method": "vkd",
                "attacks": [
                    {"share": 0.1, "modules": "visual"},
                    {"attack": "quantize+jailbreak", "bits": 3},
                ],
                "set": {"lr": 1e-3, "robust": True, "train_layers": ["projector"]},
                "seed": 4,
            },
            "runs/x-vkd-37ef1b5a",
        ),
        (
            {
                "method": "npo",
                "benchmark": "mllmu",
                "data": "DIR",
                "forget_ratio": 5,
                "shots": 0,
                "model": "M",
                "reference": "R",
            },
            "runs/x-npo-7833828b",
        ),
    ],
)
def test_default_out_is_the_folder_of_release_0_1(content: dict[str, object], folder: str) -> None:
    assert str(default_out("x", make_recipe(content))) == folder


def test_same_recipe_ignores_the_command_and_reads_old_names() -> None:
    recipe = make_recipe({"method": "npo", "forget_ratio": "5", "attacks": [{"share": 0.1}]})
    stored = recipe.text("unsee run a.yaml").replace("forget_ratio:", "ratio:")
    assert same_recipe(stored, recipe.text("unsee run b.yaml"))
    typed = recipe.override({"attacks": ["relearn?share=0.1"]})
    assert same_recipe(stored, typed.text(""))
    assert not same_recipe(stored, recipe.override({"lr": 1.0}).text(""))
    assert not same_recipe("# unsee\n- no recipe\n", recipe.text(""))


def test_same_recipe_compares_finetuning_recipes() -> None:
    recipe = make_finetune({"benchmark": "mllmu", "model": "M", "forget_ratio": 5})
    stored = recipe.text("a").replace("forget_ratio:", "ratio:")
    assert same_recipe(stored, recipe.text("b"))
    assert not same_recipe(stored, replace(recipe, forget_ratio="10").text("b"))


def test_same_recipe_reads_the_evaluations_of_release_0_1() -> None:
    chain = build_chains(["quantize?bits=3+jailbreak?styles=[role_play]"])[0]
    names = {f for attack in chain for f in vars(attack)}
    stored = LITERAL if "retain" in names else LITERAL.replace(", 'retain': None", "")
    request = EvaluationRequest(
        model="DIR",
        splits={"forget": "forget.jsonl"},
        references={"reference": "REF"},
        attacks=(chain,),
        retain="others.jsonl",
    )
    assert same_recipe(stored, request.text("unsee audit"))
    assert not same_recipe(stored, replace(request, model="OTHER").text(""))


def test_evaluation_text_is_yaml_that_gives_the_same_request() -> None:
    request = EvaluationRequest(
        model="DIR",
        splits={"forget": "pocket:forget"},
        metrics=("accuracy",),
        tasks=TaskSelection(("mmstar",), limit=3),
        attacks=tuple(build_chains(["relearn?share=0.1+quantize", "jailbreak"])),
    )
    assert make_evaluation(request.values()) == request
    assert request.text("unsee audit --model DIR").startswith("# unsee audit --model DIR\nmodel:")


@pytest.mark.parametrize("recipe", [demo_recipe(3), make_recipe({"set": {"robust": True}})])
def test_recipe_values_give_the_same_recipe(recipe: object) -> None:
    from unsee.recipes.unlearn import Recipe

    assert isinstance(recipe, Recipe)
    assert make_recipe(recipe.values()) == recipe
    seeded = recipe.override({"seed": 7})
    assert (seeded.seed, seeded.training.seed) == (7, 7)


def test_recipe_values_state_what_was_replaced() -> None:
    recipe = make_recipe({"set": {"lr": 1e-3}})
    changed = replace(recipe, training=replace(recipe.training, steps=3))
    assert changed.values()["set"] == {"lr": 1e-3, "steps": 3}
    assert make_recipe(changed.values()) == changed


def test_chain_text_is_read_back_for_every_attack() -> None:
    chains = build_chains(["all", "quantize?bits=3+relearn?checkpoints=[0, 2]"])
    for chain in chains:
        assert build_chains([chain_text(chain)]) == [chain], label(chain)
