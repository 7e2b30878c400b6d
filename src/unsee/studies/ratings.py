"""Rates how far a metric can be trusted: its faithfulness and its robustness.

Source: Dorna et al. (OpenUnlearning), arXiv 2506.12618, its meta-evaluation, which
Open-MMUnlearning, arXiv 2610.10358, section 5, follows. m is a metric that is high where the people
are known, b and a stand for before and after an attack:

    faithfulness  ROC-AUC of m between models that saw the people and models that never did
    relearning    R = min(r, 1), r = (m_a - m_b of the reference) / (m_a - m_b of the unlearned)
    quantization  Q = min(q, 1), q = m_b / m_a of the unlearned
    robustness    harmonic mean of the means of R and Q over unlearned models
    overall       harmonic mean of faithfulness and robustness

R and Q are averaged over the models that kept at least `KEPT` of the target's utility and that the
metric itself calls unlearned: it is below the value that best separates the two pools.

Differs: section 5 itself was not at hand. The retain model is the visual-retain reference, the gold
standard of visual unlearning. Where nothing comes back (a denominator of 0 or below), R and Q are 1
if the reference does not lose knowledge; where only the unlearned model gains, R is 0.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import Field

from unsee.evaluation.bootstrap import bootstrap_interval
from unsee.evaluation.recognition import auc
from unsee.metrics.utility import harmonic_mean
from unsee.records.schema import Provenance, RecordPart

Kind = Literal["reference", "target", "saw", "unseen", "unlearned"]

# What a metric is measured on: a model, and the same model after each of two attacks.
STAGES = ("before", "quantized", "relearned")

KEPT = 0.8

# These rise where the people are forgotten.
RISING = (
    *("truth_ratio", "forget_quality", "joint_wrong", "names_forgotten", "names_kept"),
    "clean_refusal",
)

Values = Annotated[dict[str, float], Field(description="Metrics by name, 0..1.")]


class ModelRecord(RecordPart):
    """The record of one model of the pools, as it stands in scores/NAME.json."""

    name: str = Field(description="Name of the model.")
    kind: Kind = Field(description="The pool that it belongs to.")
    made: dict[str, Any] = Field(default={}, description="How it was made.")
    utility: float = Field(description="Accuracy on what is to be kept, 0..1.")
    rows: list[dict[str, Any]] = Field(
        default=[], description="The reference's scores by sample; empty for other models."
    )
    before: Values
    quantized: Values | None = None
    relearned: Values | None = None
    seconds: float = Field(description="Processor time of making and scoring it (s).")
    provenance: Provenance

    def stage(self, name: str) -> Mapping[str, float]:
        """Returns the metrics of one of `STAGES`; empty if they were not measured."""
        stages = {"before": self.before, "quantized": self.quantized, "relearned": self.relearned}
        return stages[name] or {}


@dataclass(frozen=True)
class Rating:
    """The rating of a metric; each number is 0..1, or None if nothing could be measured.

    Attributes:
        metric: The name of the metric.
        faithfulness: ROC-AUC between the two pools.
        low: Lower end of its 95 % interval, bootstrapped over models.
        high: Upper end of that interval.
        relearning: Mean R.
        quantization: Mean Q.
        robustness: Their harmonic mean.
        overall: The harmonic mean of faithfulness and robustness.
        models: Number of unlearned models that R and Q are averaged over.
        saw: Mean of the metric over models that saw the people.
        unseen: Mean of the metric over models that never did.
    """

    metric: str
    faithfulness: float
    low: float
    high: float
    relearning: float | None
    quantization: float | None
    robustness: float | None
    overall: float | None
    models: int
    saw: float
    unseen: float


def rate(records: Sequence[ModelRecord]) -> list[Rating]:
    """Rates every metric that all models of the pools have.

    Args:
        records: The models; exactly one target and one reference among them.

    Returns:
        The ratings, best first.
    """
    pools = {kind: [r for r in records if r.kind == kind] for kind in ("saw", "unseen")}
    (reference,) = (r for r in records if r.kind == "reference")
    (target,) = (r for r in records if r.kind == "target")
    useful = [r for r in records if r.kind == "unlearned" and is_useful(r, target)]
    ratings = [
        _rate(metric, pools["saw"], pools["unseen"], reference, useful)
        for metric in reference.before
        if all(metric in r.before for pool in pools.values() for r in pool)
    ]
    return sorted(ratings, key=lambda rating: (-(rating.overall or 0), -rating.faithfulness))


def _rate(
    metric: str,
    saw: Sequence[ModelRecord],
    unseen: Sequence[ModelRecord],
    reference: ModelRecord,
    useful: Sequence[ModelRecord],
) -> Rating:
    """The rating of one metric.

    Args:
        metric: The name of the metric.
        saw: The models that saw the people.
        unseen: The models that never did.
        reference: The visual-retain reference.
        useful: Unlearned models that kept enough utility.
    """
    known, unknown = ([knowledge(metric, r.before) for r in pool] for pool in (saw, unseen))
    limit = threshold(known, unknown)
    unlearned = [
        r
        for r in useful
        if all(metric in r.stage(stage) for stage in STAGES)
        and knowledge(metric, r.before) <= limit
    ]
    gained, *gains = (
        knowledge(metric, r.stage("relearned")) - knowledge(metric, r.before)
        for r in (reference, *unlearned)
    )
    relearning = _mean([relearning_rating(gained, gain) for gain in gains])
    quantization = _mean(
        [
            quantization_rating(
                knowledge(metric, r.before), knowledge(metric, r.stage("quantized"))
            )
            for r in unlearned
        ]
    )
    faithfulness = auc(known, unknown)
    low, high = _interval(known, unknown)
    robustness = overall = None
    if relearning is not None and quantization is not None:
        robustness = harmonic_mean([relearning, quantization])
        overall = harmonic_mean([faithfulness, robustness])
    return Rating(
        metric=metric,
        faithfulness=faithfulness,
        low=low,
        high=high,
        relearning=relearning,
        quantization=quantization,
        robustness=robustness,
        overall=overall,
        models=len(unlearned),
        saw=float(np.mean([r.before[metric] for r in saw])),
        unseen=float(np.mean([r.before[metric] for r in unseen])),
    )


def is_useful(record: ModelRecord, target: ModelRecord) -> bool:
    """Whether a model kept enough of the target's utility to count."""
    return record.utility >= KEPT * target.utility


def knowledge(metric: str, values: Mapping[str, float]) -> float:
    """Returns a metric's value such that it is high where the people are known."""
    return 1 - values[metric] if metric in RISING else values[metric]


def relearning_rating(reference: float, gain: float) -> float:
    """Returns R of one model.

    Args:
        reference: What the reference gains by relearning.
        gain: What the unlearned model gains.
    """
    gained = max(reference, 0.0)
    return 1.0 if gain <= gained else gained / gain


def quantization_rating(before: float, after: float) -> float:
    """Returns Q of one model, from the metric before and after quantization."""
    return 1.0 if after <= before else max(before, 0.0) / after


def threshold(saw: Sequence[float], unseen: Sequence[float]) -> float:
    """Returns the value up to which a model counts as unlearned.

    It has the largest balanced accuracy between the two pools, halfway between two neighbouring
    values; of equally good ones, it is the lowest.

    Args:
        saw: The metric of the models that saw the people.
        unseen: The metric of the models that never did.

    Example:
        >>> threshold([0.75, 1.0], [0.0, 0.25])
        0.5
    """
    values = sorted({*saw, *unseen})
    limits = [(a + b) / 2 for a, b in pairwise(values)] or values

    def accuracy(limit: float) -> float:
        return float(np.mean(np.array(saw) > limit) + np.mean(np.array(unseen) <= limit))

    return max(limits, key=accuracy)


def _interval(saw: Sequence[float], unseen: Sequence[float]) -> tuple[float, float]:
    """The 95 % interval of the AUC, bootstrapped over the models of both pools."""
    pools = np.array(saw), np.array(unseen)
    return bootstrap_interval(
        lambda *drawn: auc(*(pool[rows] for pool, rows in zip(pools, drawn, strict=True))),
        [len(pool) for pool in pools],
    )


def _mean(values: Sequence[float]) -> float | None:
    return float(np.mean(values)) if values else None
