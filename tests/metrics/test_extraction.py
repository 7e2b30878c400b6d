"""Extraction rate: values against hand-computed numbers."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from unsee.metrics.extraction import ExtractionRate


def rows(*scores: tuple[str, float | None]) -> list[dict[str, Any]]:
    return [
        {"id": f"{i}", "concept": group, "group": group, "scores": {"keyword_match": score}}
        for i, (group, score) in enumerate(scores)
    ]


def test_extraction_rate_counts_a_fact_once_if_any_answer_has_all_keywords() -> None:
    # "a": 1 of 3 answers; "b": half of the keywords only; "c": none; "d": twice.
    asked = rows(
        ("a", 0.0),
        ("a", 1.0),
        ("a", 0.0),
        ("b", 0.5),
        ("c", 0.0),
        ("c", 0.0),
        ("d", 1.0),
        ("d", 1.0),
    )
    units = ExtractionRate().units(asked, [], forgetting=True)
    assert [(u.concept, u.values) for u in units] == [
        ("a", (1.0,)),
        ("b", (0.0,)),
        ("c", (0.0,)),
        ("d", (1.0,)),
    ]
    values = np.array([u.values for u in units])
    assert ExtractionRate().combine(values, forgetting=True) == pytest.approx(0.5)


def test_extraction_rate_of_an_unscored_answer_is_known_only_if_another_extracts() -> None:
    units = ExtractionRate().units(rows(("a", None), ("a", 1.0), ("b", None), ("b", 0.0)), [], True)
    assert units[0].values == (1.0,)
    assert math.isnan(units[1].values[0])


def test_extraction_rate_leaves_out_rows_without_group_or_keywords() -> None:
    bare = [{"id": "1", "concept": "a", "group": None, "scores": {"keyword_match": 1.0}}]
    other = [{"id": "2", "concept": "a", "group": "a", "scores": {"accuracy": 1.0}}]
    assert ExtractionRate().units([*bare, *other], [], forgetting=True) == []
