"""The attack `in_context`: examples of other people, and names to choose from."""

from __future__ import annotations

from typing import Any

import pytest

from unsee.attacks import Subject, in_context
from unsee.attacks.in_context import InContext, choice_question, name_question, with_examples
from unsee.evaluation.evaluate import Evaluation
from unsee.types import Sample


def test_examples_are_of_other_people_who_are_kept(subject: Subject) -> None:
    attacked = InContext(shots=2).apply(subject)
    forgotten = {s.concept for s in subject.samples["forget_holdout"]}
    owner = {s.picture: s.concept for s in (*subject.attacker_samples, *subject.retain)}
    for split, questions in attacked.samples.items():
        for original, question in zip(subject.samples[split], questions, strict=True):
            *examples, own = question.pictures
            assert own == original.picture
            assert len(examples) == (2 if split == "forget_holdout" else 1)
            people = [owner[picture] for picture in examples]
            assert len(set(people)) == len(people)
            assert not {original.concept, *forgotten} & set(people)
            assert question.question.endswith(original.question)
            assert (question.answer, question.choices) == (original.answer, original.choices)


def test_with_examples_writes_questions_and_answers_in_order(subject: Subject) -> None:
    example, asked = subject.retain[0], subject.samples["forget_holdout"][0]
    text = with_examples(asked, [example]).question
    assert text == (f"Picture 1: {example.question}\n{example.answer}\nPicture 2: {asked.question}")


def test_questions_offer_the_name(subject: Subject) -> None:
    sample = subject.samples["forget_holdout"][0]
    assert sample.concept == "Ada Berg"
    yes, no = name_question(sample, "Ada Berg"), name_question(sample, "Bo Lind")
    assert (yes.question, yes.answer, no.answer) == ("Is this Ada Berg?", "Yes", "No")
    choice = choice_question(sample, ["Bo Lind", "Ada Berg", "Cy Moser"])
    assert choice.question == "Which of these people is this: Bo Lind, Ada Berg or Cy Moser?"
    assert choice.answer == "Ada Berg"
    assert choice.choices == ("Bo Lind", "Ada Berg", "Cy Moser")
    assert {yes.task, no.task, choice.task} == {"ranking"}


def scoring(monkeypatch: pytest.MonkeyPatch, right: Any) -> list[Sample]:
    """Lets `right` say which questions are answered right; returns the list of all asked."""
    asked: list[Sample] = []

    def evaluate(_vlm: Any, splits: dict[str, list[Sample]], **_: Any) -> Evaluation:
        samples = splits["asked"]
        asked.extend(samples)
        rows = [
            {"scores": {"accuracy": None if right(s) is None else float(right(s))}} for s in samples
        ]
        return Evaluation({}, rows)

    monkeypatch.setattr(in_context, "evaluate", evaluate)
    return asked


def test_readings_equal_hand_computed_values(
    subject: Subject, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A model that always says yes is at chance; one that picks the first name, at that of a draw.
    asked = scoring(monkeypatch, lambda s: s.answer == "Yes")
    is_this, choose = InContext(options=3).readings(subject)
    assert (is_this.name, is_this.forget, is_this.retain) == ("is this NAME accuracy", 0.5, 0.5)
    assert is_this.baseline == 0.5 and is_this.n == 2
    assert (choose.name, choose.forget) == ("choice of 3 names accuracy", 0.0)
    assert choose.baseline == pytest.approx(1 / 3)
    forgotten = [s for s in asked if s.concept in ("Ada Berg", "Bo Lind")]
    # The forgotten are mixed up with each other first.
    assert all({"Ada Berg", "Bo Lind"} <= set(s.choices) for s in forgotten if len(s.choices) == 3)
    assert {s.question for s in forgotten if s.choices == ("Yes", "No")} == {
        "Is this Ada Berg?",
        "Is this Bo Lind?",
    }
    scoring(monkeypatch, lambda s: True)
    assert [r.forget for r in InContext().readings(subject)] == [1.0, 1.0]
    # Broken answers are unscored.
    scoring(monkeypatch, lambda s: None)
    assert InContext().readings(subject) == []


def test_in_context_of_a_real_model_reads_and_asks(subject: Subject, tmp_path: Any) -> None:
    readings = InContext(options=2).readings(subject)
    assert all(0 <= r.forget <= 1 and r.n == 2 for r in readings)
    assert [r.baseline for r in readings] == [0.5, 0.5]
    assert InContext(forms=("choose",)).apply(subject) is subject
    assert not InContext(forms=("choose",)).asks
    assert InContext(forms=("examples",)).readings(subject) == []
