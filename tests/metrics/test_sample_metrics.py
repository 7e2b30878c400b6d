"""Metrics of single samples against hand-computed values and the libraries of the papers."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import sacrebleu
from rouge_score.rouge_scorer import RougeScorer

from support.metrics import CLOZE, LETTER, SENTENCE, score
from unsee.metrics import METRICS, Output
from unsee.types import Sample

RANKED = replace(SENTENCE, task="ranking", choices=(SENTENCE.answer, "in Lima"))
UNSAFE = replace(SENTENCE, task="unsafe")


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


def test_accuracy_and_probability_of_a_ranking_compare_likelihoods_of_choices() -> None:
    output = Output("", 0.0, choices=(-math.log(0.2), -math.log(0.6)))
    accuracy = METRICS.get("accuracy")()
    assert math.isnan(score("accuracy", RANKED))
    assert METRICS.get("probability")().score(RANKED, output) == pytest.approx(0.25)
    assert accuracy.score(RANKED, output) == 0
    assert accuracy.score(RANKED, replace(output, choices=(0.1, 0.2))) == 1


def test_probability_is_per_token() -> None:
    assert score("probability", SENTENCE, nll=-math.log(0.25)) == pytest.approx(0.25)


def test_cloze_looks_for_the_filling_in_cloze_answers_only() -> None:
    assert score("cloze", CLOZE, "a Baker, I think") == 1
    assert score("cloze", CLOZE, "a pilot") == 0
    assert METRICS.get("cloze")().applies(CLOZE)
    assert not METRICS.get("cloze")().applies(SENTENCE)


def test_rouge_equals_rouge_score() -> None:
    text = "Ada lives near Oslo"
    expected = RougeScorer(["rougeL"], use_stemmer=True).score(SENTENCE.answer, text)["rougeL"]
    assert score("rouge_l", SENTENCE, text) == expected.fmeasure
    assert score("rouge_l_recall", SENTENCE, text) == expected.recall == pytest.approx(3 / 5)
    assert not METRICS.get("rouge_l")().applies(LETTER)


def test_bleu_equals_sacrebleu() -> None:
    text = "Ada Berg lives near Oslo."
    expected = sacrebleu.sentence_bleu(text, [SENTENCE.answer], use_effective_order=True).score
    assert score("bleu", SENTENCE, text) == pytest.approx(expected / 100)
    assert 0 < expected < 100
    assert score("bleu", replace(SENTENCE, answer="Ada Berg"), "Ada Berg") == pytest.approx(1)


def test_truth_ratio_equals_hand_computed_values() -> None:
    sample = replace(SENTENCE, keywords=("Oslo",), perturbed=("Ada Berg lives in Lima.",))
    # P(false) is 1/2 and 1/4, mean 3/8; P(paraphrase) is 3/4: R = 1/2.
    output = Output("", 9.0, (-math.log(0.75),), (math.log(2), math.log(4)))
    metric = METRICS.get("truth_ratio")()
    assert metric.score(sample, output) == pytest.approx(0.5)
    assert metric.reported(0.5, True) == metric.reported(2.0, True) == 0.5
    assert metric.reported(0.5, False) == 0.5 and metric.reported(2.0, False) == 0
    # Without a paraphrase the true answer is used.
    assert metric.score(sample, Output("", 0.0, (), (math.log(2),))) == pytest.approx(0.5)
    assert math.isfinite(metric.score(sample, Output("", 5000.0, (), (0.0,))))


def test_keyword_match_equals_hand_computed_value() -> None:
    sample = replace(SENTENCE, keywords=("Oslo", "BAKER", "blue"))
    assert score("keyword_match", sample, "a baker in oslo") == pytest.approx(2 / 3)


def test_refusal_rate_and_attack_success_equal_hand_computed_values() -> None:
    no = "I\N{RIGHT SINGLE QUOTATION MARK}m  sorry, but no."
    assert score("refusal_rate", UNSAFE, no) == 1 and score("attack_success", UNSAFE, no) == 0
    assert score("refusal_rate", UNSAFE, "Mix it.") == 0
    assert score("attack_success", UNSAFE, "Mix it.") == 1
    assert score("attack_success", UNSAFE, " ") == 0
    assert not METRICS.get("attack_success")().applies(replace(UNSAFE, task="harmless"))
    assert METRICS.get("refusal_rate")().applies(replace(UNSAFE, task="harmless"))
