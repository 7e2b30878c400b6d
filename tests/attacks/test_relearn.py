"""The relearning attack, and what holds for every attack."""

from __future__ import annotations

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


def probability(data: Data) -> Any:
    def score(vlm: VLM) -> dict[str, Any]:
        found = evaluate(vlm, {"f": data.forget}, metrics=["probability"]).measures
        return {"value": found["f/vqa/probability"].value}

    return score


@pytest.mark.parametrize("budget", [{"steps": 0}, {"share": 0.0}])
def test_no_budget_leaves_one_point(budget: dict[str, Any], tiny: VLM, data: Data) -> None:
    score = probability(data)
    assert Relearn(**budget).curve(tiny, data.forget, score) == [CurvePoint(step=0, **score(tiny))]


@pytest.mark.parametrize("modules", MODULES)
def test_relearning_learns_and_leaves_its_input_alone(
    modules: Modules, tiny: VLM, data: Data
) -> None:
    before, samples = tiny.hash(), list(data.forget)
    attack = Relearn(share=1.0, modules=modules, steps=12, lr=3e-3, checkpoints=(4, 8))
    curve = attack.curve(tiny, samples, probability(data))
    assert [point.step for point in curve] == [0, 4, 8, 12]
    assert (curve[-1].value or 0.0) > (curve[0].value or 0.0)
    assert tiny.hash() == before
    assert samples == list(data.forget)
    # Whatever was drawn before: a resumed run has drawn something else.
    torch.manual_seed(1234)
    assert curve == attack.curve(tiny, samples, probability(data))
    assert not any("lora" in name for name, _ in tiny.model.named_parameters())


def test_scoring_on_the_way_does_not_change_the_attack(tiny: VLM, data: Data) -> None:
    few = Relearn(steps=6, checkpoints=()).curve(tiny, data.forget, probability(data))
    many = Relearn(steps=6, checkpoints=(1, 2, 3)).curve(tiny, data.forget, probability(data))
    assert few[-1] == many[-1]


@pytest.mark.parametrize(("share", "pictures"), [(0.1, 1), (0.34, 1), (0.67, 2), (1.0, 3)])
def test_a_share_is_whole_pictures_of_everyone(share: float, pictures: int, data: Data) -> None:
    known = Relearn(share=share).attacker_samples(data.forget)
    for person in {s.concept for s in data.forget}:
        mine = [s for s in known if s.concept == person]
        sources = {s.picture.source for s in mine if s.picture}
        assert len(sources) == pictures
        assert len(mine) == 3 * pictures


def test_an_attacker_without_answers_is_told_so(tiny: VLM, data: Data) -> None:
    bare = [replace(s, answer="") for s in data.forget]
    with pytest.raises(DataError, match="needs questions and answers"):
        Relearn(steps=1).curve(tiny, bare, lambda _: {"value": 0.0})


def test_held_out_questions_without_answers_are_told(tiny: VLM, data: Data) -> None:
    with pytest.raises(DataError, match="nothing to score"):
        Relearn(steps=1).curve(tiny, data.forget, lambda _: {"value": None})


def test_a_lora_pattern_that_matches_nothing_raises(
    tiny: VLM, data: Data, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(type(tiny.family), "lora_targets", "nowhere")
    with pytest.raises(ConfigError, match="'nowhere'.*matches no layer"):
        Relearn(modules="language_lora", steps=1).curve(tiny, data.forget, lambda _: {"value": 0.0})


def points(*pairs: tuple[int, float]) -> list[CurvePoint]:
    return [CurvePoint(step=step, value=value) for step, value in pairs]


def test_area_and_half_recovery_by_hand() -> None:
    curve = points((0, 0.0), (10, 0.4), (40, 1.0))
    flat = points((0, 0.0), (10, 0.0), (40, 0.0))
    # Trapezoids: 10 * .2 + 30 * .7 over 40 steps.
    assert area_between(curve, flat) == pytest.approx(23 / 40)
    assert area_between(flat, curve) == pytest.approx(-23 / 40)
    assert area_between(points((0, 0.3)), points((0, 0.1))) == pytest.approx(0.2)
    assert steps_to_half_recovery(curve, 0.8) == 10
    assert steps_to_half_recovery(curve, 1.0) == pytest.approx(15)
    assert steps_to_half_recovery(flat, 1.0) is None
    assert steps_to_half_recovery(points((0, 0.9)), 1.0) == 0
    with pytest.raises(ConfigError, match="different steps"):
        area_between(curve, points((0, 0.0)))


def test_the_report_has_what_the_records_document(tiny: VLM, data: Data) -> None:
    attack = Relearn(steps=2, checkpoints=())
    curve = attack.curve(tiny, data.forget, probability(data))
    found = attack.outcome({"unlearned": curve, "reference": curve}, 0.9, "m", None)
    assert found.area_to_reference == 0.0
    assert found.share == 0.2
    assert set(found.curves) == {"unlearned", "reference"}
    assert attack.outcome({"unlearned": curve}, None, "m", None).area_to_reference is None
