"""Measures and rows of an evaluation."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from unsee.errors import ConfigError
from unsee.evaluation.evaluate import evaluate
from unsee.evaluation.generation import answer_nlls
from unsee.metrics import reference_metrics
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
    assert measures["forget/vqa/accuracy"].n == len(data.forget)
    assert measures["forget/vqa/cloze"].n == sum(s.task == "cloze" for s in data.forget)
    assert "forget/text/accuracy" not in measures
    assert set(evaluation.rows[0]["scores"]) == {"accuracy", "rouge_l", "probability"}
    total = sum(r["scores"]["accuracy"] for r in evaluation.rows if r["split"] == "forget")
    assert measures["forget/vqa/accuracy"].value == pytest.approx(total / len(data.forget))


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
