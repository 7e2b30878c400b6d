"""Widened views of few photographs, and the note on how far few carry."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from unsee.data.widening import (
    FEW,
    STUDY,
    STUDY_TARGET,
    few_note,
    few_photographs,
    how_far,
    widened,
)
from unsee.types import Picture, Sample

ROWS = Path(__file__).parents[2] / "experiments" / "quality" / "photograph_count.jsonl"


@pytest.fixture
def samples(tmp_path: Path) -> list[Sample]:
    """One photograph of Ada, asked about twice, and ten of Bo."""
    shown = []
    for number in range(11):
        pixels = np.random.default_rng(number).integers(0, 255, (24, 20, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"{number}.png")
        name = "ada" if number == 0 else "bo"
        picture = Picture.from_path(tmp_path / f"{number}.png")
        shown.append(Sample(str(number), "", "", picture, name))
    return [*shown, Sample("again", "", "", shown[0].picture, "ada")]


def test_few_photographs_counts_distinct_ones(samples: list[Sample]) -> None:
    assert few_photographs(samples) == {"ada": 1}
    assert few_photographs(samples, FEW + 1) == {"ada": 1, "bo": 10}


def test_widened_brings_everybody_up_to_the_number(samples: list[Sample]) -> None:
    views = widened(samples, 4, 0)
    assert [(view.concept, view.id) for view in views] == [("ada", f"0~{n}") for n in range(3)]
    digests = {s.picture.digest for s in (samples[0], *views) if s.picture}
    assert len(digests) == 4
    again, other = widened(samples, 4, 0), widened(samples, 4, 1)
    assert [s.picture for s in again] == [s.picture for s in views]
    assert [s.picture for s in other] != [s.picture for s in views]
    assert widened(samples, 0, 0) == []


def test_few_note_counts_and_names_nobody() -> None:
    note = few_note({"ada": 1, "bo": 2})
    assert note.startswith("2 people have fewer than 10 photographs, the fewest 1. On pocket, ")
    assert "ada" not in note
    assert how_far(1) in note
    assert how_far(3) in few_note({"ada": 3})


def test_how_far_quotes_the_study_of_no_more_photographs() -> None:
    for given in range(1, FEW):
        known = max(count for count in STUDY if count <= given)
        assert f"{100 * STUDY[known]:.0f} %" in how_far(given)
        assert f"from {known} photograph" in how_far(given)


def test_study_is_what_the_kept_rows_say() -> None:
    rows = [json.loads(line) for line in ROWS.read_text("utf-8").splitlines()]
    shares: dict[int, list[float]] = {}
    for row in rows:
        if row["settings"] in ("", "no views"):
            shares.setdefault(row["photographs"], []).append(row["forgotten"])
    means = {count: sum(values) / len(values) for count, values in shares.items()}
    assert means.pop(0) == pytest.approx(STUDY_TARGET, abs=0.005)
    assert means == pytest.approx(STUDY, abs=0.005)
