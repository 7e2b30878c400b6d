"""Scores the same answers by the rules of published scripts and by ours; into docs/published.md.

    python -m experiments.quality.rules

The answers in answers.yaml were written by hand, each with what a reader says of it. No model is
run.
"""

from __future__ import annotations

import argparse
import math
from pathlib import Path
from typing import Any

import yaml

from experiments.pages import DOCS, replace_section, table
from unsee.metrics import METRICS, Output
from unsee.types import Sample

ANSWERS = Path(__file__).with_name("answers.yaml")
PAGE = DOCS / "published.md"
HEAD = ("answers", "benchmark", "metric", "rule", "as published", "own rule", "reader", "differ")


def scores(case: dict[str, Any], name: str, rule: str) -> list[float]:
    """Returns the scores of a case's answers by a metric with a rule; "" is its own."""
    fields: dict[str, Any] = {
        k: tuple(v) if isinstance(v, list) else v for k, v in case["sample"].items()
    }
    sample = Sample("1", **fields)
    metric = METRICS.get(name)()
    metric.rule = rule or metric.rule
    outputs = [_output(answer) for answer in case["answers"]]
    # As on a forget split: the truth ratio is reported as min(R, 1/R).
    return [metric.reported(metric.score_or_nan(sample, out), True) for out in outputs]


def _output(answer: dict[str, Any]) -> Output:
    false = tuple(-math.log(p) for p in answer.get("p_false", ()))
    return Output(answer["text"], nll=-math.log(answer.get("p_true", 1)), perturbed=false)


def section() -> str:
    """Returns the table of all cases."""
    rows = []
    for case in yaml.safe_load(ANSWERS.read_text("utf-8")):
        for entry in case["rules"]:
            name, rule = entry["metric"], entry["rule"]
            published, own = scores(case, name, rule), scores(case, name, "")
            count = len(published)
            # A likelihood has no reader.
            reader = [float(answer["right"]) for answer in case["answers"]]
            judged = "" if METRICS.get(name).reads != "text" else _percent(reader)
            differ = sum(abs(a - b) > 1e-9 for a, b in zip(published, own, strict=True))
            cells = [f"{case['title']} ({count})", entry["benchmarks"], f"`{name}`", f"`{rule}`"]
            rows.append(
                [*cells, _percent(published), _percent(own), judged, f"{differ} of {count}"]
            )
    return table(HEAD, rows)


def _percent(values: list[float]) -> str:
    return f"{100 * sum(values) / len(values):.1f} %"


def main() -> None:
    """Writes the section of the page."""
    argparse.ArgumentParser(description=__doc__).parse_args()
    replace_section(PAGE, "rules", section())


if __name__ == "__main__":
    main()
