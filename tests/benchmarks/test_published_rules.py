"""Answers to published questions, scored as the published scripts score them and as ours do."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest

from support.published import WRITERS, open_benchmark
from unsee.benchmarks import BENCHMARKS
from unsee.errors import UnknownNameError
from unsee.evaluation.evaluate import evaluate
from unsee.evaluation.generation import answer_and_score
from unsee.metrics import METRICS, Metric, Output
from unsee.models.vlm import VLM
from unsee.recipes.benchmark_defaults import benchmark_fields
from unsee.types import Data, Sample

FACT = Sample(
    "1",
    "Where does she live?",
    "Ada lives in oslo.",
    keywords=("Oslo", "Ada B."),
    perturbed=("In lima.", "In bonn."),
)
GAP = Sample("2", "She is a [Blank].", "a baker.", task="cloze")
OPTIONS = ("baker", "pilot", "nurse", "judge")
CHOICE = Sample("3", "Job?", "baker", choices=OPTIONS, task="classification")
LETTER = replace(CHOICE, answer="B")


def score(name: str, rule: str, sample: Sample, output: Output) -> float:
    """The score of an output by a rule; "" is the metric's own."""
    metric: Metric = METRICS.get(name)()
    metric.rule = rule or metric.rule
    return metric.score_or_nan(sample, output)


@pytest.mark.parametrize(
    ("answer", "published", "own"),
    [
        # Cut after the first full stop: "ada b." ends there, and "oslo" comes later.
        ("She is Ada B. from Oslo.", 0.5, 1.0),
        ("Oslo. Not Lima.", 0.5, 0.5),
        # Without a full stop nothing is left.
        ("She lives in Oslo", 0.0, 0.5),
        ("", math.nan, math.nan),
    ],
)
def test_keyword_match_of_fiubench_cuts_at_the_first_full_stop(
    answer: str, published: float, own: float
) -> None:
    output = Output(answer, fault=None if answer else "empty")
    found = [score("keyword_match", rule, FACT, output) for rule in ("fiubench", "")]
    assert found == pytest.approx([published, own], nan_ok=True)


@pytest.mark.parametrize(
    ("answer", "published", "own"),
    [
        # Of the four words of the true answer: ada, live; then also in, oslo.
        ("Ada lives. In Oslo.", 0.5, 1.0),
        ("Ada lives in Oslo", 0.0, 1.0),
        ("Ada lives in Oslo.", 1.0, 1.0),
    ],
)
def test_rouge_of_fiubench_cuts_at_the_first_full_stop(
    answer: str, published: float, own: float
) -> None:
    found = [score("rouge_l_recall", rule, FACT, Output(answer)) for rule in ("fiubench", "")]
    assert found == pytest.approx([published, own])


def test_probability_of_fiubench_is_relative_on_the_retain_split() -> None:
    output = Output(nll=math.log(2), perturbed=(math.log(4), math.log(4)))
    # 1/2 of 1/2 + 1/4 + 1/4.
    assert score("probability", "relative", FACT, output) == pytest.approx(0.5)
    assert score("probability", "", FACT, output) == pytest.approx(0.5)
    output = replace(output, perturbed=(math.log(8), math.log(8)))
    assert score("probability", "relative", FACT, output) == pytest.approx(2 / 3)
    assert score("probability", "relative", replace(FACT, perturbed=()), Output(nll=0.0)) == 1


def test_truth_ratio_of_fiubench_averages_logarithms() -> None:
    output = Output(nll=0.0, paraphrases=(math.log(2),), perturbed=(math.log(2), math.log(8)))
    # exp of the mean logarithm of 1/2 and 1/8 is 1/4; their mean is 5/16; over 1/2.
    assert score("truth_ratio", "logarithms", FACT, output) == pytest.approx(0.5)
    assert score("truth_ratio", "", FACT, output) == pytest.approx(0.625)


def test_rouge_of_safeeraser_is_the_precision() -> None:
    # Three of the six words of the answer are the three first of the four true ones.
    output = Output("Ada lives in a small town")
    assert score("rouge_l", "safeeraser", FACT, output) == pytest.approx(0.5)
    assert score("rouge_l", "", FACT, output) == pytest.approx(0.6)


@pytest.mark.parametrize(
    ("answer", "published", "own"),
    [
        ("A BAKER. I think", 1.0, 1.0),
        # The true filling ends with a full stop, which the published script looks for.
        ("a baker", 0.0, 1.0),
        ("a  baker.", 0.0, 1.0),
        ("a pilot.", 0.0, 0.0),
    ],
)
def test_cloze_of_mllmu_looks_for_the_whole_text(answer: str, published: float, own: float) -> None:
    assert [score("cloze", rule, GAP, Output(answer)) for rule in ("mllmu", "")] == [published, own]


def test_cloze_of_mllmu_scores_a_cut_answer() -> None:
    cut = Output("she is a", fault="cut")
    assert score("cloze", "mllmu", GAP, cut) == 0
    assert math.isnan(score("cloze", "", GAP, cut))


@pytest.mark.parametrize(
    ("answer", "exact", "closest", "own"),
    [
        ("baker", 1.0, 1.0, 1.0),
        (" baker ", 1.0, 1.0, 1.0),
        ("Baker", 0.0, 1.0, 1.0),
        ("baker.", 0.0, 1.0, 1.0),
        # As near to one option as to another: the first counts.
        ("A", 0.0, 1.0, 1.0),
        ("a bakery", 0.0, 1.0, 0.0),
        ("pilot", 0.0, 0.0, 0.0),
    ],
)
def test_choices_of_umu_are_answered_by_the_text_of_an_option(
    answer: str, exact: float, closest: float, own: float
) -> None:
    rules = ("umu", "umu_closest", "")
    found = [score("accuracy", rule, CHOICE, Output(answer)) for rule in rules]
    assert found == [exact, closest, own]


def test_letters_follow_the_rule_of_each_benchmark() -> None:
    answers = ("B", "b) pilot", "(B)", "The answer is B", "banker")
    wanted = {
        "mllmu": [1, 1, 0, 0, 1],
        "mmunlearner": [1, 1, 1, 0, 1],
        "stated": [1, 1, 1, 1, 0],
    }
    for rule, scores in wanted.items():
        assert [score("accuracy", rule, LETTER, Output(a)) for a in answers] == scores
    assert BENCHMARKS.get("mllmu").rules["accuracy"] == "mllmu"
    assert BENCHMARKS.get("clear").rules["accuracy"] == "mmunlearner"


@pytest.mark.parametrize("name", BENCHMARKS.names())
def test_rules_of_benchmarks_are_known_to_their_metrics(name: str) -> None:
    kind = BENCHMARKS.get(name)
    for key, rule in kind.rules.items():
        split, _, metric = key.rpartition("/")
        assert not split or split in kind.splits
        assert rule in METRICS.get(metric).rules
        # The first is the default.
        assert METRICS.get(metric).rule == METRICS.get(metric).rules[0] != rule


@pytest.mark.parametrize("name", WRITERS)
def test_own_rules_leave_the_published_ones_out(places: dict[str, Path], name: str) -> None:
    benchmark = open_benchmark(places, name)
    published = benchmark_fields(benchmark, {})
    own = benchmark_fields(benchmark, {}, "own")
    assert published["rules"] == benchmark.rules
    assert published["benchmark"].get("rules", {}) == benchmark.rules
    assert own["rules"] == {}
    assert "rules" not in own["benchmark"]


def test_evaluate_takes_the_rule_of_each_split(tiny: VLM, data: Data) -> None:
    sample = replace(data.forget[0], perturbed=("This is Bo Lind.",), task="generation")
    found = evaluate(
        tiny,
        {"forget": [sample], "retain": [sample]},
        metrics=["probability"],
        rules={"retain/probability": "relative"},
    ).measures
    true, false = (
        math.exp(-nll)
        for nll in answer_and_score(
            tiny, [sample, replace(sample, answer=sample.perturbed[0])], generate_answers=False
        )[1]
    )
    assert found["forget/vqa/probability"].value == pytest.approx(true, rel=1e-4)
    relative = found["retain/vqa/probability"].value
    assert relative == pytest.approx(true / (true + false), rel=1e-4)
    with pytest.raises(UnknownNameError, match="Did you mean 'relative'"):
        evaluate(tiny, {"a": [sample]}, metrics=["probability"], rules={"probability": "relativ"})


def test_answer_limits_by_task_cut_each_answer(tiny: VLM, data: Data) -> None:
    samples = [
        replace(data.forget[0], task="generation"),
        replace(data.forget[0], task="cloze"),
    ]
    limits = {"generation": 6, "cloze": 2}
    together = answer_and_score(tiny, samples, score_answers=False, max_new_tokens=limits)[0]
    apart = [
        answer_and_score(tiny, [s], score_answers=False, max_new_tokens=limits[s.task])[0][0]
        for s in samples
    ]
    assert together == apart
    assert together[0].startswith(together[1])
