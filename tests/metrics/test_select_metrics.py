"""Metrics chosen by name, with what they depend on."""

from __future__ import annotations

import pytest

from unsee.errors import ConfigError
from unsee.evaluation.evaluate import DEFAULT_METRICS
from unsee.metrics import reference_metrics, select_metrics


@pytest.mark.parametrize("name", ["ks", "js", "forget_quality"])
def test_select_metrics_without_a_reference_names_the_command_that_makes_one(name: str) -> None:
    with pytest.raises(ConfigError, match="--reference DIR; `unsee finetune`"):
        select_metrics([name], has_reference=False)


def test_reference_metrics_replaces_comparisons_by_what_they_depend_on() -> None:
    assert reference_metrics(["cloze", "ks"]) == ["cloze", "truth_ratio", "probability"]


def test_select_metrics_names_the_extra_of_a_missing_package(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("unsee.errors.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"metric 'bleu' needs sacrebleu.*unsee\[bleu\]"):
        select_metrics(["accuracy", "bleu"], has_reference=False)
    metrics, _ = select_metrics(DEFAULT_METRICS, has_reference=False)
    assert [metric.name for metric in metrics] == list(DEFAULT_METRICS)
