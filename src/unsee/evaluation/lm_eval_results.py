"""Converts results of lm-evaluation-harness to measures, rows and descriptions of tasks.

All functions take `results`, the dictionary that `lm_eval.evaluator.evaluate` returns with its
samples. They do not need lm-eval itself.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from unsee.evaluation.bootstrap import exact_bounds
from unsee.types import Better, Estimate

# Two-sided 95 % quantile of the normal distribution.
Z = 1.959964

CHOICES = "multiple_choice"

# How the names of lm-eval's metrics begin that are shares of samples.
SHARES = ("acc", "exact_match")


def measures(results: Mapping[str, Any], modality: str) -> dict[str, Estimate]:
    """Returns lm-eval's results as measures, by "task/modality/metric".

    An interval is 1.96 standard errors of lm-eval to either side, so it may leave 0..1; shares of
    0 and 1 have exact bounds. There is none where lm-eval reports no standard error. A metric
    behind a filter is called "metric,filter", as in lm-eval.

    Args:
        results: The results of lm-eval.
        modality: "vqa" or "text".
    """
    estimates = {}
    for name, values in results["results"].items():
        for metric, answer_filter in _metrics(values):
            value = values.get(f"{metric},{answer_filter}")
            if not isinstance(value, (int, float, np.number)):
                continue
            mean = _finite(value)
            error = _finite(values.get(f"{metric}_stderr,{answer_filter}"))
            scored, unscored = _counts(results, name, metric, answer_filter)
            low = high = None
            if mean is not None and error is not None:
                if error == 0 and mean in (0.0, 1.0) and metric.startswith(SHARES):
                    low, high = exact_bounds(mean, scored)
                else:
                    low, high = mean - Z * error, mean + Z * error
            estimates[f"{name}/{modality}/{_metric_name(metric, answer_filter)}"] = Estimate(
                mean,
                low,
                high,
                scored,
                unscored,
                _better(results, name, metric),
            )
    return estimates


def rows(results: Mapping[str, Any], modality: str) -> list[dict[str, Any]]:
    """Returns one row per sample, as `scores.jsonl` holds them.

    For multiple-choice tasks, `output` is the index of the most likely of `choices`, and `truth`
    that of the right one.

    Args:
        results: The results of lm-eval.
        modality: "vqa" or "text".
    """
    rows_by_sample: dict[tuple[str, int], dict[str, Any]] = {}
    for task, samples in results["samples"].items():
        kind = results["configs"][task]["output_type"]
        for sample in samples:
            scores = {
                _metric_name(metric, sample["filter"]): _finite(sample[metric])
                for metric in sample["metrics"]
            }
            key = (task, sample["doc_id"])
            if key in rows_by_sample:
                # The same answer behind another filter.
                rows_by_sample[key]["scores"] |= scores
                continue
            # Requests without a context only normalise the likelihoods of the choices.
            choices = [a[1] for a in sample["arguments"] if a[0]] if kind == CHOICES else []
            rows_by_sample[key] = {
                "split": task,
                "modality": modality,
                "task": kind,
                "id": str(sample["doc_id"]),
                "concept": None,
                "picture": None,
                "question": sample["arguments"][0][0],
                "truth": str(sample["target"]),
                "output": _output(sample["filtered_resps"], kind, len(choices)),
                "scores": scores,
                **({"choices": choices} if choices else {}),
            }
    return list(rows_by_sample.values())


def task_descriptions(results: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Returns a description of each task and group, by name.

    A description has the version, the number of few-shot examples, the number of samples used
    ("samples") and available ("of"), and a hash of the prompts. "undirected" lists the metrics for
    which lm-eval does not declare whether higher is better; higher is assumed to be.
    """
    descriptions = {}
    for name, values in results["results"].items():
        leaves = _leaves(results, name)
        counts = [results["n-samples"][leaf] for leaf in leaves]
        directions = results["higher_is_better"].get(name, {})
        descriptions[name] = {
            "version": results["versions"].get(name),
            "shots": results["n-shot"].get(name),
            "samples": sum(count["effective"] for count in counts),
            "of": sum(count["original"] for count in counts),
            "prompts_sha256": _digest([s for leaf in leaves for s in results["samples"][leaf]]),
            "undirected": sorted({m for m, _ in _metrics(values) if directions.get(m) is None}),
        }
    return descriptions


def _metrics(values: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Returns the (metric, filter) pairs that lm-eval reports as "metric,filter"."""
    pairs = [key.partition(",") for key in values]
    return [(m, name) for m, _, name in pairs if name and not m.endswith("_stderr")]


def _metric_name(metric: str, answer_filter: str) -> str:
    return metric if answer_filter == "none" else f"{metric},{answer_filter}"


def _finite(value: Any) -> float | None:
    number = isinstance(value, (int, float, np.number)) and math.isfinite(value)
    return float(value) if number else None


def _output(answers: Sequence[Any], kind: str, choices: int) -> str | None:
    if kind == CHOICES:
        return str(max(range(choices), key=lambda i: answers[i][0]))
    return str(answers[0]) if kind == "generate_until" else None


def _leaves(results: Mapping[str, Any], name: str) -> list[str]:
    """Returns the tasks that a name stands for: itself, or the tasks of a group."""
    if name in results["samples"]:
        return [name]
    children = results["group_subtasks"].get(name, ())
    return [leaf for child in children for leaf in _leaves(results, child)]


def _counts(
    results: Mapping[str, Any], name: str, metric: str, answer_filter: str
) -> tuple[int, int]:
    """Returns the number of samples that a metric scored, and that it did not score."""
    samples = [
        sample
        for leaf in _leaves(results, name)
        for sample in results["samples"][leaf]
        if sample["filter"] == answer_filter
    ]
    # Metrics of a whole set store a tuple per sample instead of a number; these are scored.
    unscored = sum(
        metric not in sample or (isinstance(sample[metric], float) and math.isnan(sample[metric]))
        for sample in samples
    )
    return len(samples) - unscored, unscored


def _better(results: Mapping[str, Any], name: str, metric: str) -> Better:
    higher = results["higher_is_better"].get(name, {}).get(metric)
    return "lower" if higher is False else "higher"


def _digest(samples: Sequence[Mapping[str, Any]]) -> str:
    """Returns the SHA-256 of prompts, generation settings, targets and lm-eval's picture hashes."""
    digest = hashlib.sha256()
    for sample in samples:
        text = json.dumps([sample["arguments"], sample["target"]], default=str, sort_keys=True)
        digest.update(text.encode())
    return digest.hexdigest()
