"""The attack `figstep`: the question is drawn into a picture."""

from __future__ import annotations

import numpy as np

from unsee.attacks import Subject
from unsee.attacks.figstep import FigStep, render_text


def test_figstep_moves_the_question_into_the_picture(subject: Subject) -> None:
    original = subject.samples["forget_holdout"][0]
    question = FigStep(size=96).apply(subject).samples["forget_holdout"][0]
    assert original.question not in question.question
    assert question.pictures[0] == original.picture
    drawn = np.asarray(question.pictures[1].open())
    assert np.array_equal(drawn, np.asarray(render_text(original.question, 96)))
    assert (drawn < 128).any()
    below = FigStep(layout="below", size=96).apply(subject).samples["forget_holdout"][0]
    assert len(below.pictures) == 1 and below.picture
    assert below.picture.open().size == (96, 192)
