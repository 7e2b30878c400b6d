"""Scores of a run, computed by hand."""

from __future__ import annotations

from typing import Any

import pytest

from support.comparison import sample_scores, summary
from unsee.errors import ConfigError
from unsee.records.schema import Attacks, Measure
from unsee.studies.scores import attack_scores, distance, score

RELEARNING = {
    "share": 0.2,
    "modules": "all",
    "steps": 4,
    "area_to_reference": 0.3,
    "curves": {
        "unlearned": [{"step": 4, "value": 0.6}, {"step": 0, "value": 0.1}],
        "reference": [{"step": 0, "value": 0.1}, {"step": 4, "value": 0.2}],
    },
}
ATTACKS: dict[str, Any] = {
    "relearn": [RELEARNING],
    "quantize+jailbreak": [
        {
            "models": {
                "unlearned": {"answers": {"forget": {"after": 0.3}}},
                "reference": {"answers": {"forget": {"after": 0.1}}},
            }
        }
    ],
    "membership": [
        {
            "models": {
                "unlearned": {"readings": [{"name": "loss AUC", "forget": 0.75}]},
                "reference": {"readings": [{"name": "loss AUC", "forget": 0.5}]},
            }
        }
    ],
}


def measured(values: dict[str, float | None], **changes: Any) -> dict[str, Measure]:
    """Measures with these values."""
    return {key: Measure(value=value, **changes) for key, value in values.items()}


def test_distance_is_the_mean_over_shared_measures_between_0_and_1() -> None:
    ours = measured({"forget/vqa/accuracy": 0.1, "retain/vqa/accuracy": 0.6, "own/vqa/ppl": 7.0})
    theirs = measured({"forget/vqa/accuracy": 0.2, "retain/vqa/accuracy": 0.9, "more/vqa/ppl": 0.0})
    mean, largest, where = distance(ours, theirs)
    assert (mean, largest, where) == (pytest.approx(0.2), pytest.approx(0.3), "retain/vqa/accuracy")
    assert distance(theirs, theirs)[0] == 0
    with pytest.raises(ConfigError, match="no measure in common"):
        distance(ours, {})


def test_distance_of_a_broken_model_is_large() -> None:
    """All zeros is best by the published forgetting, and worst by the distance."""
    splits = ("forget", "retain", "real")
    reference = measured(dict(zip(splits, (0.05, 0.95, 0.9), strict=True)))
    good = measured(dict(zip(splits, (0.1, 0.9, 0.9), strict=True)))
    broken = measured(dict.fromkeys(splits, 0.0))
    assert distance(good, reference)[0] < 0.05 < 0.6 < distance(broken, reference)[0]


def test_distance_leaves_out_unscored_measures() -> None:
    ours, theirs = measured({"a": 0.5, "b": None}), measured({"a": 0.25, "b": 0.5})
    assert distance(ours, theirs) == (0.25, 0.25, "a")


def test_distance_raises_without_the_reference_value_of_a_measure_judged_by_it() -> None:
    ours = measured({"k": 0.5}, better="reference") | measured({"l": 0.5}, better="lower")
    theirs = measured({"k": 0.2}, better="reference") | measured({"l": 0.5}, better="lower")
    assert distance(ours, theirs)[1:] == (pytest.approx(0.3), "k")
    for absent in ({}, {"l": theirs["l"]}, {"k": Measure(value=None), "l": theirs["l"]}):
        with pytest.raises(ConfigError, match="--reference"):
            distance(ours, absent)


def test_score_gives_the_published_aggregates() -> None:
    """F = 0.8; p = 0.2; the two distributions do not overlap (KS = JS = 1); no truth ratio."""
    scores = score(summary(), sample_scores())
    assert scores.numbers["forgetting"] == pytest.approx(0.8)
    assert scores.numbers["FQ"] == pytest.approx((0.8 + 0.8 + 0 + 0) / 4)
    assert scores.numbers["MU"] == pytest.approx((0.8 + 1.0) / 2)
    assert scores.numbers["robustness"] is scores.numbers["overall"] is None
    assert any("truth ratio" in text for text in scores.lacking)
    assert any("model, input, output" in text for text in scores.lacking)
    assert scores.numbers["distance"] == pytest.approx((4 * 0.1 + 4 * 0.1) / 12)
    reference = score(summary(), sample_scores(), "reference")
    assert reference.numbers["distance"] == 0
    assert reference.numbers["FQ"] == pytest.approx((0.9 + 0.9 + 1 + 1) / 4)


def test_score_of_a_record_without_measures_lacks_everything() -> None:
    scores = score(summary(measures=None, reference=None, target=None), [])
    assert all(value is None for value in scores.numbers.values())
    assert len(scores.lacking) == 3


def test_attack_scores_read_every_attack() -> None:
    scores = {a.name: a for a in attack_scores(Attacks.model_validate(ATTACKS))}
    assert scores["relearn 20 % all"].unlearned == 0.6
    assert scores["relearn 20 % all"].reference == 0.2
    assert scores["quantize+jailbreak"].score == pytest.approx(0.7)
    assert scores["membership loss AUC"].score == pytest.approx(0.5)
    assert attack_scores(None) == []


def test_attack_scores_name_budgets_of_one_attack_apart() -> None:
    budgets = [
        {
            "parameters": {"quantize": {"bits": bits, "scheme": "rtn"}},
            "models": {"unlearned": {"answers": {"forget": {"after": bits / 10}}}},
        }
        for bits in (8, 4)
    ]
    relearned = [RELEARNING, RELEARNING | {"data": "retain", "worst_case": "quick"}]
    attacks = {"relearn": relearned, "quantize": budgets, "probe": []}
    scores = {a.name: a.unlearned for a in attack_scores(Attacks.model_validate(attacks))}
    assert scores == {
        "relearn 20 % all": 0.6,
        "relearn 20 % all retain, worst case": 0.6,
        "quantize bits=8": 0.8,
        "quantize bits=4": 0.4,
    }


def test_attack_scores_read_both_sides_of_an_auc_and_answers_beside_readings() -> None:
    models = {
        "unlearned": {
            "answers": {"forget": {"after": 0.1}},
            "readings": [{"name": "forgotten or kept AUC", "forget": 0.1}],
        }
    }
    scores = attack_scores(Attacks.model_validate({"difference": [{"models": models}]}))
    assert [(a.name, a.score) for a in scores] == [
        ("difference", pytest.approx(0.9)),
        ("difference forgotten or kept AUC", pytest.approx(0.2)),
    ]


def test_attack_scores_of_unscored_outcomes_are_none() -> None:
    models = {"unlearned": {"answers": {"forget": {"after": None}}}}
    readings = {"unlearned": {"readings": [{"name": "AUC", "forget": None}]}}
    attacks = {"jailbreak": [{"models": models}], "probe": [{"models": readings}]}
    scores = attack_scores(Attacks.model_validate(attacks))
    assert [(a.unlearned, a.score) for a in scores] == [(None, None), (None, None)]


def test_score_combines_attacks_of_three_sides_into_robustness() -> None:
    numbers = score(summary(attacks=ATTACKS), sample_scores()).numbers
    # Sides: model 1 - 0.6, input 1 - 0.3, output 1 - 2 |0.75 - 0.5|.
    assert numbers["robustness"] == pytest.approx((0.4 + 0.7 + 0.5) / 3)
    parts = (numbers["FQ"], numbers["MU"], numbers["robustness"])
    assert numbers["overall"] == pytest.approx(sum(v for v in parts if v is not None) / 3)
    assert numbers["distance under attack"] == pytest.approx((0.3 + 0.2 + 0.25) / 3)
