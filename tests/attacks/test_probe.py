"""The attack `probe`: classifiers on inner activations."""

from __future__ import annotations

from dataclasses import replace

import pytest

from unsee.attacks import Subject
from unsee.attacks.probe import Probe
from unsee.errors import DataError


def test_probe_reads_an_accuracy_per_layer(subject: Subject) -> None:
    layers = ("projector", "language", "language.1")
    readings = Probe(layers=layers).readings(subject)
    assert [r.name for r in readings] == [f"{layer} accuracy" for layer in layers]
    assert readings[0].details == {"classes": 4, "fitted_on": 8}
    assert all(0 <= r.forget <= 1 and r.n == 2 for r in readings)
    assert all(r.low is None and r.high is None for r in readings)  # fewer than five people


def test_probe_refuses_data_of_fewer_than_two_people(subject: Subject) -> None:
    with pytest.raises(DataError, match="needs two people"):
        Probe().readings(replace(subject, attacker_samples=[], retain=[]))
