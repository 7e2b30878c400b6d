"""Answers before and after an attack."""

from __future__ import annotations

import pytest

from unsee.attacks import VARIANT
from unsee.errors import DataError
from unsee.runs.attack_outcomes import ScoredAnswer, compare_answers, gives_true_answer


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
