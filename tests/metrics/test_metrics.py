"""Metrics by hand, and what holds for every one of them."""

from __future__ import annotations

import math
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import sacrebleu
from rouge_score.rouge_scorer import RougeScorer
from scipy import stats
from scipy.spatial.distance import jensenshannon

from unsee.errors import ConfigError
from unsee.evaluation.bootstrap import estimate_set
from unsee.evaluation.evaluate import DEFAULT_METRICS
from unsee.metrics import METRICS, Output, SetMetric, reference_metrics, select_metrics
from unsee.metrics.utility import harmonic_mean
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
def test_accuracy_equals_hand_computed_values(sample: Sample, text: str, expected: float) -> None:
    assert score("accuracy", sample, text) == expected


def test_cloze_looks_for_the_filling_in_cloze_answers_only() -> None:
    assert score("cloze", WORD, "a Baker, I think") == 1
    assert score("cloze", WORD, "a pilot") == 0
    assert METRICS.get("cloze")().applies(WORD)
    assert not METRICS.get("cloze")().applies(SENTENCE)


def test_rouge_equals_rouge_score() -> None:
    text = "Ada lives near Oslo"
    known = RougeScorer(["rougeL"], use_stemmer=True).score(SENTENCE.answer, text)["rougeL"]
    assert score("rouge_l", SENTENCE, text) == known.fmeasure
    assert score("rouge_l_recall", SENTENCE, text) == known.recall == pytest.approx(3 / 5)
    assert not METRICS.get("rouge_l")().applies(LETTER)


def test_probability_is_per_token() -> None:
    assert score("probability", SENTENCE, nll=-math.log(0.25)) == pytest.approx(0.25)


SAMPLE_METRICS = [n for n, m in METRICS.items() if not issubclass(m, SetMetric)]
SET_METRICS = [n for n, m in METRICS.items() if issubclass(m, SetMetric)]
RICH = replace(SENTENCE, keywords=("Oslo",), perturbed=("Ada Berg lives in Lima.",))
RANKED = replace(SENTENCE, task="ranking", choices=(SENTENCE.answer, "in Lima"))
UNSAFE = replace(SENTENCE, task="unsafe")
SAMPLES = (SENTENCE, WORD, LETTER, RICH, RANKED, UNSAFE)
PERFECT = {"text": SENTENCE.answer, "nll": 0.0, "perturbed": (99.0,), "choices": (0.0, 99.0)}


@pytest.mark.parametrize("name", SAMPLE_METRICS)
def test_metric_is_bounded_and_best_on_the_true_answer(name: str) -> None:
    metric = METRICS.get(name)()
    scored = [sample for sample in SAMPLES if metric.applies(sample)]
    assert scored and metric.better in ("lower", "higher") and metric.unit and metric.source
    for sample in scored:
        for text, nll in (("", 9.0), (sample.answer, 0.0), ("I cannot say", 0.7)):
            output = Output(text, nll, (), (nll,) * len(sample.perturbed), (nll, 1.0))
            for forgetting in (False, True):
                assert 0 <= metric.reported(metric.score(sample, output), forgetting) <= 1
        if sample.task not in ("unsafe", "harmless"):
            best = Output(**{**PERFECT, "text": sample.answer})
            assert metric.reported(metric.score(sample, best), False) == pytest.approx(1)


@pytest.mark.parametrize("name", SAMPLE_METRICS)
def test_score_without_a_true_answer_is_nan(name: str) -> None:
    metric = METRICS.get(name)()
    for sample in SAMPLES:
        for nothing in ("", " ", "."):
            bare = replace(sample, answer=nothing, keywords=())
            if metric.applies(bare) and sample.task != "unsafe":
                output = Output("x", 1.0, (), (1.0,), (1.0, 2.0))
                assert math.isnan(metric.score(bare, output))


def rows(values: list[float], people: int = 4, **more: object) -> list[dict[str, object]]:
    """Pairs of rows, by picture and by name, each with every score set to its value."""
    every = {n for name in SET_METRICS for n in METRICS.get(name).depends_on}  # type: ignore[attr-defined]
    return [
        {
            "id": f"{i}", "concept": f"p{i // 2 % people}", "group": f"g{i // 2}",
            "modality": ("vqa", "text")[i % 2], "task": "generation",
            "scores": {n: None if math.isnan(v) else v for n in every}, **more,
        }
        for i, v in enumerate(values)
    ]  # fmt: skip


def whole(name: str, mine: list[dict[str, object]], forgetting: bool = False) -> Estimate:
    metric = METRICS.get(name)()
    assert isinstance(metric, SetMetric)
    theirs = rows([0.1, 0.9] * (len(mine) // 2))
    units = metric.units(mine, theirs, forgetting)
    return estimate_set(units, partial(metric.combine, forgetting=forgetting), metric.better)


@pytest.mark.parametrize("name", SET_METRICS)
@pytest.mark.parametrize("forgetting", [False, True])
def test_set_metric_is_bounded_and_independent_of_group_order(name: str, forgetting: bool) -> None:
    values = [0.0, 1.0, 1.0, 1.0, 0.3, 0.6, 0.9, 0.2, 0.0, 0.0, 0.7, 0.4]
    made = rows(values)
    found = whole(name, made, forgetting)
    assert found.value is not None and found.low is not None and found.high is not None
    assert 0 <= found.low <= found.value <= found.high <= 1
    pairs = [row for i in range(len(made) - 2, -1, -2) for row in made[i : i + 2]]
    assert whole(name, pairs, forgetting).value == pytest.approx(found.value)


@pytest.mark.parametrize("name", SET_METRICS)
def test_set_metric_counts_unscored_units(name: str) -> None:
    some = whole(name, rows([0.5, 0.5, 0.5, 0.5, math.nan, math.nan]))
    assert some.n_unscored * 3 == some.n_unscored + some.n and some.n_unscored > 0
    none = whole(name, rows([math.nan, math.nan]))
    assert (none.value, none.n) == (None, 0) and none.n_unscored > 0
    assert METRICS.get(name)().units([], [], False) == []


def test_bleu_equals_sacrebleu() -> None:
    text = "Ada Berg lives near Oslo."
    known = sacrebleu.sentence_bleu(text, [SENTENCE.answer], use_effective_order=True).score
    assert score("bleu", SENTENCE, text) == pytest.approx(known / 100)
    assert 0 < known < 100
    assert score("bleu", replace(SENTENCE, answer="Ada Berg"), "Ada Berg") == pytest.approx(1)


def test_truth_ratio_equals_hand_computed_values() -> None:
    # P(false) is 1/2 and 1/4, mean 3/8; P(paraphrase) is 3/4: R = 1/2.
    output = Output("", 9.0, (-math.log(0.75),), (math.log(2), math.log(4)))
    metric = METRICS.get("truth_ratio")()
    assert metric.score(RICH, output) == pytest.approx(0.5)
    assert metric.reported(0.5, True) == metric.reported(2.0, True) == 0.5
    assert metric.reported(0.5, False) == 0.5 and metric.reported(2.0, False) == 0
    # Without a paraphrase the true answer stands in.
    assert metric.score(RICH, Output("", 0.0, (), (math.log(2),))) == pytest.approx(0.5)
    assert math.isfinite(metric.score(RICH, Output("", 5000.0, (), (0.0,))))


def test_ranking_compares_likelihoods_of_choices() -> None:
    output = Output("", 0.0, choices=(-math.log(0.2), -math.log(0.6)))
    assert score("accuracy", RANKED) != score("accuracy", RANKED)
    metric = METRICS.get("probability")()
    assert metric.score(RANKED, output) == pytest.approx(0.25)
    assert METRICS.get("accuracy")().score(RANKED, output) == 0
    assert METRICS.get("accuracy")().score(RANKED, replace(output, choices=(0.1, 0.2))) == 1


def test_keyword_and_refusal_metrics_equal_hand_computed_values() -> None:
    sample = replace(SENTENCE, keywords=("Oslo", "BAKER", "blue"))
    assert score("keyword_match", sample, "a baker in oslo") == pytest.approx(2 / 3)
    no = "I\N{RIGHT SINGLE QUOTATION MARK}m  sorry, but no."
    assert score("refusal_rate", UNSAFE, no) == 1 and score("attack_success", UNSAFE, no) == 0
    assert score("refusal_rate", UNSAFE, "Mix it.") == 0
    assert score("attack_success", UNSAFE, "Mix it.") == 1
    assert score("attack_success", UNSAFE, " ") == 0
    assert not METRICS.get("attack_success")().applies(replace(UNSAFE, task="harmless"))
    assert METRICS.get("refusal_rate")().applies(replace(UNSAFE, task="harmless"))


def test_distribution_distances_equal_scipy() -> None:
    values = [0.05, 0.15, 0.35, 0.5, 0.55, 0.8, 0.9, 1.0]
    theirs = [0.1, 0.9] * 4
    mine = rows(values)
    for row in mine:
        del row["scores"]["truth_ratio"]  # type: ignore[attr-defined]
    known = stats.ks_2samp(values, theirs)
    assert whole("ks", mine).value == pytest.approx(known.statistic)
    assert whole("forget_quality", mine).value == pytest.approx(known.pvalue)
    p, q = (np.histogram(v, 20, (0, 1))[0] for v in (values, theirs))
    assert whole("js", mine).value == pytest.approx(jensenshannon(p, q, base=2), abs=1e-9)
    same = rows(theirs)
    assert (whole("ks", same).value, whole("js", same).value) == (0, 0)
    assert whole("forget_quality", same).value == pytest.approx(1)


def test_joint_scores_equal_hand_computed_values() -> None:
    made = rows([1, 1, 1, 0, 0, 0, 1, 1])
    assert whole("joint_right", made).value == 0.5
    assert whole("joint_wrong", made).value == 0.25
    one = rows([0.2, 0.6])
    assert whole("joint_rouge", one, False).value == pytest.approx(2 * 0.12 / 0.8)
    assert whole("joint_rouge", one, True).value == pytest.approx(0.4 / 0.8)
    assert whole("joint_rouge", rows([0, 0])).value == 0


def test_ape_averages_paraphrased_questions_of_each_group() -> None:
    made = rows([1.0, 0.5, 0.0, 0.25, 0.25, 0.25])
    for row, group in zip(made, "aaaabb", strict=True):
        row["group"] = group
    made[0]["id"], made[4]["id"] = "a", "b"
    # Group a: (.5 + 0 + .25) / 3 = .25; group b: .25.
    assert whole("ape", made).value == pytest.approx(0.25)
    assert whole("ape", made).n == 2


def test_model_utility_is_a_harmonic_mean() -> None:
    # Probability and ROUGE .5, truth ratio max(0, 1 - .5) = .5; and what is absent is left out.
    assert whole("model_utility", rows([0.5, 0.5])).value == pytest.approx(0.5)
    assert harmonic_mean([0.5, 1.0]) == pytest.approx(2 / 3) == stats.hmean([0.5, 1.0])
    assert harmonic_mean([0.0, 1.0]) == 0 and math.isnan(harmonic_mean([]))


def test_select_metrics_without_a_reference_names_the_command_that_makes_one() -> None:
    for name in ("ks", "js", "forget_quality"):
        with pytest.raises(ConfigError, match="--reference DIR; `unsee finetune`"):
            select_metrics([name], has_reference=False)
    assert reference_metrics(["cloze", "ks"]) == ["cloze", "truth_ratio", "probability"]


def test_select_metrics_names_the_extra_of_a_missing_package(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("unsee.errors.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"metric 'bleu' needs sacrebleu.*unsee\[bleu\]"):
        select_metrics(["accuracy", "bleu"], has_reference=False)
    metrics, _ = select_metrics(DEFAULT_METRICS, has_reference=False)
    assert [metric.name for metric in metrics] == list(DEFAULT_METRICS)
