"""The attack `cross_modal`: questions about a name instead of a picture."""

from __future__ import annotations

from dataclasses import replace

from unsee.attacks import Subject
from unsee.attacks.cross_modal import CrossModal
from unsee.types import Data, Sample


def test_cross_modal_replaces_the_picture_by_the_name(subject: Subject, data: Data) -> None:
    picture = data.forget[0].picture
    name, letter, gap = "Ada Berg", "classification", "The name of this person is [Blank]."
    job = "Look at the picture. What is the job of this person?"
    samples = [
        Sample("a", job, "Ada Berg is a baker.", picture, name),
        Sample("b", "Who is the person shown here?", "This is Ada Berg.", picture, name),
        Sample("c", "Describe the hobby.", "chess", picture, name),
        Sample("d", "What colour is it?", "red", picture),
        Sample("e", "Which name?\nA: Ada Berg", "A", picture, name, (name,), letter),
        Sample("f", gap, name, picture, name, (), "cloze"),
    ]
    attacked = CrossModal().apply(replace(subject, samples={"forget_holdout": samples}))
    questions = attacked.samples["forget_holdout"]
    assert [s.id for s in questions] == ["a", "c"]
    assert questions[0].question == "What is the job of Ada Berg?"
    assert questions[1].question == "About Ada Berg: Describe the hobby."
    assert all(s.picture is None for s in questions)
