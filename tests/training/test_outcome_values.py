"""What trackers are told of a run's end: numbers and texts by name, from the record alone."""

from __future__ import annotations

import pytest

from support.report_record import sample_summary
from unsee.records.schema import Summary
from unsee.training.outcome_values import outcome_values

TEST = {
    "measure": "forget_holdout/vqa/accuracy",
    "outcome": "indistinguishable",
    "difference": 0.01,
}


def answers(forget: float, retain: float | None = None) -> dict[str, object]:
    sides = {"forget": {"before": 0.1, "after": forget, "n": 4}}
    return {"answers": sides | ({} if retain is None else {"retain": {"after": retain}})}


def test_outcome_values_of_relearning_are_the_highest_scores_by_budget() -> None:
    one, two = sample_summary()["attacks"]["relearn"][:2]
    values = outcome_values(Summary.model_validate({"attacks": {"relearn": [one, two]}}))
    best = max(point["value"] for point in two["curves"]["reference"])
    assert values["attack_reference/relearn-share-0.2/forget"] == best
    assert values["attack/relearn-share-0.1/retain"] == one["curves"]["unlearned"][-1]["retain"]
    assert values["attack/relearn-share-0.2/steps_to_half_recovery"] == 20
    assert "attack/relearn-share-0.1/steps_to_half_recovery" not in values


def test_outcome_values_of_attacks_are_the_scores_under_them_by_model() -> None:
    reading = {"readings": [{"name": "loss AUC", "forget": 0.7}]}
    quantize = [
        {"parameters": {"quantize": {"bits": bits, "scheme": "rtn"}}, "models": models}
        for bits, models in (
            (8, {"unlearned": answers(0.2, 0.9)}),
            (4, {"unlearned": answers(0.3)}),
        )
    ]
    attacks = {
        "quantize": quantize,
        "membership": [{"models": {"unlearned": reading, "reference": reading}}],
        "figstep+jailbreak": [{"models": {"target": answers(1.0)}}],
    }
    assert outcome_values(Summary.model_validate({"attacks": attacks})) == {
        "attack/quantize-bits-8/forget": 0.2,
        "attack/quantize-bits-8/retain": 0.9,
        "attack/quantize-bits-4/forget": 0.3,
        "attack/membership/loss_AUC": 0.7,
        "attack_reference/membership/loss_AUC": 0.7,
        "attack_target/figstep_jailbreak/forget": 1.0,
    }


def test_outcome_values_tell_two_equal_budgets_apart() -> None:
    twice = [{"models": {"unlearned": answers(score)}} for score in (0.1, 0.2)]
    values = outcome_values(Summary.model_validate({"attacks": {"perturb": twice}}))
    assert values == {"attack/perturb/forget": 0.1, "attack/perturb-2/forget": 0.2}


def test_outcome_values_have_the_tests_and_the_verdict() -> None:
    under = {**TEST, "attack": "relearn:share=0.5", "outcome": "too_few", "difference": -0.25}
    record = {"equivalence": [TEST, under], "verdict": "Forgotten: 0 % right."}
    assert outcome_values(Summary.model_validate(record)) == {
        "equivalence/forget_holdout/vqa/accuracy": pytest.approx(0.01),
        "equivalence/relearn_share_0.5/forget_holdout/vqa/accuracy": -0.25,
        "equivalence/indistinguishable": 1,
        "equivalence/too_few": 1,
        "verdict": "Forgotten: 0 % right.",
    }


def test_outcome_values_of_an_empty_record_are_none() -> None:
    assert outcome_values(Summary()) == {}
