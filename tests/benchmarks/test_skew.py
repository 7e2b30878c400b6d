"""Skewed requests: who is drawn, where the others go, and what is refused."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from support.cli import unsee
from support.published import open_benchmark
from unsee.benchmarks import BENCHMARKS
from unsee.benchmarks.skew import Skew, SkewedBenchmark, declares_attributes, draw
from unsee.errors import ConfigError, UnknownNameError
from unsee.recipes.plan import plan
from unsee.recipes.specs import parse_spec
from unsee.recipes.unlearn import make_recipe

GENDERS = ("f", "f", "m", "m", "f", "m")


@pytest.fixture
def fiubench(copied: dict[str, Path]) -> Path:
    """FIUBench whose forget10 are two women and two men."""
    place = copied["fiubench"]
    people = [json.loads(line) for line in (place / "full.json").read_text().splitlines()]
    for index, person in enumerate(people):
        person["gender"] = GENDERS[index]
        person["raw_data"] = {"age": 20 + 10 * index, "mail": ["x"], "Job": "baker"}
    (place / "full.json").write_text("".join(f"{json.dumps(p)}\n" for p in people))
    split = json.loads((place / "split.json").read_text())
    split |= {"forget10": ["u0", "u1", "u2", "u3"], "retain15": ["u4"]}
    (place / "split.json").write_text(json.dumps(split))
    return place


def opened(place: Path, skew: str) -> Any:
    spec = parse_spec(f"fiubench@{place}?ratio=10&skew={skew}")
    assert spec is not None
    return spec.open()


def test_draw_takes_the_share_and_the_most_people_that_it_allows() -> None:
    groups = {f"w{i}": "f" for i in range(4)} | {f"m{i}": "not f" for i in range(6)}
    people = draw(Skew("gender", "f", 0.8), groups, groups)
    # 4 women of 5 people are 80 %; a sixth would need a fifth woman.
    assert Counter(groups[who] for who in people) == {"f": 4, "not f": 1}
    assert people == draw(Skew("gender", "f", 0.8), groups, reversed(list(groups)))
    some = draw(Skew("gender", "f", 0.25, 4), groups, groups)
    assert Counter(groups[who] for who in some) == {"f": 1, "not f": 3}
    assert draw(Skew("gender", "f", 1.0), groups, groups) == {"w0", "w1", "w2", "w3"}


def test_draw_says_how_many_there_are() -> None:
    groups = {"a": "f", "b": "f", "c": "not f"}
    with pytest.raises(ConfigError) as caught:
        draw(Skew("gender", "f", 0.8, 10), groups, groups, "fiubench")
    assert "the forget set of fiubench has 2 people with gender=f and 1 others" in str(caught.value)
    assert "type gender=f:0.8:3" in str(caught.value)


@pytest.mark.parametrize(
    "text", ["", "gender=", "gender=f", "=f:0.8", "gender=f:2", "gender=f:0", "gender=f:0.5:0"]
)
def test_skew_refuses_what_it_cannot_read(text: str) -> None:
    with pytest.raises(ConfigError, match=r"skew=.* is not allowed.*gender=female:0.8"):
        Skew.parse(text)


def test_skew_reads_ranges_of_numbers_and_of_years() -> None:
    ages = Skew.parse("age=20-39:0.5")
    assert [ages.group(v) for v in ("20", "39 years", "40", "unknown")] == [
        "20-39",
        "20-39",
        "not 20-39",
        "not 20-39",
    ]
    born = Skew.parse("born=1990-1999:0.5")
    assert [born.group(v) for v in ("12/05/1994", "1989")] == ["1990-1999", "not 1990-1999"]
    assert Skew.parse("gender=Female:0.8").group("female ") == "Female"


def test_skewed_benchmark_moves_those_who_were_not_drawn(fiubench: Path) -> None:
    whole = parse_spec(f"fiubench@{fiubench}?ratio=10").open()  # type: ignore[union-attr]
    benchmark = opened(fiubench, "gender=f:0.67")
    # Two women of three people: the most that the share allows.
    assert Counter(GENDERS[int(who[1])] for who in benchmark.drawn) == {"f": 2, "m": 1}
    data, before = benchmark.data(), whole.data()
    assert {s.concept for s in data.forget} == benchmark.drawn
    assert len(data.forget) + len(data.retain) == len(before.forget) + len(before.retain)
    (moved,) = {s.concept for s in before.forget} - benchmark.drawn
    for split, samples in (("retain", benchmark.load("retain")), ("training", data.retain)):
        assert moved in {s.concept for s in samples}, split
        assert len({s.id for s in samples}) == len(samples)
    assert {s.population for s in benchmark.load("forget")} == {"f", "not f"}
    assert {s.concept for s in benchmark.load("forget")} == benchmark.drawn
    # A moved question and its paraphrases stay one group, whose name is the question's id.
    asked = [s for s in benchmark.load("retain") if s.concept == moved]
    assert {s.group for s in asked} == {f"kept/{moved}/0"}
    assert f"kept/{moved}/0" in {s.id for s in asked}
    held = benchmark.held_out()
    assert {s.concept for s in held["forget_holdout"]} == benchmark.drawn
    assert moved in {s.concept for s in held["retain_holdout"]}
    assert benchmark.metadata()["skew"] == {"attribute": "gender", "drawn": {"f": 2, "not f": 1}}
    assert benchmark.metadata()["forgotten"] == 3


def test_skewed_benchmark_teaches_the_others_to_the_retain_only_model(fiubench: Path) -> None:
    benchmark = opened(fiubench, "gender=f:1.0:1")
    for who in ("visual_retain", "retain_only"):
        people = {s.concept for s in benchmark.training_samples(who)}
        assert people == {f"u{i}" for i in range(6)} - benchmark.drawn
    assert {s.concept for s in benchmark.training_samples("target")} >= benchmark.drawn


def test_skew_by_attribute_alone_draws_nobody(fiubench: Path) -> None:
    benchmark = opened(fiubench, "Gender")
    assert benchmark.drawn == {"u0", "u1", "u2", "u3"}
    assert {s.population for s in benchmark.load("forget")} == {"f", "m"}
    assert {s.population for s in benchmark.load("retain")} == {"f"}


def test_skew_names_the_attributes_and_values_there_are(fiubench: Path) -> None:
    with pytest.raises(UnknownNameError) as caught:
        opened(fiubench, "gendre=f:0.8")
    assert "unknown attribute of fiubench 'gendre'. Did you mean 'gender'?" in str(caught.value)
    assert "Allowed: Job, age, gender." in str(caught.value)
    with pytest.raises(UnknownNameError, match=r"value of gender 'x'.*Allowed: f \(3\), m \(3\)"):
        opened(fiubench, "gender=x:0.8")


def test_skew_names_the_benchmarks_with_attributes(places: dict[str, Path]) -> None:
    with pytest.raises(ConfigError) as caught:
        SkewedBenchmark(open_benchmark(places, "clear"), Skew.parse("gender=f:0.8"))
    assert "clear declares no attributes of its people" in str(caught.value)
    for name in declares_attributes():
        assert name in str(caught.value)


@pytest.mark.parametrize("name", declares_attributes())
def test_attributes_are_of_the_people_of_the_forget_set(name: str, places: dict[str, Path]) -> None:
    kind = BENCHMARKS.get(name)
    benchmark = kind.open(places[name]) if name in places else kind.open()
    people = benchmark.attributes()
    assert {s.concept for s in benchmark.data().forget} <= set(people)
    for fields in people.values():
        assert all(isinstance(value, str) and value for value in fields.values())
        assert "name" not in {field.lower() for field in fields}


def test_recipe_with_a_skew_plans_its_request(fiubench: Path, tiny_folder: Path) -> None:
    values = {"benchmark": "fiubench", "data": str(fiubench), "model": str(tiny_folder)}
    plain = make_recipe({**values, "forget_ratio": 10})
    recipe = make_recipe({**values, "forget_ratio": 10}, {"skew": "gender=f:0.67"})
    job, _ = plan(recipe, "run", "x")
    assert len({s.concept for s in job.data.forget}) == 3
    assert "parity_gap" in job.metrics
    assert job.better["forget/vqa/parity_gap"] == "lower"
    assert job.benchmark is not None and job.benchmark["skew"]["drawn"] == {"f": 2, "not f": 1}
    # The identity of recipes without the option is that of earlier versions.
    assert "\nskew:" not in plain.identity()
    assert "skew: gender=f:0.67" in recipe.identity()
    with pytest.raises(ConfigError, match="forget= names data of your own, and skew="):
        make_recipe({"forget": "photos", "model": "m", "skew": "gender=f:0.8"})


def test_commands_take_a_skew_and_measure_the_gap(
    fiubench: Path, tiny_folder: Path, tmp_path: Path
) -> None:
    spec = f"fiubench@{fiubench}?ratio=10&skew=gender=f:0.67"
    output = unsee("data", "check", spec)
    assert "forget: 12 samples (12 vqa/generation), 3 people" in output
    assert "Requests can be drawn by (skew=): Job (baker: 6); age (" in output
    assert "Asks to be forgotten, by gender: 2 f, 1 not f." in output
    found = unsee(
        "evaluate",
        "--model",
        tiny_folder,
        "--data",
        spec.replace("fiubench@", "fiubench:forget@"),
        "--metrics",
        "parity_gap",
        "--max-new-tokens",
        2,
        "--out",
        tmp_path / "run",
        "--json",
    )
    gap = found["measures"]["forget/vqa/parity_gap"]
    assert gap["better"] == "lower"
    assert gap["n"] + gap["n_unscored"] == 12
    assert found["benchmark"]["skew"]["attribute"] == "gender"
