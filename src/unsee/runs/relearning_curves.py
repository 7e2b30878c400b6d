"""Recovery curves: relearning attacks of every budget, on the unlearned model and references."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import TypeAdapter

from unsee.attacks import AttackerData
from unsee.attacks.relearn import Relearn
from unsee.benchmarks import HELD_OUT, Scoring
from unsee.data.selection import evenly_spaced
from unsee.evaluation.equivalence import measured_people, unsigned_gaps
from unsee.evaluation.evaluate import evaluate
from unsee.metrics import METRICS
from unsee.models.vlm import VLM
from unsee.progress import Bar
from unsee.records.schema import CurvePoint, Measures, RelearningOutcome
from unsee.runs.stage_cache import StageCache
from unsee.types import AnswerLimit, Sample

# Retain questions per checkpoint: enough to see what an attack costs elsewhere.
MAX_RETAIN_QUESTIONS = 180
# In a sweep over learning rates, which has many checkpoints.
MAX_SWEEP_QUESTIONS = 60


@dataclass(frozen=True)
class RelearningCurves:
    """The recovery curves of an attack.

    Attributes:
        attack: The attack.
        curves: The points by model.
        limits: Maximum number of generated tokens by held-out split.
    """

    attack: Relearn
    curves: Mapping[str, tuple[CurvePoint, ...]]
    limits: Mapping[str, AnswerLimit | None]


CURVE = TypeAdapter(tuple[CurvePoint, ...])
SCORE = TypeAdapter(dict[str, float | dict[str, float] | None])


def relearning_curves(
    attacks: Sequence[Relearn],
    models: Mapping[str, Callable[[], VLM]],
    attacker: AttackerData,
    splits: Mapping[str, Sequence[Sample]],
    cache: StageCache,
    bar: Bar,
    scoring: Mapping[str, Scoring],
) -> list[RelearningCurves]:
    """Runs every relearning attack on every model.

    Args:
        attacks: One attack per budget.
        models: Load each model, by name; "unlearned" is the one that is judged.
        attacker: The samples of which an attacker has a share.
        splits: Held-out questions: all of "forget_holdout" for every model, and up to
            `MAX_RETAIN_QUESTIONS` of "retain_holdout", evenly spread, for the unlearned model.
        cache: Keeps the curves.
        bar: Shows each curve's progress.
        scoring: Metric and answer length by held-out split; exact answers where not given.
    """
    scoring = {name: scoring.get(name, Scoring()) for name in HELD_OUT}
    questions = {
        name: [s for s in splits[name] if s.modality == "vqa"]
        for name in HELD_OUT
        if name in splits
    }
    if "retain_holdout" in questions:
        questions["retain_holdout"] = evenly_spaced(
            questions["retain_holdout"], MAX_RETAIN_QUESTIONS, "ceil"
        )
    metric = METRICS.get(scoring[HELD_OUT[0]].metric)()
    scorable = any(s.answer and metric.applies(s) for s in questions.get(HELD_OUT[0], ()))

    def curve(index: int, attack: Relearn, name: str) -> tuple[CurvePoint, ...]:
        share = f"{100 * attack.share:.0f}%"
        kind = attack.modules if attack.data == "forget" else f"{attack.modules} {attack.data}"
        bar.stage(f"relearning {share} {kind}: {name.replace('_', '-')}")
        # What an attack costs the attacker elsewhere matters for the judged model alone.
        asked = {n: s for n, s in questions.items() if name == "unlearned" or n == HELD_OUT[0]}
        stage = "attack-start"
        if attack.worst_case != "off" and HELD_OUT[1] in asked:
            asked[HELD_OUT[1]] = evenly_spaced(asked[HELD_OUT[1]], MAX_SWEEP_QUESTIONS, "ceil")
            stage += "-sweep"
        if attack.data == "held_out_people" and HELD_OUT[0] in asked:
            asked[HELD_OUT[0]] = attack.asked(asked[HELD_OUT[0]], attacker.forget)
            stage += f"-{index}"
        load = models[name]

        def score(vlm: VLM) -> dict[str, Any]:
            return _score(vlm, asked, scoring)

        # Every budget starts from the same model, which is scored once.
        start = cache.get_or_compute(
            SCORE,
            stage,
            name,
            lambda: score(load()),
            attack if attack.data == "held_out_people" else "",
        )
        return cache.get_or_compute(
            CURVE,
            f"attack-{index}",
            name,
            lambda: tuple(
                attack.curve(load(), attacker.forget, score, start, scorable, attacker.retain)
            ),
            attack,
        )

    limits = {name: scoring[name].max_new_tokens for name in questions}

    return [
        RelearningCurves(attack, {name: curve(index, attack, name) for name in models}, limits)
        for index, attack in enumerate(attacks)
    ]


def relearning_outcomes(
    attacks: Sequence[RelearningCurves], scoring: Mapping[str, Scoring], target: Measures
) -> tuple[RelearningOutcome, ...]:
    """Returns the records of relearning attacks on the unlearned model and references.

    Args:
        attacks: The curves of each attack.
        scoring: As in `relearning_curves`.
        target: The measures of the model before unlearning, as far as they are known.
    """
    measure, retain_measure = (
        f"{name}/vqa/{scoring.get(name, Scoring()).metric}" for name in HELD_OUT
    )
    target_score = target[measure].value if measure in target else None
    outcomes = []
    for attack in attacks:
        result = attack.attack.outcome(attack.curves, target_score, measure, retain_measure)
        further = {"max_new_tokens": attack.limits, **unsigned_fields(result.curves)}
        outcomes.append(result.model_copy(update=further))
    return tuple(outcomes)


def _score(
    vlm: VLM, splits: Mapping[str, Sequence[Sample]], scoring: Mapping[str, Scoring]
) -> dict[str, Any]:
    """Returns a checkpoint's scores, named as the fields of `CurvePoint`."""
    estimates = {}
    by_person: dict[str, Any] = {}
    for name, samples in splits.items():
        metric = scoring[name].metric
        evaluation = evaluate(
            vlm,
            {name: samples},
            metrics=[metric],
            max_new_tokens=scoring[name].max_new_tokens,
            rules=scoring[name].rules,
        )
        key = f"{name}/vqa/{metric}"
        estimates[name] = evaluation.measures.get(key)
        people = measured_people(evaluation.rows, [metric]).get(key)
        if name == HELD_OUT[0] and people is not None and people.by_person:
            by_person = {"by_person": people.by_person, "resolution": people.resolution}
    forget, retain = (estimates.get(name) for name in HELD_OUT)
    # A metric that applies to none of the questions has measured nothing.
    score = {end: getattr(forget, end, None) for end in ("value", "low", "high")}
    return {**score, "retain": getattr(retain, "value", None), **by_person}


def unsigned_fields(curves: Mapping[str, Sequence[CurvePoint]]) -> dict[str, float | int]:
    """Returns the fields of `RelearningOutcome` about unsigned gaps; {} without a reference.

    Args:
        curves: The points by model.
    """
    reference = {point.step: point.value for point in curves.get("reference", ())}
    gaps = {
        point.step: point.value - other
        for point in curves.get("unlearned", ())
        if point.value is not None and (other := reference.get(point.step)) is not None
    }
    result = unsigned_gaps(sorted(gaps), [gaps[step] for step in sorted(gaps)])
    if result is None:
        return {}
    area, (step, gap) = result
    return {"unsigned_area_to_reference": area, "worst_gap": gap, "worst_step": step}
