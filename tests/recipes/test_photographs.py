"""Plans of runs that are given photographs alone: what is held out, asked and attacked."""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from support.encoders import make_encoder
from unsee.errors import ConfigError
from unsee.evaluation.open_answers import QUESTIONS
from unsee.methods.vkd import VKD
from unsee.methods.vkd.presets import ENCODERS
from unsee.recipes.job import Job
from unsee.recipes.photographs import open_questions
from unsee.recipes.plan import plan
from unsee.recipes.unlearn import make_recipe


def photographs(folder: Path, **people: int) -> Path:
    """A folder with a subfolder a person, of as many different pictures."""
    rng = np.random.default_rng(list(folder.name.encode()))
    for person, count in people.items():
        (folder / person).mkdir(parents=True)
        for number in range(count):
            pixels = rng.integers(0, 255, (24, 24, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / person / f"{number}.png")
    return folder


def planned(model: Path, forget: Path, **values: object) -> tuple[Job, list[str]]:
    recipe = make_recipe({"model": str(model), "forget": str(forget), **values})
    return plan(recipe, "unlearn", "unsee unlearn")


def test_plan_holds_out_photographs_of_people_who_have_enough(
    tiny_folder: Path, tmp_path: Path
) -> None:
    job, notes = planned(tiny_folder, photographs(tmp_path / "forget", ada=10, bo=3))
    held = job.splits["forget_holdout"]
    assert [s.concept for s in held] == ["ada", "ada"]
    assert len(job.data.forget) == 11
    assert not {s.id for s in held} & {s.id for s in job.data.forget}
    assert job.open_questions == QUESTIONS
    assert "2 photographs of those to be forgotten are kept out of training" in " ".join(notes)
    assert "fewer than 4 photographs of bo: this person is tested on" in " ".join(notes)


def test_plan_holds_out_nothing_where_the_share_is_zero(tiny_folder: Path, tmp_path: Path) -> None:
    forget = photographs(tmp_path / "forget", ada=8)
    job, notes = planned(tiny_folder, forget, holdout_share=0)
    assert len(job.data.forget) == 8
    assert not job.splits
    assert "holdout_share is 0" in " ".join(notes)


def test_plan_leaves_out_attacks_that_need_more_than_photographs(
    tiny_folder: Path, tmp_path: Path
) -> None:
    forget = photographs(tmp_path / "forget", ada=5)
    attacks = ["relearn?share=1", "quantize", "prototype", "difference?against=[kept,strangers]"]
    alone, notes = planned(tiny_folder, forget, attacks=attacks)
    assert not alone.attacks
    assert "attack relearn is not made: true answers are missing. With --forget, give" in "".join(
        notes
    )
    assert "two people who are kept" in alone.attacks_left_out["prototype"]
    retain = photographs(tmp_path / "retain", bo=5, cy=5)
    beside, _ = planned(tiny_folder, forget, attacks=attacks, retain=str(retain))
    assert [chain[0].name for chain in beside.attacks] == ["prototype"]
    assert sorted(beside.attacks_left_out) == ["difference", "quantize", "relearn"]
    assert beside.attacks_left_out["quantize"] == beside.attacks_left_out["relearn"]
    assert "Give them with --strangers" in beside.attacks_left_out["difference"]
    strangers = photographs(tmp_path / "strangers", dee=2, eve=2)
    beside, _ = planned(
        tiny_folder, forget, attacks=attacks, retain=str(retain), strangers=str(strangers)
    )
    assert [chain[0].name for chain in beside.attacks] == ["prototype", "difference"]
    assert [s.concept for s in beside.attacker.non_members] == ["dee", "dee", "eve", "eve"]


@pytest.mark.parametrize("ask", [("",), ("Who?", "Who?"), ("none", "Who?")])
def test_open_questions_are_refused_if_one_says_nothing(ask: tuple[str, ...]) -> None:
    with pytest.raises(ConfigError, match="Give different questions"):
        open_questions(ask)


def test_recipe_takes_one_question_or_several_and_survives_its_own_text() -> None:
    one = make_recipe({"forget": "photos", "model": "m", "ask": "Wer ist das?"})
    assert one.ask == ("Wer ist das?",)
    assert make_recipe(one.values()) == one
    default = make_recipe({"forget": "photos", "model": "m"})
    assert "ask" not in default.identity()
    assert default.identity() != one.identity()


def test_plan_holds_out_no_copy_of_what_is_trained_on(tiny_folder: Path, tmp_path: Path) -> None:
    folder = photographs(tmp_path / "forget", ada=6)
    for path in sorted((folder / "ada").iterdir()):
        shutil.copy(path, path.with_name(f"copy of {path.name}"))
    job, _ = planned(tiny_folder, folder)
    trained = {s.picture.digest for s in job.data.forget if s.picture}
    tested = {s.picture.digest for s in job.splits["forget_holdout"] if s.picture}
    assert (len(trained) + len(tested), trained & tested) == (6, set())


@pytest.mark.parametrize(
    ("vision", "lr"),
    [
        ({"hidden_size": 1024}, 2.5e-4),
        ({"hidden_size": 3584, "embed_dim": 1280}, 2e-4),
        ({"hidden_size": 64}, 2e-3),
        ({}, 2.5e-4),
    ],
)
def test_plan_gives_wide_encoders_a_smaller_learning_rate(
    vision: dict[str, int], lr: float, tiny_folder: Path, tmp_path: Path
) -> None:
    model = tmp_path / "model"
    shutil.copytree(tiny_folder, model)
    config = json.loads((model / "config.json").read_text("utf-8"))
    config = {**config, "vision_config": vision}
    (model / "config.json").write_text(json.dumps(config), "utf-8")
    forget = photographs(tmp_path / "forget", ada=12, bo=12, cy=12)
    job, notes = planned(model, forget)
    assert job.settings.lr == lr
    assert any(f"lr={lr:g}" in note for note in notes) == (lr != 2e-3)
    for given in ({"lr": 0.01}, {"paper": True}):
        job, notes = planned(model, forget, set=given)
        assert job.settings.lr == given.get("lr", 5e-4)
        assert not any("lr=" in note for note in notes)


@pytest.mark.parametrize(("people", "lr"), [(("ada",), 6.7e-4), (("ada", "bo"), 1.3e-3)])
def test_plan_gives_few_people_a_smaller_learning_rate(
    people: tuple[str, ...], lr: float, tiny_folder: Path, tmp_path: Path
) -> None:
    forget = photographs(tmp_path / "forget", **dict.fromkeys(people, 12))
    job, notes = planned(tiny_folder, forget)
    assert job.settings.lr == lr
    assert f"lr={lr:g}, for so few people to forget, if not --set otherwise." in notes
    for given in ({"lr": 0.01}, {"paper": True}, {"scale_erase": False}):
        job, notes = planned(tiny_folder, forget, set=given)
        assert job.settings.lr == given.get("lr", 5e-4 if "paper" in given else 2e-3)
        assert not any("lr=" in note for note in notes)


def test_plan_takes_the_training_settings_that_suit_encoders(tmp_path: Path) -> None:
    forget = photographs(tmp_path / "forget", ada=12)
    model = make_encoder("clip", tmp_path / "model")
    job, notes = planned(model, forget)
    assert isinstance(job.method, VKD)
    assert {**asdict(job.settings), **asdict(job.method)}.items() >= {
        **ENCODERS,
        "population": "generated",
    }.items()
    assert any("erase_strength=1.0" in note for note in notes)
    job, _ = planned(model, forget, set={"robust": True, "steps": 7})
    assert isinstance(job.method, VKD)
    assert job.method.relearn_steps == 20 and job.settings.steps == 7
