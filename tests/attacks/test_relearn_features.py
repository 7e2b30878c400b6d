"""The attack `relearn_features`: training on pictures alone to tell people apart again."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from unsee.attacks import Subject
from unsee.attacks.relearn import attacker_settings
from unsee.attacks.relearn_features import RelearnFeatures, rank_1, train_identities
from unsee.errors import DataError
from unsee.losses import supervised_contrastive


def test_supervised_contrastive_equals_a_hand_computed_value() -> None:
    features = torch.tensor([[2.0, 0.0], [1.0, 0.0], [0.0, 3.0], [0.0, 1.0], [-1.0, 0.0]])
    labels = torch.tensor([0, 0, 1, 1, 2])
    # Cosines with own class 1; with the others 0, and -1 of the last with the first class.
    first = -np.log(np.e / (np.e + 2 + 1 / np.e))
    second = -np.log(np.e / (np.e + 3))
    expected = (2 * first + 2 * second) / 4
    assert float(supervised_contrastive(features, labels, 1.0)) == pytest.approx(expected, abs=1e-6)
    alone = supervised_contrastive(features, torch.arange(5), 1.0)
    assert float(alone) == 0


def test_training_on_people_brings_their_features_together(subject: Subject) -> None:
    known = [s for s in subject.attacker_samples if s.picture is not None]
    known += [s for s in subject.retain if s.picture is not None]
    vlm = subject.vlm.copy()
    language = vlm.hash("language")
    before = np.mean(rank_1(vlm, known, known))
    train_identities(vlm, known, attacker_settings(30, 1e-3, 4, 0))
    assert np.mean(rank_1(vlm, known, known)) >= before
    assert vlm.hash("language") == language
    assert vlm.hash("visual") != subject.vlm.hash("visual")


def test_reading_counts_people_and_the_attackers_pictures(subject: Subject) -> None:
    (reading,) = RelearnFeatures(steps=2, batch_size=4, share=1.0).readings(subject)
    assert reading.name == "rank-1 after 2 steps"
    known = {s.concept for s in (*subject.attacker_samples, *subject.retain)}
    assert reading.details["people"] == len(known)
    assert reading.baseline == 1 / len(known)
    pictures = {s.picture.source for s in subject.attacker_samples if s.picture is not None}
    assert reading.details["pictures"] == len(pictures)
    assert 0 <= reading.forget <= 1
    assert 0 <= reading.details["before"] <= 1


def test_pictures_of_one_person_alone_are_refused(subject: Subject) -> None:
    person = subject.attacker_samples[0].concept
    some = [s for s in subject.attacker_samples if s.concept == person]
    with pytest.raises(DataError, match="needs pictures of two people"):
        RelearnFeatures(steps=1).readings(replace(subject, attacker_samples=some, retain=()))
