"""Metrics by hand, and what holds for every one of them."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from rouge_score.rouge_scorer import RougeScorer

from unsee.errors import ConfigError
from unsee.estimate import estimate
from unsee.evaluate import gap
from unsee.metrics import METRICS, Output
from unsee.types import Estimate, Sample

SENTENCE = Sample("1", "Where?", "Ada Berg lives in Oslo.", None, "Ada Berg")
WORD = Sample("2", "[Blank]", "baker", None, "Ada Berg", (), "cloze")
LETTER = Sample("3", "Which?", "B", None, "Ada Berg", ("a", "b"), "classification")


def score(name: str, sample: Sample, text: str = "", nll: float = math.nan) -> float:
    return METRICS.get(name)().score(sample, Output(text, nll))


@pytest.mark.parametrize(
    ("sample", "text", "expected"),
    [
        (SENTENCE, "Ada Berg lives in Oslo.", 1),
        (SENTENCE, "  ada berg lives in  Oslo", 1),
        (SENTENCE, "Ada Berg lives in Lima.", 0),
        (SENTENCE, "", 0),
        (LETTER, "B", 1),
        (LETTER, "b: baker", 1),
        (LETTER, "A", 0),
        (LETTER, "", 0),
        (LETTER, "The answer is B", 0),
    ],
)
def test_accuracy(sample: Sample, text: str, expected: float) -> None:
    assert score("accuracy", sample, text) == expected


def test_cloze_is_contained_and_only_for_cloze() -> None:
    assert score("cloze", WORD, "a Baker, I think") == 1
    assert score("cloze", WORD, "a pilot") == 0
    assert METRICS.get("cloze")().applies(WORD)
    assert not METRICS.get("cloze")().applies(SENTENCE)


def test_rouge_equals_the_reference_library() -> None:
    text = "Ada lives near Oslo"
    known = RougeScorer(["rougeL"], use_stemmer=True).score(SENTENCE.answer, text)["rougeL"]
    assert score("rouge_l", SENTENCE, text) == known.fmeasure
    assert score("rouge_l_recall", SENTENCE, text) == known.recall == pytest.approx(3 / 5)
    assert not METRICS.get("rouge_l")().applies(LETTER)


def test_probability_is_per_token() -> None:
    assert score("probability", SENTENCE, nll=-math.log(0.25)) == pytest.approx(0.25)


@pytest.mark.parametrize("name", METRICS.names())
def test_every_metric_is_bounded_and_leaves_unanswerable_samples_unscored(name: str) -> None:
    for sample in (SENTENCE, WORD, LETTER):
        for text, nll in (("", 9.0), (sample.answer, 0.0), ("something else", 0.7)):
            assert 0 <= score(name, sample, text, nll) <= 1
        assert score(name, sample, sample.answer, 0.0) == pytest.approx(1)
        for nothing in ("", " ", "."):
            assert math.isnan(score(name, replace(sample, answer=nothing), "x", 1.0))


def test_estimates_by_hand() -> None:
    found = estimate([1, 0, 1, 1, math.nan], ["a", "a", "b", "b", "b"], "lower")
    assert found.value == 0.75
    assert (found.n, found.n_unscored, found.better) == (4, 1, "lower")
    # Two people, scores .5 and 1: a resample is {.5, .75, 1}.
    assert (found.low, found.high) == (0.5, 1.0)
    assert estimate([math.nan], ["a"], "higher") == Estimate(None, None, None, 0, 1, "higher")


def test_intervals_are_over_people_and_not_over_questions() -> None:
    spread = estimate([1.0] * 50 + [0.0] * 50, ["a"] * 50 + ["b"] * 50, "higher")
    assert (spread.low, spread.high) == (0.0, 1.0)
    many = estimate([1.0, 0.0] * 50, [str(i) for i in range(100)], "higher")
    assert many.low is not None and many.high is not None
    assert 0.35 < many.low < 0.45 < 0.55 < many.high < 0.65


def test_order_does_not_matter() -> None:
    scores, people = [1.0, 0.0, 0.5, 0.25], ["a", "b", "a", "c"]
    forward = estimate(scores, people, "higher")
    backward = estimate(scores[::-1], people[::-1], "higher")
    assert forward.value == backward.value


def test_a_gap_without_a_reference_raises() -> None:
    mine = {"k": Estimate(0.5, 0.4, 0.6, 3, 0, "reference")}
    theirs = {"k": Estimate(0.2, 0.1, 0.3, 3, 0, "reference")}
    assert gap(mine, theirs, "k") == pytest.approx(0.3)
    for absent in (None, {}):
        with pytest.raises(ConfigError, match="--reference"):
            gap(mine, absent, "k")
