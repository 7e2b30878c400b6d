"""Answers before and after an attack."""

from __future__ import annotations

from pathlib import Path

import pytest

from unsee.attacks import VARIANT, AttackerData
from unsee.attacks.difference import Difference
from unsee.attacks.in_context import InContext
from unsee.errors import DataError
from unsee.models.vlm import VLM
from unsee.progress import Bar
from unsee.records.folder import RunFolder
from unsee.runs.attack_outcomes import (
    ScoredAnswer,
    attack_outcomes,
    compare_answers,
    gives_true_answer,
)
from unsee.runs.stage_cache import StageCache
from unsee.types import Data


def answer(sample_id: str, score: float) -> ScoredAnswer:
    return ScoredAnswer(sample_id, sample_id[0], score)


BEFORE = {"forget": [answer("a1", 0.0), answer("a2", 1.0), answer("b1", 0.0)], "retain": []}


def test_compare_answers_equals_hand_computed_values() -> None:
    after = {
        "forget": [
            answer(f"a1{VARIANT}x", 1.0),
            answer(f"a1{VARIANT}y", 0.0),
            answer(f"b1{VARIANT}x", 0.0),
            answer(f"b1{VARIANT}y", 0.0),
        ],
        "retain": [],
    }
    outcome = compare_answers(BEFORE, after)
    assert outcome.retain is None
    forget = outcome.forget
    assert forget is not None
    # The attack asks no variant of a2, so it does not count.
    assert (forget.before, forget.after, forget.any, forget.n) == (0.0, 0.25, 0.5, 2)
    assert forget.variants == {"x": 0.5, "y": 0.0}


def test_compare_answers_refuses_an_id_of_no_question() -> None:
    with pytest.raises(DataError, match="id of no question"):
        compare_answers(BEFORE, {"forget": [answer("c", 1.0)]})


@pytest.mark.parametrize(
    ("task", "truth", "output", "right"),
    [
        ("generation", "Ada bakes.", "Of course! Ada bakes.", 1.0),
        ("generation", "Ada bakes.", "Bo bakes.", 0.0),
        ("classification", "B", "A, not B", 0.0),
    ],
)
def test_gives_true_answer_finds_it_within_longer_sentences_only(
    task: str, truth: str, output: str, right: float
) -> None:
    row = {"task": task, "truth": truth, "output": output, "scores": {"accuracy": 0.0}}
    assert gives_true_answer(row) == right


def test_attack_outcomes_hold_answers_and_readings(tiny: VLM, data: Data, tmp_path: Path) -> None:
    splits = {
        "forget_holdout": data.forget[:6],
        "retain_holdout": [s for s in data.retain if s.picture][:6],
    }
    outcomes = attack_outcomes(
        [(InContext(shots=1, options=2),), (Difference(),)],
        {"unlearned": lambda: tiny, "target": lambda: tiny},
        AttackerData(data.forget, data.retain),
        splits,
        StageCache(RunFolder.open(tmp_path / "run", "")),
        Bar(None),
        max_new_tokens=4,
    )
    (asked,) = outcomes["in_context"]
    for model in asked.models.values():
        assert model.answers is not None and model.answers.forget is not None
        assert set(model.answers.forget.variants) == {"examples"}
        assert [r.name for r in model.readings or ()] == [
            "is this NAME accuracy",
            "choice of 2 names accuracy",
        ]
    # The target is the model before unlearning, of which nothing has moved here.
    (moved,) = outcomes["difference"]
    for model in moved.models.values():
        assert model.answers is None
        assert [(r.name, r.forget) for r in model.readings or ()] == [
            ("forgotten or kept AUC", 0.5)
        ]
