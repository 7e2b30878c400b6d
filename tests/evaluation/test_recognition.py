"""Recognition by features, against values computed by hand."""

from __future__ import annotations

import numpy as np

from unsee.evaluation.recognition import FALSE_ACCEPTS, recognise_people, tpr_at_fpr

# Two people in opposite directions; the mean of the gallery is the origin.
GALLERY = np.array([[2.0, 0.0], [1.0, 1.0], [-2.0, 0.0], [-1.0, -1.0]])
LABELS = ["ada", "ada", "bo", "bo"]


def test_recognise_people_equals_values_computed_by_hand() -> None:
    tested = np.array([[1.0, 0.0], [-1.0, 0.0], [1.0, 0.1]])
    found = recognise_people(GALLERY, LABELS, tested, ["ada", "ada", "bo"])
    # Ada's first picture is next to Ada, the second one next to Bo; Bo's is next to Ada.
    assert found["ada"].rank_1 == 0.5
    assert found["bo"].rank_1 == 0.0
    # Cosines of the first: 1, 0.71 to Ada and -1, -0.71 to Bo; of the second the opposite.
    # Of the 4 x 4 pairs of a same and a different one, 8 are ordered right or tied in equal parts.
    assert found["ada"].verification_auc == 0.5
    assert found["bo"].verification_auc == 0.0
    # Four pairs of different people are too few to accept one in a hundred of them.
    assert found["ada"].verification_rate is None


def test_recognise_people_leaves_out_the_picture_itself() -> None:
    gallery = np.array([[2.0, 0.0], [-2.0, 0.2], [-2.0, 0.0]])
    labels = ["ada", "ada", "bo"]
    alone = recognise_people(gallery, labels, gallery[:1], ["ada"])
    assert alone["ada"].rank_1 == 1.0
    without = recognise_people(gallery, labels, gallery[:1], ["ada"], [0])
    assert without["ada"].rank_1 is not None
    # One's only other picture: there is nobody else to be compared with, or the rest decides.
    one = recognise_people(gallery[:1], ["ada"], gallery[:1], ["ada"], [0])
    assert one == {}


def test_recognise_people_scores_no_person_who_is_not_enrolled() -> None:
    assert recognise_people(GALLERY, LABELS, GALLERY[:1], ["cy"]) == {}


def test_random_features_are_recognised_by_chance() -> None:
    rng = np.random.default_rng(0)
    people = [str(i) for i in range(40) for _ in range(3)]
    gallery, tested = rng.normal(size=(120, 16)), rng.normal(size=(120, 16))
    found = recognise_people(gallery, people, tested, people).values()
    assert np.mean([one.rank_1 for one in found]) < 0.1
    assert abs(np.mean([one.verification_auc for one in found]) - 0.5) < 0.05
    assert np.mean([one.verification_rate for one in found]) < 0.05


def test_separated_features_are_recognised_without_error() -> None:
    rng = np.random.default_rng(0)
    centers = rng.normal(size=(20, 16))
    people = [str(i) for i in range(20) for _ in range(3)]
    pictures = np.repeat(centers, 3, 0)
    gallery, tested = (pictures + 0.01 * rng.normal(size=pictures.shape) for _ in range(2))
    for one in recognise_people(gallery, people, tested, people).values():
        assert (one.rank_1, one.verification_auc, one.verification_rate) == (1.0, 1.0, 1.0)


def test_false_accepts_are_the_declared_share() -> None:
    different = np.arange(1000.0)
    assert tpr_at_fpr(different, different, FALSE_ACCEPTS) == FALSE_ACCEPTS
