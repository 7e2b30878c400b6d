"""Captions among which an image encoder finds that of a picture: values computed by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from unsee.evaluation.captions import OTHERS, draw_captions, match_captions
from unsee.metrics import METRICS, CaptionMatch, Output
from unsee.types import Picture, Sample

PAIR = Sample("1", "", "Ada Berg: 5", Picture("a.png"), "Ada Berg", task="caption")
# Of length 5, so that their cosines with the first axis are 1, 0.6, 0 and -0.8.
TEXTS = np.array([[5.0, 0.0], [3.0, 4.0], [0.0, 5.0], [-4.0, 3.0]])


def scores(match: CaptionMatch | None) -> dict[str, float]:
    names = ("caption_rank", "caption_found", "association", "association_gap")
    return {name: METRICS.get(name)().score(PAIR, Output(match=match)) for name in names}


def test_second_nearest_caption_of_four() -> None:
    own = np.array([False, True, False, False])
    (match,) = match_captions(np.array([[2.0, 0.0]]), TEXTS[[1]], TEXTS, own[None])
    assert match is not None
    # The others' cosines are 1, 0 and -0.8: their mean is 0.2 / 3.
    assert scores(match) == pytest.approx(
        {
            "caption_rank": 0.5,
            "caption_found": 0.0,
            "association": 0.6,
            "association_gap": 0.6 - 0.2 / 3,
        }
    )


def test_nearest_caption_is_found() -> None:
    (match,) = match_captions(
        np.array([[2.0, 0.1]]), TEXTS[[0]], TEXTS[1:], np.zeros((1, 3), dtype=bool)
    )
    found = scores(match)
    assert (found["caption_rank"], found["caption_found"]) == (1.0, 1.0)


def test_a_tower_that_maps_all_texts_to_one_point_finds_none() -> None:
    one = np.ones((9, 2), dtype=np.float32) * np.linspace(1, 3, 9, dtype=np.float32)[:, None]
    (match,) = match_captions(
        np.array([[1.0, 0.5]]), one[:1], one[1:], np.zeros((1, 8), dtype=bool)
    )
    assert match is not None
    assert match.rank == 5
    assert scores(match)["caption_found"] == 0.0


def test_what_cannot_be_compared_is_unscored() -> None:
    nothing = np.zeros((1, 4), dtype=bool)
    assert match_captions(np.array([[math.nan, 1.0]]), TEXTS[:1], TEXTS, nothing) == [None]
    assert all(math.isnan(value) for value in scores(None).values())
    (alone,) = match_captions(TEXTS[:1], TEXTS[:1], TEXTS, ~nothing)
    found = scores(alone)
    assert found.pop("association") == 1.0
    assert all(math.isnan(value) for value in found.values())


def test_captions_are_drawn_of_both_sides_and_once() -> None:
    def pairs(word: str, count: int) -> list[Sample]:
        return [Sample(f"{i}", "", f"{word} {i // 2}") for i in range(2 * count)]

    splits = {"forget": pairs("fact", 1500), "holdout": pairs("other", 3), "retain": pairs("a", 2)}
    drawn = draw_captions(splits, ["forget"])
    assert drawn == draw_captions(splits, ["forget"])
    assert len(set(drawn)) == len(drawn) == OTHERS + 2
    assert sum(text.startswith("fact") for text in drawn) == OTHERS
    assert not any(text.startswith("other") for text in drawn)
    # Without plain captions the held-out ones stand in.
    del splits["retain"]
    assert {"other 0", "other 1", "other 2"} <= set(draw_captions(splits, ["forget"]))


def test_bare_fact_counts_in_the_nearer_order() -> None:
    told = Sample("1", "", "Ada Berg: 5", PAIR.picture, task="caption", paraphrases=("a", "b"))
    metric = METRICS.get("core_association")()
    assert metric.applies(told)
    assert not metric.applies(PAIR)
    picture, nothing = np.array([[2.0, 0.0]]), np.zeros((1, 4), dtype=bool)
    # The wordings' cosines with the picture are -0.8 and 0.6.
    (match,) = match_captions(picture, TEXTS[:1], TEXTS, nothing, [TEXTS[[3, 1]]])
    assert metric.score(told, Output(match=match)) == pytest.approx(0.6)
    (match,) = match_captions(picture, TEXTS[:1], TEXTS[:0], nothing[:, :0], [TEXTS[[3]]])
    assert metric.score(told, Output(match=match)) == pytest.approx(-0.8)
    broken = np.array([[math.nan, 1.0]])
    assert match_captions(picture, TEXTS[:1], TEXTS, nothing, [broken]) == [None]
