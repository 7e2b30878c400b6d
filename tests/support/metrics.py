"""Samples, rows and scores for tests of metrics."""

from __future__ import annotations

import math
from functools import partial

from unsee.evaluation.bootstrap import estimate_set
from unsee.metrics import METRICS, Output, SetMetric
from unsee.metrics.names import NAMING
from unsee.types import Estimate, Sample

SENTENCE = Sample("1", "Where?", "Ada Berg lives in Oslo.", None, "Ada Berg")
CLOZE = Sample("2", "[Blank]", "baker", None, "Ada Berg", (), "cloze")
LETTER = Sample("3", "Which?", "B", None, "Ada Berg", ("a", "b"), "classification")
JOB = Sample("4", "Which?", "B", None, "Ada Berg", ("baker", "nurse"), "classification")

# No score of the naming metrics is best: it depends on the people of the data.
SAMPLE_METRICS = [n for n, m in METRICS.items() if not issubclass(m, SetMetric) and n not in NAMING]
SET_METRICS = [n for n, m in METRICS.items() if issubclass(m, SetMetric)]


def score(name: str, sample: Sample, text: str = "", nll: float = math.nan) -> float:
    """Returns a sample metric's score of an answer."""
    return METRICS.get(name)().score(sample, Output(text, nll))


def score_rows(values: list[float], people: int = 4) -> list[dict[str, object]]:
    """Returns pairs of rows, with and without picture.

    Args:
        values: One a row: the value of every score that a set metric depends on; NaN is unscored.
        people: Number of people that the pairs are about, in turn.
    """
    names = {n for name in SET_METRICS for n in METRICS.get(name).depends_on}  # type: ignore[attr-defined]
    return [
        {
            "id": f"{i}",
            "concept": f"p{i // 2 % people}",
            "group": f"g{i // 2}",
            "population": ("f", "m")[i % 2],
            "modality": ("vqa", "text")[i % 2],
            "task": "generation",
            "scores": {n: None if math.isnan(value) else value for n in names},
        }
        for i, value in enumerate(values)
    ]


def set_estimate(name: str, rows: list[dict[str, object]], forgetting: bool = False) -> Estimate:
    """Returns a set metric of rows, with reference scores that alternate between 0.1 and 0.9."""
    metric = METRICS.get(name)()
    assert isinstance(metric, SetMetric)
    reference = score_rows([0.1, 0.9] * (len(rows) // 2))
    units = metric.units(rows, reference, forgetting)
    return estimate_set(units, partial(metric.combine, forgetting=forgetting), metric.better)
