"""The attack `relearn`: its curve, its data and its outcome."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from unsee.attacks import AttackerData, Subject
from unsee.attacks.learning_rate_sweep import SWEEPS, Sweep, envelope, has_learned, worst_point
from unsee.attacks.relearn import Modules, Relearn, area_between, steps_to_half_recovery
from unsee.attacks.relearning_data import pencil_drawing
from unsee.errors import ConfigError, DataError
from unsee.evaluation.evaluate import evaluate
from unsee.models.vlm import VLM
from unsee.records.schema import CurvePoint
from unsee.runs.preflight import check_attack
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


def sources(samples: Any) -> set[str]:
    return {picture.source for sample in samples for picture in sample.pictures}


def test_retain_data_holds_no_forgotten_picture_or_person(data: Data) -> None:
    # Forget samples that were put into the retain set by mistake are left out too.
    mixed = [*data.retain, *data.forget[:3], replace(data.forget[0], concept="Cy Moser")]
    for share in (0.3, 1.0):
        known = Relearn(data="retain", share=share).training_samples(data.forget, mixed)
        assert known and all(s.picture is not None and s.answer for s in known)
        assert not sources(known) & sources(data.forget)
        assert {s.concept for s in known} == {"Cy Moser", "Di Novak"}


def test_relearning_on_retain_data_collates_no_forgotten_picture(
    tiny: VLM, data: Data, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: set[str] = set()
    collate = VLM.collate

    def watched(self: VLM, samples: Any, *args: Any, **kwargs: Any) -> Any:
        seen.update(sources(samples))
        return collate(self, samples, *args, **kwargs)

    monkeypatch.setattr(VLM, "collate", watched)
    attack = Relearn(data="retain", share=1.0, steps=3, batch_size=4)
    attack.curve(tiny, data.forget, lambda _: {"value": 0.5}, retain=data.retain)
    attack.apply(Subject(tiny, attacker_samples=data.forget, retain=data.retain))
    assert seen and not seen & sources(data.forget)


def test_retain_data_needs_retain_samples(tiny: VLM, data: Data) -> None:
    attack = Relearn(data="retain", steps=1)
    assert attack.required == {"attacker_samples", "retain"}
    assert Relearn().required == Relearn.needs
    with pytest.raises(DataError, match="about other people's pictures"):
        attack.curve(tiny, data.forget, lambda _: {"value": 0.5})
    with pytest.raises(DataError, match="--retain"):
        check_attack((attack,), AttackerData(data.forget), {"forget_holdout": data.forget})


def test_held_out_people_are_asked_about_and_not_trained_on(tiny: VLM, data: Data) -> None:
    for share in (0.2, 0.5, 1.0):
        attack = Relearn(data="held_out_people", share=share, steps=1, batch_size=2)
        known = attack.training_samples(data.forget)
        asked = attack.asked(data.forget, data.forget)
        # Of two people one is given, with all pictures, and the other is asked about.
        assert len({s.concept for s in known}) == len({s.concept for s in asked}) == 1
        assert {s.concept for s in known} | {s.concept for s in asked} == {"Ada Berg", "Bo Lind"}
        assert len(known) == len(asked) == 9
    subject = Subject(tiny, {"forget_holdout": data.forget}, data.forget)
    assert list(attack.apply(subject).samples["forget_holdout"]) == asked
    with pytest.raises(DataError, match="the forget set names 1"):
        attack.training_samples(data.forget[:9])
    # Other attackers are asked about everyone.
    assert Relearn().asked(data.forget, data.forget) == list(data.forget)


def test_other_pictures_are_drawings_of_the_attackers_pictures(data: Data) -> None:
    plain = Relearn(share=0.4).training_samples(data.forget)
    drawn = Relearn(share=0.4, data="other_pictures").training_samples(data.forget)
    assert [s.id for s in plain] == [s.id for s in drawn]
    assert not sources(drawn) & sources(data.forget)
    pixels = np.asarray(drawn[0].picture.open())  # type: ignore[union-attr]
    assert (pixels == pixels[..., :1]).all()
    # Edges are dark on white: a dark square has a dark outline and a white inside.
    image = Image.new("RGB", (20, 20), "white")
    image.paste((60, 20, 20), (6, 6, 14, 14))
    edges = np.asarray(pencil_drawing(image))[..., 0]
    assert edges[2, 2] == edges[10, 10] == 255
    assert edges[5, 10] == 0


def test_sweep_stops_a_rate_that_has_stopped_rising() -> None:
    quick, full = SWEEPS["quick"], SWEEPS["full"]
    rising = points([(0, 0.1), (10, 0.2), (20, 0.3), (50, 0.4)])
    assert not quick.is_over(rising)
    falling = points([(0, 0.1), (10, 0.5), (20, 0.3), (50, 0.4)])
    assert quick.is_over(falling) and not full.is_over(falling)
    assert not quick.is_over(falling[:3])  # Before step 50 no rate is stopped.
    assert has_learned(rising) and not has_learned(points([(0, 0.1), (10, 0.11)]))
    # The plain attack's rate is among those of the quick sweep.
    assert Relearn().lr in quick.rates
    # Ten rates from 1e-3 to 1e-6, and the early checkpoints.
    assert (len(full.rates), full.rates[0], full.rates[-1]) == (10, 1e-3, 1e-6)
    assert full.checkpoints[:6] == (1, 2, 5, 10, 20, 50) and full.checkpoints[-1] == 500


def test_envelope_is_the_worst_point_so_far_of_any_rate() -> None:
    start = CurvePoint(step=0, value=0.1)
    swept = [
        start,
        CurvePoint(step=1, value=0.3, lr=1e-3),
        CurvePoint(step=2, value=None, lr=1e-3),
        CurvePoint(step=1, value=0.1, lr=1e-4),
        CurvePoint(step=2, value=0.4, lr=1e-4),
        CurvePoint(step=5, value=0.2, lr=1e-4),
    ]
    worst = envelope(swept)
    assert [(p.step, p.value, p.lr) for p in worst] == [
        (0, 0.1, None), (1, 0.3, 1e-3), (2, 0.4, 1e-4), (5, 0.4, 1e-4),
    ]  # fmt: skip
    assert worst_point(swept) == swept[4]


def test_worst_case_reports_the_worst_of_all_rates(
    tiny: VLM, data: Data, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(SWEEPS, "quick", Sweep((3e-3, 1e-4, 1e-6), (1, 2, 4), 2, None))
    attack = Relearn(share=1.0, worst_case="quick", batch_size=6)
    score = probability_of(data)
    swept = attack.curve(tiny, data.forget, score)
    assert [(p.step, p.lr) for p in swept[:7]] == [
        (0, None), (1, 3e-3), (2, 3e-3), (4, 3e-3), (1, 1e-4), (2, 1e-4), (4, 1e-4),
    ]  # fmt: skip
    # The rate after one that has learned nothing is left out.
    assert len(swept) == (7 if not has_learned([swept[0], *swept[4:7]]) else 10)
    # Every rate starts from the same model: it gives what the attack at that rate alone gives.
    alone = replace(attack, worst_case="off", lr=3e-3, steps=4, checkpoints=(1, 2))
    assert [p.value for p in swept[:4]] == [p.value for p in alone.curve(tiny, data.forget, score)]
    flat = [swept[0], *(CurvePoint(step=s, value=0.0, lr=3e-3) for s in (1, 2))]
    outcome = attack.outcome({"unlearned": swept, "reference": flat}, 0.9, "m", None)
    worst = outcome.worst["unlearned"]
    assert worst.value == max(p.value or 0.0 for p in swept)
    assert outcome.curve("unlearned")[-1].value == worst.value
    assert outcome.sweep["unlearned"] == tuple(swept)
    # A model that was stopped earlier keeps its worst point to the end.
    assert [p.step for p in outcome.curve("reference")] == [0, 1, 2, 4]
    assert outcome.area_to_reference is not None
    assert (outcome.worst_case, outcome.lr, outcome.steps) == ("quick", None, 4)


def test_worst_case_refuses_what_would_have_no_effect(tiny: VLM, data: Data) -> None:
    for given in ({"lr": 1e-3}, {"steps": 10}, {"checkpoints": (1,)}):
        with pytest.raises(ConfigError, match=f"so {next(iter(given))} would have no effect"):
            Relearn(worst_case="full", **given)  # type: ignore[arg-type]
    subject = Subject(tiny, {"forget_holdout": data.forget}, data.forget)
    with pytest.raises(ConfigError, match="cannot be part of a chain"):
        Relearn(worst_case="quick").apply(subject)
    assert Relearn(worst_case="quick", steps=0).apply(subject) is subject


def test_outcome_of_the_defaults_has_no_new_keys(tiny: VLM, data: Data) -> None:
    attack = Relearn(steps=2, checkpoints=())
    curve = attack.curve(tiny, data.forget, probability_of(data))
    record = attack.outcome({"unlearned": curve}, 0.9, "m", None).to_dict()
    assert not {"data", "worst_case", "worst", "sweep"} & record.keys()
    assert "lr" not in record["curves"]["unlearned"][1]
