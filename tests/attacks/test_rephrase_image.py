"""The attack `rephrase_image`: other views of the same person."""

from __future__ import annotations

import numpy as np

from unsee.attacks import VARIANT, Subject
from unsee.attacks.rephrase_image import RephraseImage


def test_rephrase_image_asks_about_other_views_of_the_same_person(subject: Subject) -> None:
    questions = RephraseImage().apply(subject).samples["forget_holdout"]
    originals = subject.samples["forget_holdout"]
    assert len(questions) == 6 * len(originals)
    flipped = next(s for s in questions if s.id.endswith(f"{VARIANT}flip"))
    original = next(s for s in originals if flipped.id.startswith(s.id))
    assert flipped.picture and original.picture
    assert np.array_equal(
        np.asarray(flipped.picture.open()), np.asarray(original.picture.open())[:, ::-1]
    )
    other = next(s for s in questions if s.id.endswith(f"{VARIANT}other"))
    same_person = {s.picture for s in subject.attacker_samples if s.concept == other.concept}
    assert other.picture in same_person
