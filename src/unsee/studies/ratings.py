"""How far a metric can be trusted: faithfulness, and robustness to relearning and quantization.

Source: Dorna et al. (OpenUnlearning), arXiv 2506.12618, its meta-evaluation, which
Open-MMUnlearning, arXiv 2610.10358, section 5, follows. m is a metric that is high where the people
are known, b and a stand for before and after an attack:

    faithfulness  ROC-AUC of m between models that saw the people and models that never did
    relearning    R = min(r, 1), r = (m_a - m_b of the reference) / (m_a - m_b of the unlearned)
    quantization  Q = min(q, 1), q = m_b / m_a of the unlearned
    robustness    harmonic mean of the means of R and Q over unlearned models
    overall       harmonic mean of faithfulness and robustness

Models count that kept at least `KEPT` of the target's utility and that the metric holds for
unlearned: it is below the value that best separates the two pools.

Differs: section 5 itself was not at hand. The retain model is the visual-retain reference, the gold
standard of visual unlearning. Where nothing comes back (a denominator of 0 or below), R and Q are 1
if the reference does not lose knowledge; where only the unlearned model gains, R is 0.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from unsee.attacks.membership import auc
from unsee.evaluation.bootstrap import bootstrap_interval
from unsee.metrics.utility import harmonic_mean

KEPT = 0.8


STAGES = ("before", "quantized", "relearned")


RESAMPLES = 1000


# These rise where the people are forgotten.
RISING = ("truth_ratio", "forget_quality", "joint_wrong")


Record = Mapping[str, Any]


@dataclass(frozen=True)
class Rating:
    """What a metric is worth, each number of 0..1; None where nothing could be measured.

    Attributes:
        metric: Its name.
        faithfulness: ROC-AUC between the two pools.
        low: Lower end of its 95 % interval, over models.
        high: Upper end of it.
        relearning: Mean R.
        quantization: Mean Q.
        robustness: Their harmonic mean.
        overall: The harmonic mean of faithfulness and robustness.
        models: How many unlearned models R and Q rest on.
        saw: Mean of the metric over models that saw the people.
        unseen: The same of those that never did.
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


def rate(records: Sequence[Record]) -> list[Rating]:
    """The rating of every metric that all models of the pools have, best first.

    Args:
        records: One a model: its "kind", "utility", and metrics by "before" and, of the reference
            and unlearned models, "quantized" and "relearned".
    """
    pools = {kind: [r for r in records if r["kind"] == kind] for kind in ("saw", "unseen")}
    (reference,) = (r for r in records if r["kind"] == "reference")
    (target,) = (r for r in records if r["kind"] == "target")
    useful = [r for r in records if r["kind"] == "unlearned" and keeps(r, target)]
    found = []
    for metric in reference["before"]:
        if not all(metric in r["before"] for pool in pools.values() for r in pool):
            continue
        saw, unseen = ([known(metric, r["before"]) for r in some] for some in pools.values())
        limit = threshold(saw, unseen)
        scored = [r for r in useful if all(metric in r[stage] for stage in STAGES)]
        some = [r for r in scored if known(metric, r["before"]) <= limit]
        changes = [
            (known(metric, r["relearned"]) - known(metric, r["before"])) for r in (reference, *some)
        ]
        r = _mean([relearned(changes[0], change) for change in changes[1:]])
        q = _mean(
            [quantized(known(metric, m["before"]), known(metric, m["quantized"])) for m in some]
        )
        faithful = auc(saw, unseen)
        robust = harmonic_mean([r, q]) if r is not None and q is not None else None
        low, high = _interval(saw, unseen)
        found.append(
            Rating(
                metric, faithful, low, high, r, q, robust,
                harmonic_mean([faithful, robust]) if robust is not None else None,
                len(some),
                *(float(np.mean([m["before"][metric] for m in pool])) for pool in pools.values()),
            )
        )  # fmt: skip
    return sorted(found, key=lambda rating: (-(rating.overall or 0), -rating.faithfulness))


def keeps(record: Record, target: Record) -> bool:
    """Whether a model is useful enough to count."""
    return bool(record["utility"] >= KEPT * target["utility"])


def known(metric: str, values: Mapping[str, float]) -> float:
    """The metric's value, turned around where it rises with forgetting: high where it is known."""
    return 1 - values[metric] if metric in RISING else values[metric]


def relearned(reference: float, change: float) -> float:
    """R of one model, of what the reference and it gain when both relearn."""
    gained = max(reference, 0.0)
    return 1.0 if change <= gained else gained / change


def quantized(before: float, after: float) -> float:
    """Q of one model, of the metric before and after quantization."""
    return 1.0 if after <= before else max(before, 0.0) / after


def threshold(saw: Sequence[float], unseen: Sequence[float]) -> float:
    """The value up to which a model counts as unlearned: it best separates the two pools.

    Best is the largest balanced accuracy; halfway between the neighbours, and the lowest of equals.
    """
    values = sorted({*saw, *unseen})
    limits = [(a + b) / 2 for a, b in pairwise(values)] or values

    def right(limit: float) -> float:
        return float(np.mean(np.array(saw) > limit) + np.mean(np.array(unseen) <= limit))

    return max(limits, key=right)


def _interval(saw: Sequence[float], unseen: Sequence[float]) -> tuple[float, float]:
    """Returns the 95 % interval of the AUC, bootstrapped over the models of both pools."""
    pools = np.array(saw), np.array(unseen)
    return bootstrap_interval(
        lambda *drawn: auc(*(pool[rows] for pool, rows in zip(pools, drawn, strict=True))),
        [len(pool) for pool in pools],
        resamples=RESAMPLES,
    )


def _mean(values: Sequence[float]) -> float | None:
    return float(np.mean(values)) if values else None
