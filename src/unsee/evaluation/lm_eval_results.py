"""What lm-evaluation-harness found, in this package's terms: measures, rows, and what was asked.

Everything here takes `results`, the dictionary that `lm_eval.evaluator.evaluate` returns with its
samples, and needs no lm-eval.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from unsee.types import Better, Estimate

# Two-sided 95 % of a normal distribution.
Z = 1.959964


CHOICES = "multiple_choice"


def measures(results: Mapping[str, Any], modality: str) -> dict[str, Estimate]:
    """lm-eval's results as measures by "task/modality/metric".

    An interval is 1.96 of lm-eval's standard errors to either side, and so may leave 0 to 1; there
    is none where lm-eval gives no standard error. A metric that comes through a filter is called
    "metric,filter", as lm-eval does.

    Args:
        results: From lm-eval.
        modality: "vqa" or "text".
    """
    found = {}
    for name, values in results["results"].items():
        for metric, chosen in _metrics(values):
            value, error = (
                values.get(key) for key in (f"{metric},{chosen}", f"{metric}_stderr,{chosen}")
            )
            if not isinstance(value, (int, float, np.number)):
                continue
            mean, far = _finite(value), _finite(error)
            low = high = None
            if mean is not None and far is not None:
                low, high = mean - Z * far, mean + Z * far
            scored, unscored = _counts(results, name, metric, chosen)
            found[f"{name}/{modality}/{_called(metric, chosen)}"] = Estimate(
                mean,
                low,
                high,
                scored,
                unscored,
                _better(results, name, metric),
            )
    return found


def rows(results: Mapping[str, Any], modality: str) -> list[dict[str, Any]]:
    """One row a sample, as `scores.jsonl` holds them.

    Where the likelihoods of choices are compared, `output` is the number of the likeliest of
    `choices`, and `truth` that of the right one.
    """
    found: dict[tuple[str, int], dict[str, Any]] = {}
    for task, samples in results["samples"].items():
        kind = results["configs"][task]["output_type"]
        for sample in samples:
            scores = {
                _called(metric, sample["filter"]): _finite(sample[metric])
                for metric in sample["metrics"]
            }
            place = (task, sample["doc_id"])
            if place in found:
                # The same answer, through another filter.
                found[place]["scores"] |= scores
                continue
            # Choices without a context are there only to be compared with.
            choices = [a[1] for a in sample["arguments"] if a[0]] if kind == CHOICES else []
            found[place] = {
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
    return list(found.values())


def asked(results: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """What was asked, by task and group: version, few-shot examples, samples, a hash of all of it.

    "undirected" names metrics of which lm-eval does not say whether more is better; they are taken
    to be so.
    """
    found = {}
    for name, values in results["results"].items():
        leaves = _leaves(results, name)
        counts = [results["n-samples"][leaf] for leaf in leaves]
        known = results["higher_is_better"].get(name, {})
        found[name] = {
            "version": results["versions"].get(name),
            "shots": results["n-shot"].get(name),
            "samples": sum(count["effective"] for count in counts),
            "of": sum(count["original"] for count in counts),
            "prompts_sha256": _digest([s for leaf in leaves for s in results["samples"][leaf]]),
            "undirected": sorted({m for m, _ in _metrics(values) if known.get(m) is None}),
        }
    return found


def _metrics(values: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Every metric and filter that lm-eval reports as "metric,filter"."""
    pairs = [key.partition(",") for key in values]
    return [(m, chosen) for m, _, chosen in pairs if chosen and not m.endswith("_stderr")]


def _called(metric: str, chosen: str) -> str:
    return metric if chosen == "none" else f"{metric},{chosen}"


def _finite(value: Any) -> float | None:
    number = isinstance(value, (int, float, np.number)) and math.isfinite(value)
    return float(value) if number else None


def _output(answers: Sequence[Any], kind: str, choices: int) -> str | None:
    if kind == CHOICES:
        return str(max(range(choices), key=lambda i: answers[i][0]))
    return str(answers[0]) if kind == "generate_until" else None


def _leaves(results: Mapping[str, Any], name: str) -> list[str]:
    """The tasks that a name stands for: itself, or those of a group."""
    if name in results["samples"]:
        return [name]
    below = results["group_subtasks"].get(name, ())
    return [leaf for child in below for leaf in _leaves(results, child)]


def _counts(results: Mapping[str, Any], name: str, metric: str, chosen: str) -> tuple[int, int]:
    """Samples that a metric scored, and did not."""
    some = [
        sample
        for leaf in _leaves(results, name)
        for sample in results["samples"][leaf]
        if sample["filter"] == chosen
    ]
    # A metric of a whole set keeps pairs rather than a number a sample, and those are scored.
    missing = sum(
        metric not in sample or (isinstance(sample[metric], float) and math.isnan(sample[metric]))
        for sample in some
    )
    return len(some) - missing, missing


def _better(results: Mapping[str, Any], name: str, metric: str) -> Better:
    higher = results["higher_is_better"].get(name, {}).get(metric)
    return "lower" if higher is False else "higher"


def _digest(samples: Sequence[Mapping[str, Any]]) -> str:
    """SHA-256 over prompts, generation settings, targets and pictures (these by lm-eval's hash)."""
    digest = hashlib.sha256()
    for sample in samples:
        text = json.dumps([sample["arguments"], sample["target"]], default=str, sort_keys=True)
        digest.update(text.encode())
    return digest.hexdigest()
