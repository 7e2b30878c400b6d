"""Names in answers about groups, against values computed by hand and published ones."""

from __future__ import annotations

import math

import numpy as np
import pytest

from unsee.metrics import METRICS, Output
from unsee.metrics.groups import GroupF1, says_name
from unsee.types import Sample

PEOPLE = ("Ada Berg", "Bo Lind", "Cy Moser", "Queen Eva II")
GROUP = Sample("1", "Who ?", ", ".join(PEOPLE), concept="Ada Berg", keywords=PEOPLE)


@pytest.mark.parametrize(
    ("answer", "person", "others"),
    [
        ("Ada Berg, Bo Lind, Cy Moser and Queen Eva II.", 1.0, 1.0),
        ("MOSER and lind", 0.0, 2 / 3),
        ("Berg.", 1.0, 0.0),
        ("Elizabeth II, Bergman and Ada Quist", 0.0, 0.0),
        ("", 0.0, 0.0),
    ],
)
def test_people_are_named_by_whole_or_last_name(answer: str, person: float, others: float) -> None:
    said = [METRICS.get(n)().score(GROUP, Output(answer)) for n in ("person_named", "others_named")]
    assert said == pytest.approx([person, others])


def test_names_of_other_scripts_are_found() -> None:
    assert says_name("图中是苏姿丰。", "苏姿丰")
    assert not says_name("nobody", "")
    assert not says_name("nobody", " ")


# TFA, NTRA and GRF-F1 of GA, SIU and AUVIC on one person, arXiv 2511.11299, table 1.
@pytest.mark.parametrize(
    ("forgotten", "kept", "f1"),
    [(0.8448, 0.3017, 0.4446), (0.9235, 0.6349, 0.7525), (0.9364, 0.8317, 0.8810), (0, 0, 0)],
)
def test_group_f1_equals_published_values(forgotten: float, kept: float, f1: float) -> None:
    values = np.array([[1 - forgotten, kept]] * 2)
    assert GroupF1().combine(values, True) == pytest.approx(f1, abs=1e-4)


def test_group_f1_counts_photographs_of_the_person_with_others() -> None:
    rows = [
        {"id": "1", "concept": "Ada", "scores": {"person_named": 1.0, "others_named": 0.5}},
        {"id": "2", "concept": "Ada", "scores": {"person_named": 0.0, "others_named": None}},
        {"id": "3", "concept": "Ada", "scores": {"person_named": 0.0}},
    ]
    units = GroupF1().units(rows, [], True)
    assert [unit.concept for unit in units] == ["Ada", "Ada"]
    assert units[0].values == (1.0, 0.5)
    assert math.isnan(units[1].values[1])
