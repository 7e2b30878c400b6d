"""The record's schema: descriptions, exact round trips, and what is refused."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from typing import Any

import pytest
from pydantic import ValidationError

from support.report_record import sample_scores, sample_steps, sample_summary
from unsee.records.schema import (
    AttackOutcome,
    Cost,
    CurvePoint,
    FinetuneRecord,
    Measure,
    RecordPart,
    RelearningOutcome,
    SampleScore,
    Selection,
    Summary,
    TrainingStep,
    json_schema,
)
from unsee.types import Estimate

FILES: tuple[type[RecordPart], ...] = (Summary, TrainingStep, SampleScore, FinetuneRecord)


def properties(schema: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Every property of a JSON Schema and of its definitions, by its path."""
    parts = {schema["title"]: schema, **schema.get("$defs", {})}
    for part, content in parts.items():
        for name, content_of_name in content.get("properties", {}).items():
            yield f"{part}.{name}", content_of_name


@pytest.mark.parametrize("file", FILES)
def test_json_schema_describes_every_key(file: type[RecordPart]) -> None:
    described = dict(properties(json_schema(file)))
    assert described
    for path, content in described.items():
        assert content.get("description", "").endswith((".", "]")), path


def test_json_schema_uses_the_keys_of_the_file() -> None:
    schema = json_schema()
    assert {"schema", "measures", "attacks"} <= set(schema["properties"])
    assert "longest" in schema["$defs"]["RelearningOutcome"]["properties"]
    assert json.loads(json.dumps(schema)) == schema


def test_summary_to_dict_returns_what_was_read() -> None:
    content = sample_summary()
    summary = Summary.model_validate(content)
    assert summary.to_dict() == content
    assert list(summary.to_dict()["provenance"]) == list(content["provenance"])
    for step in sample_steps(3):
        assert TrainingStep.model_validate(step).to_dict() == step
    for score in sample_scores():
        assert SampleScore.model_validate(score).to_dict() == score


def test_to_dict_writes_set_fields_alone_and_keeps_null() -> None:
    summary = Summary(schema=1, name="run", method=None, cost=Cost(steps=3))
    assert summary.to_dict() == {"schema": 1, "name": "run", "method": None, "cost": {"steps": 3}}
    outcome = RelearningOutcome(share=0.1, steps=2).model_copy(
        update={"max_new_tokens": {"forget_holdout": 24}}
    )
    assert outcome.to_dict() == {"share": 0.1, "steps": 2, "longest": {"forget_holdout": 24}}


def test_unknown_keys_are_ignored_or_kept_as_extras() -> None:
    content = {"later": 1, "method": {"name": "vkd", "later": 1}, "cost": {"energy_joules": 3.5}}
    summary = Summary.model_validate(content)
    assert summary.to_dict() == {"method": {"name": "vkd"}, "cost": {"energy_joules": 3.5}}
    assert summary.cost is not None
    assert dict(summary.cost.extras) == {"energy_joules": 3.5}


@pytest.mark.parametrize(
    ("content", "key"),
    [
        ({"measures": {"a/vqa/b": {"value": "0.5"}}}, "measures/a/vqa/b/value"),
        ({"measures": {"a/vqa/b": {"n": [3]}}}, "measures/a/vqa/b/n"),
        ({"cost": {"seconds": "12"}}, "cost/seconds"),
        ({"cost": {"steps": True}}, "cost/steps"),
        ({"guarantees": {"text_identical": "yes"}}, "guarantees/text_identical"),
        ({"representation": {"forget_shift": {}}}, "representation/forget_shift"),
        ({"attacks": {"relearn": [{"share": "all", "steps": 1}]}}, "attacks/relearn/0/share"),
        ({"attacks": {"x": [{"models": {"y": {"seconds": ""}}}]}}, "attacks/x/0/models/y/seconds"),
        ({"provenance": {"threads": "2"}}, "provenance/threads"),
    ],
)
def test_summary_refuses_text_and_lists_where_numbers_belong(
    content: dict[str, Any], key: str
) -> None:
    with pytest.raises(ValidationError) as caught:
        Summary.model_validate(content)
    (error,) = caught.value.errors()
    assert "/".join(map(str, error["loc"])) == key


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, None])
def test_number_reads_what_is_not_finite_as_unscored(value: float | None) -> None:
    assert CurvePoint(step=0, value=value).value is None


def test_measure_of_an_estimate_has_its_fields() -> None:
    measure = Measure.of(Estimate(0.5, 0.25, 0.75, 8, 1, "lower"))
    assert (measure.value, measure.low, measure.high) == (0.5, 0.25, 0.75)
    assert (measure.n, measure.n_unscored, measure.better) == (8, 1, "lower")


def test_attacks_keeps_relearning_apart_from_the_others() -> None:
    content = {
        "relearn": [{"share": 0.1, "steps": 2}],
        "quantize+jailbreak": [{"access": ["white_box", "black_box"], "models": {}}],
        "probe": None,
    }
    attacks = Summary.model_validate({"attacks": content}).attacks
    assert attacks is not None
    assert attacks.relearn == (RelearningOutcome(share=0.1, steps=2),)
    outcome = AttackOutcome(access=("white_box", "black_box"), models={})
    assert dict(attacks.others) == {"quantize+jailbreak": (outcome,), "probe": ()}


def test_choices_are_selections_at_any_depth() -> None:
    content = {"mask": {"visual": {"chosen": 1, "of": 4}, "preserved_by_name": 3}, "note": [1]}
    summary = Summary.model_validate({"choices": content})
    assert summary.choices is not None
    assert summary.choices["mask"] == {"visual": Selection(chosen=1, of=4), "preserved_by_name": 3}
    assert summary.to_dict() == {"choices": content}


@pytest.mark.parametrize("number", [10**400, -(10**400), 2**63])
def test_cost_refuses_numbers_that_no_count_has(number: int) -> None:
    with pytest.raises(ValidationError, match="total_parameters"):
        Cost.model_validate({"total_parameters": number})
    assert Cost.model_validate({"total_parameters": 2**62}).total_parameters == 2**62


def test_reasons_of_attacks_are_read_where_earlier_versions_wrote_them() -> None:
    reasons = {"relearn": "it needs true answers"}
    old = {**sample_summary(), "recognition": {"attacks_left_out": reasons}}
    new = {**sample_summary(), "attacks_left_out": reasons}
    for content in (old, new):
        summary = Summary.model_validate(content)
        assert summary.attacks_left_out == reasons
        assert summary.to_dict()["attacks_left_out"] == reasons
