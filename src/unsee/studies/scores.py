"""The scores of a run: the published aggregates, and the distance to the reference.

A term that a record lacks is left out and named, never guessed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

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
from unsee.records.schema import (
    AttackOutcome,
    Attacks,
    Measures,
    RelearningOutcome,
    SampleScore,
    Summary,
)

ModelName = Literal["unlearned", "target", "reference", "retain_only", "visual_refit"]

# What an attack works on, of Open-MMUnlearning, arXiv 2610.10358.
SIDES = {
    "relearn": "model",
    "adaptive": "model",
    "quantize": "model",
    "probe": "model",
    "prototype": "model",
    "difference": "model",
    "cross_modal": "input",
    "rephrase_image": "input",
    "perturb": "input",
    "visual_prompt": "input",
    "in_context": "input",
    "jailbreak": "input",
    "answer_prefix": "input",
    "figstep": "input",
    "membership": "output",
}

# Prefixes of splits that ask neither about the forgotten nor about the retained people.
GENERAL = ("general", "real", "world", "celebrity")


@dataclass(frozen=True)
class AttackScore:
    """The outcome of an attack with one budget.

    Attributes:
        name: The attack and its budget.
        side: "model", "input" or "output"; "" if it is of no published side.
        unlearned: Share of what was to be forgotten that comes back, or what was read, 0..1.
        reference: `unlearned` of the reference model.
        score: 0..1; 1 for an attack without success.
        area: Mean over the steps of a relearning curve minus the reference's, -1..1.
    """

    name: str
    side: str
    unlearned: float | None
    reference: float | None
    score: float | None
    area: float | None = None


@dataclass(frozen=True)
class Scores:
    """The scores of one model of a run.

    Attributes:
        numbers: By column; None if the record lacks what the number needs.
        profile: What each attack brought back.
        lacking: What was left out of the published scores.
        farthest: The measure that is farthest from the reference's.
    """

    numbers: Mapping[str, float | None]
    profile: Sequence[AttackScore] = ()
    lacking: Sequence[str] = ()
    farthest: str = ""


def distance(measures: Measures, reference: Measures) -> tuple[float, float, str]:
    """Returns how far a model is from the reference.

    The distance is the mean absolute difference over all measures that both have, each of 0..1 and
    of equal weight. 0 is a model that cannot be told from the reference. A broken model is as far
    on what is to be kept as a model that forgot nothing is on what is to be forgotten.

    Args:
        measures: The model's measures.
        reference: The reference's.

    Returns:
        The mean and the largest difference, and the measure with the largest.

    Raises:
        ConfigError: If they share no measure, or the reference lacks one that is judged by its
            distance to the reference (`better` is "reference").
    """
    gaps = {}
    for key, measure in measures.items():
        value = measure.value
        other = reference[key].value if key in reference else None
        if measure.better == "reference" and value is not None and other is None:
            raise ConfigError(
                f"'{key}' is judged by its distance to the reference model, and the reference has "
                "no value for it. Evaluate the reference on the same splits, with --reference DIR."
            )
        if value is not None and other is not None and 0 <= value <= 1 and 0 <= other <= 1:
            gaps[key] = abs(value - other)
    if not gaps:
        raise ConfigError("the model and the reference have no measure in common to compare.")
    farthest = max(gaps, key=lambda key: gaps[key])
    return sum(gaps.values()) / len(gaps), gaps[farthest], farthest


def score(summary: Summary, rows: Sequence[SampleScore], model: ModelName = "unlearned") -> Scores:
    """Computes the scores of one of a record's models.

    Args:
        summary: The record.
        rows: The scores of single samples.
        model: The model.
    """
    measures = {key: measure.value for key, measure in summary.measures_of(model).items()}
    forget_splits = [name for name in summary.forgetting if f"{name}/vqa/accuracy" in measures]
    lacking: list[str] = []
    forgetting = _mean([_forgetting(measures, name) for name in forget_splits])
    kept, general = _utility(measures, summary.forgetting)
    quality = _quality(measures, rows, model, forget_splits, forgetting, lacking)
    useful = utility(kept, general) if kept is not None and general is not None else None
    if useful is None:
        lacking.append("utility (no general split)")
    profile, robust = [], None
    if model == "unlearned":
        profile = attack_scores(summary.attacks)
        robust = _robustness(profile, lacking)
    parts = [value for value in (quality, useful, robust) if value is not None]
    numbers: dict[str, float | None] = {
        "FQ": quality,
        "MU": useful,
        "robustness": robust,
        "overall": overall(parts[0], parts[1], parts[2]) if len(parts) == 3 else None,
        "forgetting": forgetting,
        "distance": None,
        "largest gap": None,
        "distance under attack": _attack_distance(profile),
    }
    farthest = ""
    if reference := summary.measures_of("reference"):
        distances = distance(summary.measures_of(model), reference)
        numbers["distance"], numbers["largest gap"], farthest = distances
    return Scores(numbers, profile, lacking, farthest)


def _attack_distance(profile: Sequence[AttackScore]) -> float | None:
    """The mean over attacks of the difference to the reference; of curves, of the area."""
    areas = [abs(attack.area) for attack in profile if attack.area is not None]
    gaps = [
        abs(attack.unlearned - attack.reference)
        for attack in profile
        if attack.area is None and attack.unlearned is not None and attack.reference is not None
    ]
    return _mean([*areas, *gaps])


def attack_scores(attacks: Attacks | None) -> list[AttackScore]:
    """Returns what every attack of a record brought back."""
    if attacks is None:
        return []
    scores = [_relearning_score(outcome) for outcome in attacks.relearn]
    for name, outcomes in attacks.others.items():
        for label, outcome in zip(_labels(name, outcomes), outcomes, strict=True):
            scores += _outcome_scores(name, label, outcome)
    return scores


def _labels(name: str, outcomes: Sequence[AttackOutcome]) -> list[str]:
    """The attack's name, with the fields in which several budgets of it differ."""
    given = [
        {key: value for own in outcome.parameters.values() for key, value in own.items()}
        for outcome in outcomes
    ]
    first = given[0] if given else {}
    differing = [key for key in first if any(g.get(key) != first[key] for g in given)]
    return [" ".join([name, *(f"{key}={g.get(key)}" for key in differing)]) for g in given]


def relearning_name(outcome: RelearningOutcome) -> str:
    """Returns the name of a relearning attack with its budget, as tables show it."""
    name = f"relearn {100 * outcome.share:.0f} % {outcome.modules}"
    if outcome.data != "forget":
        name += f" {outcome.data.replace('_', ' ')}"
    return name if outcome.worst_case == "off" else f"{name}, worst case"


def _relearning_score(outcome: RelearningOutcome) -> AttackScore:
    """The score of a relearning attack after its last step."""
    ends = {
        model: curve[-1].value
        for model in ("unlearned", "reference")
        if (curve := outcome.curve(model))
    }
    after = ends.get("unlearned")
    return AttackScore(
        relearning_name(outcome),
        SIDES["relearn"],
        after,
        ends.get("reference"),
        1 - after if after is not None else None,
        outcome.area_to_reference,
    )


def _outcome_scores(name: str, label: str, outcome: AttackOutcome) -> list[AttackScore]:
    """The scores of an attack, or of a chain of attacks, that asks questions or reads a model.

    Args:
        name: The attack or chain.
        label: The attack or chain with its budget.
        outcome: What the attack brought back.
    """
    side = SIDES.get(name.split("+")[-1], "")
    unlearned, reference = outcome.models.get("unlearned"), outcome.models.get("reference")
    if unlearned is None:
        return []
    scores = []
    if unlearned.answers is not None and unlearned.answers.forget is not None:
        after, other = unlearned.answers.forget.after, None
        if reference is not None and reference.answers is not None and reference.answers.forget:
            other = reference.answers.forget.after
        resisted = 1 - after if after is not None else None
        scores.append(AttackScore(label, side, after, other, resisted))
    others = {r.name: r.forget for r in (reference.readings or () if reference else ())}
    for reading in unlearned.readings or ():
        success = reading.forget
        resisted = None
        if success is not None:
            # An area under a curve tells as much below one half as above.
            two_sided = reading.name.endswith(" AUC")
            resisted = membership_score(success) if two_sided else 1 - success
        read = f"{label} {reading.name}"
        scores.append(AttackScore(read, side, success, others.get(reading.name), resisted))
    return scores


def _forgetting(measures: Mapping[str, float | None], split: str) -> float | None:
    """The published forgetting of a split; None if one of its three metrics is missing."""
    terms = [measures.get(f"{split}/vqa/{m}") for m in ("cloze", "accuracy", "rouge_l")]
    given = [term for term in terms if term is not None]
    # Accuracy is of letters where there are options, else of whole answers.
    return task_forgetting(given[0], given[1], given[2]) if len(given) == 3 else None


def _quality(
    measures: Mapping[str, float | None],
    rows: Sequence[SampleScore],
    model: ModelName,
    forget_splits: Sequence[str],
    forgetting: float | None,
    lacking: list[str],
) -> float | None:
    """FQ, of the terms that the record has; what is missing is added to `lacking`."""
    if not forget_splits or forgetting is None:
        lacking.append("FQ (no scored forget split)")
        return None
    split = forget_splits[0]
    probability = measures.get(f"{split}/vqa/probability")
    ratio = measures.get(f"{split}/vqa/truth_ratio")
    own, others = (
        [r for r in rows if r.model == name and r.split == split and r.modality == "vqa"]
        for name in (model, "reference")
    )
    if probability is None or not own or not others:
        lacking.append("FQ (no probabilities, or no reference)")
        return None
    if ratio is None:
        lacking.append("FQ's truth ratio (not measured)")
    ks, js = (_compare_samples(name, own, others) for name in ("ks", "js"))
    return forgetting_quality(forgetting, ratio, probability, ks, js)


def _compare_samples(
    name: str, own: Sequence[SampleScore], reference: Sequence[SampleScore]
) -> float:
    """A metric that compares the scores of two models' samples."""
    import numpy as np

    metric = METRICS.get(name)()
    if not isinstance(metric, SetMetric):
        raise ConfigError(f"{name} does not compare two models.")
    rows, others = ([row.model_dump() for row in side] for side in (own, reference))
    units = metric.units(rows, others, forgetting=True)
    scores = np.array([unit.values for unit in units])
    return metric.combine(scores[~np.isnan(scores).any(axis=1)], forgetting=True)


def _utility(
    measures: Mapping[str, float | None], forgetting: Sequence[str]
) -> tuple[float | None, float | None]:
    """Retain and general utility: the means of cloze, accuracy and ROUGE-L over their splits."""
    kept: list[float] = []
    general: list[float] = []
    for key, value in measures.items():
        split, _, metric = key.split("/")
        if value is None or split in forgetting or metric not in ("cloze", "accuracy", "rouge_l"):
            continue
        (general if split.startswith(GENERAL) else kept).append(value)
    return _mean(kept), _mean(general)


def _robustness(profile: Sequence[AttackScore], lacking: list[str]) -> float | None:
    """The published robustness; None, and an entry in `lacking`, if a side was not attacked."""
    sides = {
        side: _mean([a.score for a in profile if a.side == side])
        for side in ("model", "input", "output")
    }
    missing = [side for side, value in sides.items() if value is None]
    if missing:
        lacking.append(f"robustness and overall (no attack from the side of {', '.join(missing)})")
        return None
    return robustness(*(value for value in sides.values() if value is not None))


def _mean(values: Sequence[float | None]) -> float | None:
    given = [value for value in values if value is not None]
    return sum(given) / len(given) if given else None
