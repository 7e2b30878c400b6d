"""The attack `relearn`: its curve, its data and its outcome."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch

from unsee.attacks.relearn import Modules, Relearn, area_between, steps_to_half_recovery
from unsee.errors import ConfigError, DataError
from unsee.evaluation.evaluate import evaluate
from unsee.models.vlm import VLM
from unsee.records.schema import CurvePoint
from unsee.types import Data

MODULES: tuple[Modules, ...] = ("visual", "language_lora", "all")
CURVE = [(0, 0.0), (10, 0.4), (40, 1.0)]
FLAT = [(0, 0.0), (10, 0.0), (40, 0.0)]


def probability_of(data: Data) -> Callable[[VLM], dict[str, Any]]:
    """Returns a function that scores a model by the likelihood of the true answers."""

    def score(vlm: VLM) -> dict[str, Any]:
        measures = evaluate(vlm, {"f": data.forget}, metrics=["probability"]).measures
        return {"value": measures["f/vqa/probability"].value}

    return score


def points(pairs: list[tuple[int, float]]) -> list[CurvePoint]:
    return [CurvePoint(step=step, value=value) for step, value in pairs]


@pytest.mark.parametrize("budget", [{"steps": 0}, {"share": 0.0}])
def test_curve_without_budget_has_one_point(budget: dict[str, Any], tiny: VLM, data: Data) -> None:
    score = probability_of(data)
    assert Relearn(**budget).curve(tiny, data.forget, score) == [CurvePoint(step=0, **score(tiny))]


@pytest.mark.parametrize("modules", MODULES)
def test_curve_rises_and_leaves_its_inputs_unchanged(
    modules: Modules, tiny: VLM, data: Data
) -> None:
    before, samples = tiny.hash(), list(data.forget)
    attack = Relearn(share=1.0, modules=modules, steps=12, lr=3e-3, checkpoints=(4, 8))
    curve = attack.curve(tiny, samples, probability_of(data))
    assert [point.step for point in curve] == [0, 4, 8, 12]
    assert (curve[-1].value or 0.0) > (curve[0].value or 0.0)
    assert tiny.hash() == before
    assert samples == list(data.forget)
    # The global generator must not matter: in a resumed run it has another state.
    torch.manual_seed(1234)
    assert curve == attack.curve(tiny, samples, probability_of(data))
    assert not any("lora" in name for name, _ in tiny.model.named_parameters())


def test_curve_ends_at_the_same_value_with_more_checkpoints(tiny: VLM, data: Data) -> None:
    few = Relearn(steps=6, checkpoints=()).curve(tiny, data.forget, probability_of(data))
    many = Relearn(steps=6, checkpoints=(1, 2, 3)).curve(tiny, data.forget, probability_of(data))
    assert few[-1] == many[-1]


@pytest.mark.parametrize(("share", "pictures"), [(0.1, 1), (0.34, 1), (0.67, 2), (1.0, 3)])
def test_attacker_samples_are_all_samples_of_whole_pictures_of_every_person(
    share: float, pictures: int, data: Data
) -> None:
    samples = Relearn(share=share).attacker_samples(data.forget)
    for person in {s.concept for s in data.forget}:
        of_person = [s for s in samples if s.concept == person]
        sources = {s.picture.source for s in of_person if s.picture}
        assert len(sources) == pictures
        assert len(of_person) == 3 * pictures


def test_curve_refuses_samples_without_answers(tiny: VLM, data: Data) -> None:
    unanswered = [replace(s, answer="") for s in data.forget]
    with pytest.raises(DataError, match="needs questions and answers"):
        Relearn(steps=1).curve(tiny, unanswered, lambda _: {"value": 0.0})


def test_curve_refuses_questions_that_cannot_be_scored(tiny: VLM, data: Data) -> None:
    with pytest.raises(DataError, match="nothing to score"):
        Relearn(steps=1).curve(tiny, data.forget, lambda _: {"value": None})


def test_curve_refuses_a_lora_pattern_that_matches_no_layer(
    tiny: VLM, data: Data, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(type(tiny.family), "lora_targets", "nowhere")
    with pytest.raises(ConfigError, match="'nowhere'.*matches no layer"):
        Relearn(modules="language_lora", steps=1).curve(tiny, data.forget, lambda _: {"value": 0.0})


def test_area_between_equals_hand_computed_values() -> None:
    curve, flat = points(CURVE), points(FLAT)
    # Trapezoids: 10 * 0.2 + 30 * 0.7 over 40 steps.
    assert area_between(curve, flat) == pytest.approx(23 / 40)
    assert area_between(flat, curve) == pytest.approx(-23 / 40)
    assert area_between(points([(0, 0.3)]), points([(0, 0.1)])) == pytest.approx(0.2)
    with pytest.raises(ConfigError, match="different steps"):
        area_between(curve, points([(0, 0.0)]))


def test_steps_to_half_recovery_equals_hand_computed_values() -> None:
    curve, flat = points(CURVE), points(FLAT)
    assert steps_to_half_recovery(curve, 0.8) == 10
    assert steps_to_half_recovery(curve, 1.0) == pytest.approx(15)
    assert steps_to_half_recovery(flat, 1.0) is None
    assert steps_to_half_recovery(points([(0, 0.9)]), 1.0) == 0


def test_curves_leave_out_steps_whose_answers_were_all_broken() -> None:
    gaps = [CurvePoint(step=0), *points([(10, 0.5), (20, 0.5)])]
    none = points([(0, 0.0), (10, 0.0), (20, 0.0)])
    assert area_between(gaps, none) == pytest.approx(0.5)
    assert area_between([CurvePoint(step=0)], none[:1]) is None
    assert steps_to_half_recovery(gaps, 1.0) == 10
    with pytest.raises(ConfigError, match="different steps"):
        area_between(none, points([(0, 0.0)]))


def test_outcome_compares_the_curves(tiny: VLM, data: Data) -> None:
    attack = Relearn(steps=2, checkpoints=())
    curve = attack.curve(tiny, data.forget, probability_of(data))
    outcome = attack.outcome({"unlearned": curve, "reference": curve}, 0.9, "m", None)
    assert outcome.area_to_reference == 0.0
    assert outcome.share == 0.2
    assert set(outcome.curves) == {"unlearned", "reference"}
    assert attack.outcome({"unlearned": curve}, None, "m", None).area_to_reference is None
