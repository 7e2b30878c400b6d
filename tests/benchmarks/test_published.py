"""Rules for every published benchmark."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from support.published import WRITERS, open_benchmark
from unsee.benchmarks import BENCHMARKS, HELD_OUT
from unsee.benchmarks.published import Published
from unsee.errors import DataError
from unsee.evaluation.evaluate import evaluate
from unsee.metrics import METRICS
from unsee.models.vlm import VLM
from unsee.recipes.benchmark_defaults import forgotten, measure_directions
from unsee.types import Data

RATIOS = [(n, r) for n in WRITERS for r in (BENCHMARKS.get(n).ratios or (None,))]


def test_every_published_benchmark_has_a_writer() -> None:
    assert {n for n, b in BENCHMARKS.items() if issubclass(b, Published)} == set(WRITERS)


@pytest.mark.parametrize(("name", "ratio"), RATIOS)
def test_splits_are_complete_and_disjoint(
    places: dict[str, Path], name: str, ratio: str | None
) -> None:
    benchmark = open_benchmark(places, name, ratio=ratio)
    for split in benchmark.splits:
        samples = benchmark.load(split)
        assert len({s.id for s in samples}) == len(samples) > 0
        assert [s.id for s in open_benchmark(places, name, ratio=ratio).load(split)] == [
            s.id for s in samples
        ]
        assert all(s.question for s in samples)
    data = benchmark.data()
    people = [{s.concept for s in some if s.concept} for some in (data.forget, data.retain)]
    pictures = [{p.digest for p in some} for some in (data.forget_pictures, data.retain_pictures)]
    assert not pictures[0] & pictures[1]
    if name != "safeeraser":
        assert not people[0] & people[1]
    known = {
        who: benchmark.training_samples(who) for who in ("target", "visual_retain", "retain_only")
    }
    # SALMUBench's target knows its held-out pairs too, on which no method may train.
    kept = [s for s in benchmark.splits if name == "salmubench" and s.startswith("holdout")]
    others = sum(len(benchmark.load(split)) for split in kept)
    assert len(known["target"]) == len(data.forget) + len(data.retain) + others
    assert list(known["retain_only"]) == list(data.retain)
    seen = {s.picture.digest for s in known["visual_retain"] if s.picture is not None}
    assert not seen & pictures[0]
    facts = benchmark.metadata()
    assert facts["name"] == name
    assert facts["location"] == str(places[name])
    assert facts["ratio"] == benchmark.ratio
    assert facts["pictures"] == len(pictures[0]) + len(pictures[1])
    trained = {(s.question, s.picture.digest) for s in data.forget if s.picture is not None}
    for sample in benchmark.held_out().get("forget_holdout", ()):
        assert sample.picture is not None
        assert (sample.question, sample.picture.digest) not in trained


@pytest.mark.parametrize("name", WRITERS)
def test_measures_name_existing_splits_and_modalities(places: dict[str, Path], name: str) -> None:
    benchmark = open_benchmark(places, name)
    there = {(split, s.modality) for split in benchmark.splits for s in benchmark.load(split)}
    assert {(m.split, m.modality) for m in benchmark.measures} <= there


# Sets of samples, not samples, are what these judge.
@pytest.mark.parametrize("name", WRITERS)
def test_measures_name_registered_metrics(name: str) -> None:
    assert {m.metric for m in BENCHMARKS.get(name).measures} <= set(METRICS.names())


@pytest.mark.parametrize("name", BENCHMARKS.names())
def test_forgetting_and_relearning_name_existing_splits_and_metrics(name: str) -> None:
    kind = BENCHMARKS.get(name)
    unreported = {"forget_holdout", "forget_validation", "train_forget"}
    assert set(kind.forgetting) <= {*kind.splits, *unreported}
    assert {"forget", "train_forget"} <= set(kind.forgetting)
    assert set(kind.relearning) <= set(HELD_OUT)
    for how in kind.relearning.values():
        assert getattr(METRICS.get(how.metric), "against", "nothing") == "nothing"


def test_forgetting_splits_are_declared_and_not_guessed_from_names(tiny: VLM, data: Data) -> None:
    first = next(s for s in data.forget if s.task == "generation")
    asked = {"test": [replace(first, perturbed=("this is Bo Lind",))]}
    ratio = evaluate(tiny, asked, metrics=["truth_ratio"]).rows[0]["scores"]["truth_ratio"]
    found = {
        away: evaluate(tiny, asked, metrics=["truth_ratio"], forgetting=away).measures
        for away in (("test",), ("forget",), None)
    }
    values = {away: some["test/vqa/truth_ratio"].value for away, some in found.items()}
    assert values[("test",)] == pytest.approx(min(ratio, 1 / ratio))
    assert values[("forget",)] == values[None] == pytest.approx(max(0.0, 1 - ratio))
    paths = {"mine": "mllmu:test@D", "forget": "pocket:general_forget", "forget_own": "own.jsonl"}
    assert forgotten(paths) == ["mine", "forget_own"]


def test_measure_directions_of_held_out_splits_follow_the_benchmark() -> None:
    kind = BENCHMARKS.get("safeeraser")
    splits = ("forget", "harmless", "forget_holdout", "retain_holdout")
    found = measure_directions(splits, kind.forgetting, kind)  # type: ignore[arg-type]
    assert found["forget_holdout/vqa/refusal_rate"] == "higher"
    assert found["forget_holdout/vqa/attack_success"] == "lower"
    assert found["harmless/vqa/refusal_rate"] == "lower"
    assert found["retain_holdout/vqa/rouge_l"] == "higher"


@pytest.mark.parametrize("location", ["x" * 300, "~nobody/x/y", 5, "a/" * 3000])
def test_open_refuses_a_location_that_is_none(location: Any) -> None:
    with pytest.raises(DataError, match=r"^mllmu(:| at).*folder") as caught:
        BENCHMARKS.get("mllmu").open(location)
    assert len(str(caught.value)) < 500
