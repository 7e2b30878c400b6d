"""Laws that hold for every registered metric."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from support.metrics import (
    CLOZE,
    LETTER,
    SAMPLE_METRICS,
    SENTENCE,
    SET_METRICS,
    score_rows,
    set_estimate,
)
from unsee.metrics import METRICS, CaptionMatch, Output
from unsee.types import Picture

WITH_KEYWORDS = replace(SENTENCE, keywords=("Oslo",), perturbed=("Ada Berg lives in Lima.",))
RANKED = replace(SENTENCE, task="ranking", choices=(SENTENCE.answer, "in Lima"))
UNSAFE = replace(SENTENCE, task="unsafe")
CAPTION = replace(SENTENCE, task="caption", picture=Picture("a.png"))
REWORDED = replace(CAPTION, paraphrases=("Ada Berg Oslo",))
SAMPLES = (SENTENCE, CLOZE, LETTER, WITH_KEYWORDS, RANKED, UNSAFE, CAPTION, REWORDED)
# The output of a model that is certain of the true answer, without its text.
CERTAIN = Output(
    "", nll=0.0, perturbed=(99.0,), choices=(0.0, 99.0), tokens=2,
    match=CaptionMatch(1.0, -1.0, 1, reworded=1.0),
)  # fmt: skip
BOUNDS = {"0..1": (0.0, 1.0), "nats": (-math.inf, 0.0), "-1..1": (-1, 1), "-2..2": (-2, 2)}


@pytest.mark.parametrize("name", SAMPLE_METRICS)
def test_metric_is_bounded_and_best_on_the_true_answer(name: str) -> None:
    metric = METRICS.get(name)()
    scored = [sample for sample in SAMPLES if metric.applies(sample)]
    assert scored and metric.better in ("lower", "higher") and metric.unit and metric.source
    for sample in scored:
        for text, nll in (("", 9.0), (sample.answer, 0.0), ("I cannot say", 0.7)):
            output = Output(
                text, nll, (), (nll,) * len(sample.perturbed), (nll, 1.0), tokens=2,
                match=CaptionMatch(-nll / 9, nll / 9, 1 + nll, reworded=-nll / 9),
            )  # fmt: skip
            low, high = BOUNDS[metric.unit]
            for forgetting in (False, True):
                assert low <= metric.reported(metric.score(sample, output), forgetting) <= high
        if sample.task not in ("unsafe", "harmless"):
            best = replace(CERTAIN, text=sample.answer)
            wanted = BOUNDS[metric.unit][metric.better == "higher"]
            assert metric.reported(metric.score(sample, best), False) == pytest.approx(wanted)


@pytest.mark.parametrize("name", SAMPLE_METRICS)
def test_score_without_a_true_answer_is_nan(name: str) -> None:
    metric = METRICS.get(name)()
    for sample in SAMPLES:
        for nothing in ("", " ", "."):
            unanswered = replace(sample, answer=nothing, keywords=())
            if metric.applies(unanswered) and sample.task != "unsafe":
                output = Output("x", 1.0, (), (1.0,), (1.0, 2.0))
                assert math.isnan(metric.score(unanswered, output))


@pytest.mark.parametrize("name", SET_METRICS)
@pytest.mark.parametrize("forgetting", [False, True])
def test_set_metric_is_bounded_and_independent_of_group_order(name: str, forgetting: bool) -> None:
    rows = score_rows([0.0, 1.0, 1.0, 1.0, 0.3, 0.6, 0.9, 0.2, 0.0, 0.0, 0.7, 0.4], people=6)
    measure = set_estimate(name, rows, forgetting)
    assert measure.value is not None and measure.low is not None and measure.high is not None
    assert 0 <= measure.low <= measure.value <= measure.high <= 1
    reordered = [row for i in range(len(rows) - 2, -1, -2) for row in rows[i : i + 2]]
    assert set_estimate(name, reordered, forgetting).value == pytest.approx(measure.value)


@pytest.mark.parametrize("name", SET_METRICS)
def test_set_metric_counts_unscored_units(name: str) -> None:
    partly = set_estimate(name, score_rows([0.5, 0.5, 0.5, 0.5, math.nan, math.nan]))
    assert partly.n_unscored * 3 == partly.n_unscored + partly.n and partly.n_unscored > 0
    unscored = set_estimate(name, score_rows([math.nan, math.nan]))
    assert (unscored.value, unscored.n) == (None, 0) and unscored.n_unscored > 0
    assert METRICS.get(name)().units([], [], False) == []
