"""Measures and rows of an evaluation."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from unsee.errors import ConfigError
from unsee.evaluation.evaluate import evaluate
from unsee.evaluation.generation import answer_limit, answer_nlls, answers, generate
from unsee.metrics import reference_metrics
from unsee.metrics.letters import LETTER_RULES
from unsee.metrics.names import NAMING, People
from unsee.models.vlm import VLM
from unsee.types import Data, Sample


@pytest.fixture
def with_alternatives(data: Data) -> list[Sample]:
    """Questions with false answers."""
    return [
        replace(s, perturbed=("this is Bo Lind", "this is Cy Moser"), group=s.id)
        for s in data.forget
        if s.task == "generation"
    ]


def test_evaluate_measures_splits_and_modalities(tiny: VLM, data: Data) -> None:
    progress: list[tuple[int, int]] = []
    evaluation = evaluate(
        tiny,
        {"forget": data.forget, "retain": data.retain},
        better={"forget/vqa/accuracy": "reference"},
        on_batch=lambda done, total: progress.append((done, total)),
    )
    count = len(data.forget) + len(data.retain)
    assert progress[-1] == (count, count)
    assert len(evaluation.rows) == count
    measures = evaluation.measures
    assert measures["forget/vqa/accuracy"].better == "reference"
    assert measures["retain/text/accuracy"].better == "higher"
    # The random weights' answers have no end: what a cut answer leaves open is unscored.
    asked = [row for row in evaluation.rows if row["split"] == "forget"]
    scored = [row for row in asked if row["scores"]["accuracy"] is not None]
    assert len(asked) == len(data.forget) and len(scored) >= 9
    assert all(row["fault"] in ("cut", "empty") for row in asked if row not in scored)
    accuracy, cloze = measures["forget/vqa/accuracy"], measures["forget/vqa/cloze"]
    assert (accuracy.n, accuracy.n_unscored) == (len(scored), len(asked) - len(scored))
    assert cloze.n + cloze.n_unscored == sum(s.task == "cloze" for s in data.forget)
    assert "forget/text/accuracy" not in measures
    row = evaluation.rows[0]
    assert set(row["scores"]) == {"accuracy", "rouge_l", "probability"}
    mean = sum(row["scores"]["accuracy"] for row in scored)
    assert measures["forget/vqa/accuracy"].value == pytest.approx(mean / len(scored))


def test_evaluate_counts_samples_without_a_true_answer_as_unscored(tiny: VLM, data: Data) -> None:
    unanswered = [Sample("x", "Who is this person ?", "", data.strangers[0], "x")]
    evaluation = evaluate(tiny, {"s": unanswered})
    estimate = evaluation.measures["s/vqa/accuracy"]
    assert (estimate.value, estimate.n, estimate.n_unscored) == (None, 0, 1)
    assert evaluation.rows[0]["scores"]["probability"] is None
    assert math.isnan(answer_nlls(tiny, unanswered)[0])


def test_evaluate_finds_no_distance_to_the_model_itself(
    tiny: VLM, with_alternatives: list[Sample]
) -> None:
    names = ["truth_ratio", "ks", "js", "forget_quality"]
    splits = {"forget": with_alternatives}
    reference = evaluate(tiny, splits, metrics=reference_metrics(names))
    measures = evaluate(tiny, splits, metrics=names, reference=reference.rows).measures
    assert set(measures) == {f"forget/vqa/{name}" for name in names}
    values = {key.rpartition("/")[2]: estimate.value for key, estimate in measures.items()}
    assert (values["ks"], values["js"], values["forget_quality"]) == (0, 0, pytest.approx(1))


def test_evaluate_computes_truth_ratios_from_likelihoods_of_alternatives(
    tiny: VLM, with_alternatives: list[Sample]
) -> None:
    metrics = reference_metrics(["truth_ratio", "ks", "js", "forget_quality"])
    row = evaluate(tiny, {"forget": with_alternatives}, metrics=metrics).rows[0]
    first = with_alternatives[0]
    true, *false = [
        math.exp(-answer_nlls(tiny, [replace(first, answer=text)])[0])
        for text in (first.answer, *first.perturbed)
    ]
    assert row["scores"]["truth_ratio"] == pytest.approx(sum(false) / 2 / true, rel=1e-4)
    assert row["group"] == first.id


def test_evaluate_refuses_a_comparison_without_its_reference(tiny: VLM, data: Data) -> None:
    with pytest.raises(ConfigError, match="unsee finetune"):
        evaluate(tiny, {"forget": data.forget}, metrics=["ks"])


def test_broken_weights_are_counted_and_never_scored(tiny: VLM, data: Data) -> None:
    with torch.no_grad():
        next(iter(tiny.parameters().values())).view(-1)[0] = math.nan
    asked = [s for s in data.forget if s.picture is not None]
    found = evaluate(tiny, {"forget": asked})
    assert {row["fault"] for row in found.rows} == {"non_finite"}
    for estimate in found.measures.values():
        assert (estimate.value, estimate.n) == (None, 0) and estimate.n_unscored > 0
    text = [replace(s, picture=None) for s in asked if s.task == "generation"]
    assert all("fault" not in r or r["fault"] == "cut" for r in evaluate(tiny, {"t": text}).rows)


def test_answer_limit_leaves_room_for_the_longest_true_answer(tiny: VLM, data: Data) -> None:
    short = [replace(data.forget[0], answer="this is Ada Berg")]
    assert answer_limit(tiny, short) == answer_limit(tiny, []) == 24
    long = [replace(data.forget[0], answer="this is Ada Berg " * 20)]
    tokens = tiny.processor.tokenizer(long[0].answer, add_special_tokens=False).input_ids
    assert answer_limit(tiny, [*short, *long]) == len(tokens) + 1 > 80


def test_an_answer_cut_within_the_truth_is_unscored(tiny: VLM, data: Data) -> None:
    asked = [s for s in data.forget if s.task == "generation"]
    texts = generate(tiny, asked, max_new_tokens=12)
    known = [replace(s, answer=t) for s, t in zip(asked, texts, strict=True) if len(t) > 9]
    assert known
    found = evaluate(tiny, {"forget": known}, metrics=["accuracy"], max_new_tokens=6)
    for row in found.rows:
        assert (row["fault"], row["scores"]["accuracy"]) == ("cut", None)
    assert found.measures["forget/vqa/accuracy"].n_unscored == len(known)
    tiny.model.generation_config.eos_token_id = None
    endless = answers(tiny, known, max_new_tokens=6, score_answers=False)
    assert [answer.fault for answer in endless] == [None] * len(known)


def test_naming_is_scored_where_people_are_given(tiny: VLM, data: Data) -> None:
    splits = {"forget": data.forget, "retain": data.retain}
    people = People.of(splits, ["forget"])
    assert people.forgotten and people.kept
    found = evaluate(tiny, splits, metrics=["accuracy"], people=people, max_new_tokens=2)
    for name in NAMING:
        measure = found.measures[f"forget/vqa/{name}"]
        assert measure.better == "lower" and measure.n + measure.n_unscored > 0
    silent = evaluate(tiny, splits, metrics=["probability"], people=people)
    assert not any(key.rpartition("/")[2] in NAMING for key in silent.measures)


def test_rules_set_that_of_accuracy(tiny: VLM, data: Data) -> None:
    asked = [s for s in data.forget if s.task == "classification"]
    for rule in LETTER_RULES:
        found = evaluate(
            tiny,
            {"forget": asked},
            metrics=["accuracy"],
            rules={"accuracy": rule},
            max_new_tokens=2,
        )
        assert found.measures["forget/vqa/accuracy"].n + 0 <= len(asked)
