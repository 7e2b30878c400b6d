"""Evaluation: batches, measures, rows."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from unsee.errors import ConfigError
from unsee.evaluation.evaluate import evaluate
from unsee.evaluation.generation import answer_nlls, generate
from unsee.losses import nll
from unsee.metrics import reference_metrics
from unsee.models.vlm import VLM
from unsee.types import Data, Sample


def test_batched_scoring_equals_one_by_one(tiny: VLM, data: Data) -> None:
    samples = [*data.forget[:5], *data.retain]
    together = answer_nlls(tiny, samples, batch_size=32)
    for sample, value in zip(samples, together, strict=True):
        batch = tiny.collate([sample])
        with torch.no_grad():
            assert value == pytest.approx(float(nll(tiny.logits(batch), batch.labels)), rel=1e-4)


def test_answers_come_in_the_samples_order(tiny: VLM, data: Data) -> None:
    samples = [*data.forget[:4], *data.retain]
    forward = generate(tiny, samples, batch_size=3, max_new_tokens=5)
    backward = generate(tiny, samples[::-1], batch_size=3, max_new_tokens=5)
    assert forward == backward[::-1]


def test_measures_and_rows(tiny: VLM, data: Data) -> None:
    seen: list[tuple[int, int]] = []
    found = evaluate(
        tiny,
        {"forget": data.forget, "retain": data.retain},
        better={"forget/vqa/accuracy": "reference"},
        on_batch=lambda done, total: seen.append((done, total)),
    )
    count = len(data.forget) + len(data.retain)
    assert seen[-1] == (count, count)
    assert len(found.rows) == count
    measures = found.measures
    assert measures["forget/vqa/accuracy"].better == "reference"
    assert measures["retain/text/accuracy"].better == "higher"
    assert measures["forget/vqa/accuracy"].n == len(data.forget)
    assert measures["forget/vqa/cloze"].n == sum(s.task == "cloze" for s in data.forget)
    assert "forget/text/accuracy" not in measures
    row = found.rows[0]
    assert set(row["scores"]) == {"accuracy", "rouge_l", "probability"}
    mean = sum(r["scores"]["accuracy"] for r in found.rows if r["split"] == "forget")
    assert measures["forget/vqa/accuracy"].value == pytest.approx(mean / len(data.forget))


def test_samples_without_a_true_answer_are_unscored(tiny: VLM, data: Data) -> None:
    bare = [Sample("x", "Who is this person ?", "", data.strangers[0], "x")]
    found = evaluate(tiny, {"s": bare})
    estimate = found.measures["s/vqa/accuracy"]
    assert (estimate.value, estimate.n, estimate.n_unscored) == (None, 0, 1)
    assert found.rows[0]["scores"]["probability"] is None
    assert math.isnan(answer_nlls(tiny, bare)[0])


def test_alternatives_and_the_reference(tiny: VLM, data: Data) -> None:
    """Truth ratios from a real model's likelihoods, and distances to the same model are none."""
    asked = [
        replace(s, perturbed=("this is Bo Lind", "this is Cy Moser"), group=s.id)
        for s in data.forget
        if s.task == "generation"
    ]
    names = ["truth_ratio", "ks", "js", "forget_quality"]
    theirs = evaluate(tiny, {"forget": asked}, metrics=reference_metrics(names))
    found = evaluate(tiny, {"forget": asked}, metrics=names, reference=theirs.rows).measures
    assert set(found) == {f"forget/vqa/{name}" for name in names}
    values = {key.rpartition("/")[2]: estimate.value for key, estimate in found.items()}
    assert (values["ks"], values["js"], values["forget_quality"]) == (0, 0, pytest.approx(1))
    first = asked[0]
    nlls = [
        answer_nlls(tiny, [replace(first, answer=text)])[0]
        for text in (first.answer, *first.perturbed)
    ]
    ratio = sum(math.exp(-nll) for nll in nlls[1:]) / 2 / math.exp(-nlls[0])
    assert theirs.rows[0]["scores"]["truth_ratio"] == pytest.approx(ratio, rel=1e-4)
    assert theirs.rows[0]["group"] == first.id


def test_a_comparison_without_its_reference_is_refused(tiny: VLM, data: Data) -> None:
    with pytest.raises(ConfigError, match="unsee finetune"):
        evaluate(tiny, {"forget": data.forget}, metrics=["ks"])
