"""What a run comes to: the published aggregates, and the distance to the reference.

A term that a record lacks is left out and named, never guessed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from unsee.errors import ConfigError
from unsee.metrics import METRICS, SetMetric
from unsee.metrics.aggregates import (
    forgetting_quality,
    membership_score,
    overall,
    robustness,
    task_forgetting,
    utility,
)

Measures = Mapping[str, Mapping[str, Any]]


# Of Open-MMUnlearning, arXiv 2610.10358.
SIDES = {
    "relearn": "model", "adaptive": "model", "quantize": "model", "probe": "model",
    "cross_modal": "input", "rephrase_image": "input", "perturb": "input", "jailbreak": "input",
    "answer_prefix": "input", "figstep": "input",
    "membership": "output",
}  # fmt: skip


# Splits that ask neither about the forgotten nor about the retained people.
GENERAL = ("general", "real", "world", "celebrity")


@dataclass(frozen=True)
class Attacked:
    """What an attack with one budget brought back.

    Attributes:
        name: The attack and its budget.
        side: "model", "input" or "output"; "" if it is of no published side.
        unlearned: Share of what was to be forgotten that comes back, or what was read; 0..1.
        reference: The same of the reference.
        score: Of 0..1, 1 for an attack without success.
        area: Mean over the steps of a relearning curve less the reference's.
    """

    name: str
    side: str
    unlearned: float | None
    reference: float | None
    score: float | None
    area: float | None = None


@dataclass(frozen=True)
class Scores:
    """What a run comes to.

    Attributes:
        numbers: By column; None where the record lacks what it takes.
        profile: What each attack brought back.
        lacking: What was left out of the published scores.
        farthest: The measure that is farthest from the reference's.
    """

    numbers: Mapping[str, float | None]
    profile: Sequence[Attacked] = ()
    lacking: Sequence[str] = ()
    farthest: str = ""


def distance(measures: Measures, reference: Measures) -> tuple[float, float, str]:
    """How far a model is from the reference: mean and largest gap, and where that is.

    The mean absolute difference over all measures that both have, each of 0..1 and of equal
    weight. 0 is a model that nothing tells from the reference; one that is broken is as far from
    it on what is to be kept as one that forgot nothing is on what is to be forgotten.

    Raises:
        ConfigError: If they share no measure, or the reference lacks one that is judged by its
            distance to the reference (`better` is "reference").
    """
    for key, measure in measures.items():
        judged = measure.get("better") == "reference" and measure.get("value") is not None
        if judged and reference.get(key, {}).get("value") is None:
            raise ConfigError(
                f"'{key}' is judged by its distance to the reference model, and the reference has "
                "no value for it. Evaluate the reference on the same splits, with --reference DIR."
            )
    gaps = {
        key: abs(measures[key]["value"] - reference[key]["value"])
        for key in measures
        if key in reference
        and measures[key].get("value") is not None
        and reference[key].get("value") is not None
        and 0 <= measures[key]["value"] <= 1
        and 0 <= reference[key]["value"] <= 1
    }
    if not gaps:
        raise ConfigError("the model and the reference have no measure in common to compare.")
    farthest = max(gaps, key=lambda key: gaps[key])
    return sum(gaps.values()) / len(gaps), gaps[farthest], farthest


def score(
    summary: Mapping[str, Any], rows: Sequence[Mapping[str, Any]], model: str = "unlearned"
) -> Scores:
    """The numbers of one of a record's models.

    Args:
        summary: The content of summary.json.
        rows: The lines of scores.jsonl.
        model: "unlearned", "target", "reference" or "retain_only".
    """
    measures = summary.get("measures" if model == "unlearned" else model) or {}
    reference = summary.get("reference") or {}
    away = [name for name in summary.get("forgetting") or () if f"{name}/vqa/accuracy" in measures]
    lacking: list[str] = []
    forgetting = _mean([_forgetting(measures, name) for name in away])
    kept, general = _utility(measures, summary.get("forgetting") or ())
    quality = _quality(measures, rows, model, away, forgetting, lacking)
    useful = utility(kept, general) if kept is not None and general is not None else None
    if useful is None:
        lacking.append("utility (no general split)")
    profile = attacked(summary.get("attacks") or {}) if model == "unlearned" else []
    robust = _robustness(profile, lacking) if model == "unlearned" else None
    parts = [value for value in (quality, useful, robust) if value is not None]
    whole = overall(parts[0], parts[1], parts[2]) if len(parts) == 3 else None
    numbers: dict[str, float | None] = {
        "FQ": quality,
        "MU": useful,
        "robustness": robust,
        "overall": whole,
        "forgetting": forgetting,
        "distance": None,
        "largest gap": None,
    }
    farthest = ""
    if reference:
        numbers["distance"], numbers["largest gap"], farthest = distance(measures, reference)
    areas = [abs(attack.area) for attack in profile if attack.area is not None]
    gaps = [
        abs(attack.unlearned - attack.reference)
        for attack in profile
        if attack.area is None and attack.unlearned is not None and attack.reference is not None
    ]
    numbers["distance under attack"] = _mean([*areas, *gaps])
    return Scores(numbers, profile, lacking, farthest)


def attacked(attacks: Mapping[str, Sequence[Mapping[str, Any]]]) -> list[Attacked]:
    """Every attack of a record, read by the form of its entries rather than by its name."""
    found = []
    for name, entries in attacks.items():
        side = SIDES.get(name.split("+")[-1], "")
        for entry in entries or ():
            if "curves" in entry:
                found.append(_relearned(name, side, entry))
            elif "models" in entry:
                found += _asked(name, side, entry)
    return found


def _relearned(name: str, side: str, entry: Mapping[str, Any]) -> Attacked:
    ends = {
        model: max(curve, key=lambda point: point["step"])["value"]
        for model, curve in entry["curves"].items()
        if curve
    }
    after = ends.get("unlearned")
    return Attacked(
        f"{name} {100 * entry.get('share', 1):.0f} % {entry.get('modules', '')}".strip(),
        side,
        after,
        ends.get("reference"),
        1 - after if after is not None else None,
        entry.get("area_to_reference"),
    )


def _asked(name: str, side: str, entry: Mapping[str, Any]) -> list[Attacked]:
    ours = entry["models"].get("unlearned") or {}
    theirs = entry["models"].get("reference") or {}
    answers = (ours.get("answers") or {}).get("forget")
    if answers:
        other = ((theirs.get("answers") or {}).get("forget") or {}).get("after")
        return [Attacked(name, side, answers["after"], other, 1 - answers["after"])]
    others = {reading["name"]: reading for reading in theirs.get("readings") or ()}
    return [
        Attacked(
            f"{name} {reading['name']}",
            side,
            reading["forget"],
            others.get(reading["name"], {}).get("forget"),
            # An area under a curve is as telling below one half as above.
            membership_score(reading["forget"]) if side == "output" else 1 - reading["forget"],
        )
        for reading in ours.get("readings") or ()
    ]


def _forgetting(measures: Measures, split: str) -> float | None:
    terms = [_value(measures, f"{split}/vqa/{m}") for m in ("cloze", "accuracy", "rouge_l")]
    given = [term for term in terms if term is not None]
    # Accuracy is of letters where there are options, else of whole answers.
    return task_forgetting(given[0], given[1], given[2]) if len(given) == 3 else None


def _quality(
    measures: Measures,
    rows: Sequence[Mapping[str, Any]],
    model: str,
    away: Sequence[str],
    forgetting: float | None,
    lacking: list[str],
) -> float | None:
    """FQ, of the terms that the record has."""
    if not away or forgetting is None:
        lacking.append("FQ (no scored forget split)")
        return None
    first = away[0]
    probability = _value(measures, f"{first}/vqa/probability")
    ratio = _value(measures, f"{first}/vqa/truth_ratio")
    mine = [r for r in rows if r["model"] == model and _pictured(r, first)]
    theirs = [r for r in rows if r["model"] == "reference" and _pictured(r, first)]
    if probability is None or not mine or not theirs:
        lacking.append("FQ (no probabilities, or no reference)")
        return None
    if ratio is None:
        lacking.append("FQ's truth ratio (not measured)")
    ks, js = (_compared(name, mine, theirs) for name in ("ks", "js"))
    return forgetting_quality(forgetting, ratio, probability, ks, js)


def _pictured(row: Mapping[str, Any], split: str) -> bool:
    return row["split"] == split and row.get("modality") == "vqa"


def _compared(
    name: str, mine: Sequence[Mapping[str, Any]], theirs: Sequence[Mapping[str, Any]]
) -> float:
    import numpy as np

    metric = METRICS.get(name)()
    if not isinstance(metric, SetMetric):
        raise ConfigError(f"{name} compares no two models.")
    units = metric.units(mine, theirs, forgetting=True)
    values = np.array([unit.values for unit in units])
    return metric.combine(values[~np.isnan(values).any(axis=1)], forgetting=True)


def _utility(measures: Measures, forgetting: Sequence[str]) -> tuple[float | None, float | None]:
    """Retain and general utility: mean of cloze, accuracy and ROUGE-L over their splits."""
    kept: list[float] = []
    general: list[float] = []
    for key, found in measures.items():
        split, _, metric = key.split("/")
        value = found.get("value")
        if value is None or split in forgetting or metric not in ("cloze", "accuracy", "rouge_l"):
            continue
        (general if split.startswith(GENERAL) else kept).append(value)
    return _mean(kept), _mean(general)


def _robustness(profile: Sequence[Attacked], lacking: list[str]) -> float | None:
    sides = {
        side: _mean([a.score for a in profile if a.side == side])
        for side in ("model", "input", "output")
    }
    missing = [side for side, value in sides.items() if value is None]
    if missing:
        lacking.append(f"robustness and overall (no attack from the side of {', '.join(missing)})")
        return None
    return robustness(*(value for value in sides.values() if value is not None))


def _value(measures: Measures, key: str) -> float | None:
    return (measures.get(key) or {}).get("value")


def _mean(values: Sequence[float | None]) -> float | None:
    given = [value for value in values if value is not None]
    return sum(given) / len(given) if given else None
