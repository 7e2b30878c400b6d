"""The attack `prototype`: the mean feature of a few pictures as a classifier."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from unsee.attacks import Subject
from unsee.attacks.probe import Probe
from unsee.attacks.prototype import Prototype
from unsee.errors import DataError
from unsee.evaluation.recognition import nearest_prototypes

PEOPLE = tuple("abcd")


def test_nearest_prototypes_name_separable_features_without_error() -> None:
    rng = np.random.default_rng(0)
    labels = [person for person in PEOPLE for _ in range(5)]
    # One axis per person, with noise that is small against it, and a large common offset.
    offset = 10.0
    states = np.eye(4)[[PEOPLE.index(x) for x in labels]] + 0.05 * rng.normal(size=(20, 4)) + offset
    tested = np.eye(4) + 0.05 * rng.normal(size=(4, 4)) + offset
    assert nearest_prototypes(states, labels, tested) == list(PEOPLE)


def test_nearest_prototypes_of_shuffled_labels_are_at_chance() -> None:
    rng = np.random.default_rng(1)
    labels = [person for person in PEOPLE for _ in range(5)]
    states = np.eye(4)[[PEOPLE.index(x) for x in labels]] + 0.05 * rng.normal(size=(20, 4))
    right = [
        name == label
        for _ in range(200)
        for name, label in zip(
            nearest_prototypes(states, list(rng.permutation(labels)), states), labels, strict=True
        )
    ]
    # Of a label's own pictures, the shuffle leaves a quarter; the own picture is not left out.
    assert np.mean(right) == pytest.approx(0.25, abs=0.08)
    # Where all prototypes are equal, every picture gets the same name.
    same = np.ones((20, 4))
    assert set(nearest_prototypes(same, labels, np.ones((8, 4)))) == {"a"}


def test_nearest_prototypes_equal_hand_computed_names() -> None:
    # Means: a (2, 0), b (0, 2); centre (1, 1). (3, 2) - centre = (2, 1), nearer to a's (1, -1).
    states = np.array([[1.0, 0.0], [3.0, 0.0], [0.0, 2.0]])
    tested = np.array([[3.0, 2.0], [0.0, 3.0]])
    assert nearest_prototypes(states, ["a", "a", "b"], tested) == ["a", "b"]
    assert nearest_prototypes(states, ["a", "a", "b"], np.empty((0, 2))) == []


def test_prototype_reads_an_accuracy_per_layer(subject: Subject) -> None:
    readings = Prototype(k=1, layers=("upper", "language")).readings(subject)
    assert [r.name for r in readings] == [
        r.name for r in Probe(layers=("upper", "language")).readings(subject)
    ]
    assert readings[0].details == {"classes": 4, "pictures": 4}
    assert all(0 <= r.forget <= 1 and r.baseline == 0.25 and r.n == 2 for r in readings)
    # Someone with fewer pictures than k sets the number for everyone.
    assert Prototype(k=9, layers=("projector",)).readings(subject)[0].details["pictures"] == 8


def test_prototype_of_the_tested_pictures_names_them_all(subject: Subject) -> None:
    seen = replace(subject, samples={"forget_holdout": subject.attacker_samples})
    (reading,) = Prototype(k=1, layers=("projector",)).readings(
        replace(seen, samples={"forget_holdout": [subject.attacker_samples[0]]})
    )
    assert reading.forget == 1.0


def test_prototype_refuses_data_of_fewer_than_two_people(subject: Subject) -> None:
    with pytest.raises(DataError, match="the prototype attack needs two people"):
        Prototype().readings(replace(subject, attacker_samples=[], retain=[]))
