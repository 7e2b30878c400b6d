"""Whether the result of a step is accepted: every condition, its value, and the margin."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from unsee.evaluation.headroom import chance
from unsee.records.schema import Attacks, Measures, Summary
from unsee.report.findings import OTHERS_SAY, first_key, value_of
from unsee.requests.entries import Criterion, Decision, LedgerSettings, LedgerState, SubjectScore
from unsee.requests.settings import PlannedStep

# What is scored of each subject.
Scores = Mapping[str, SubjectScore]

KEPT = "kept"
# Where scores are, held-out pictures first; features where no question could be asked.
FORGOTTEN = tuple(f"{s}/{k}" for k in ("vqa", "features") for s in ("forget_holdout", "forget"))
KEPT_SPLITS = tuple(f"{s}/{k}" for k in ("vqa", "features") for s in ("retain_holdout", "retain"))
# Difference of two scores, 0..1, that is a rounding error.
ROUNDING = 1e-9


def scores_of_run(planned: PlannedStep, summary: Summary) -> dict[str, SubjectScore]:
    """Returns the scores of the request of a step, by id, and of the people to keep, as "kept".

    A run does not tell several requests apart; `unsee.requests.audit` does.

    Args:
        planned: The step.
        summary: The record of its run.
    """
    scores = {}
    kept = first_key(summary.measures, *KEPT_SPLITS)
    if kept is not None:
        scores[KEPT] = _score(summary, kept, 0.0)
    key = first_key(summary.measures, *FORGOTTEN)
    if key is not None and len(planned.requests) == 1:
        scores[planned.requests[0]] = _score(summary, key, _floor(planned, summary, key))
    return scores


def _floor(planned: PlannedStep, summary: Summary, key: str) -> float:
    """The score of a model that never saw the people, 0..1."""
    split, _, measure = key.partition("/")
    if summary.recognition is not None:
        return floor_of(measure, summary.target or {}, summary.recognition.chance)
    return chance(s for s in planned.job.splits.get(split, ()) if s.modality == "vqa")


def floor_of(measure: str, target: Measures, identity_chance: float | None) -> float:
    """The score, 0..1, of a model that never saw a person, on a measure of photographs alone.

    Args:
        measure: The measure, without its split.
        target: The base model's measures.
        identity_chance: Rank-1 retrieval by chance, 0..1.
    """
    known = identity_chance if measure.startswith("features/") else value_of(target, OTHERS_SAY)
    return known or 0.0


def _score(summary: Summary, key: str, floor: float) -> SubjectScore:
    measured = (summary.measures or {})[key]
    return SubjectScore(
        measure=key,
        base=value_of(summary.target, key),
        after=measured.value,
        floor=floor,
        n=measured.n,
    )


def decide(
    planned: PlannedStep,
    summary: Summary,
    scores: Scores,
    state: LedgerState,
    not_audited: Sequence[str],
) -> Decision:
    """Returns the decision on a step.

    Args:
        planned: The step.
        summary: The record of its run.
        scores: What was scored, by request and "kept".
        state: The ledger, whose settings declare the margins.
        not_audited: Ids of earlier requests that were not scored.
    """
    settings = state.settings
    criteria = [_patch(summary), _text(summary)]
    criteria += [
        _forgotten("forgotten", name, scores.get(name), 0.0, settings) for name in planned.requests
    ]
    criteria += [
        _forgotten("still forgotten", name, scores.get(name), state.last_score(name), settings)
        for name in state.forgotten
        if name not in not_audited
    ]
    criteria.append(_kept(scores.get(KEPT), settings.keep_margin))
    criteria += _attacks(summary.attacks, scores, planned.requests, settings.attack_margin)
    return Decision(
        accepted=all(criterion.passed is not False for criterion in criteria),
        criteria=tuple(criteria),
        not_measured=planned.not_measured,
    )


def _patch(summary: Summary) -> Criterion:
    outside = summary.guarantees.changed_outside_visual if summary.guarantees is not None else None
    return Criterion(
        name="patch",
        subject="tensors outside the visual part",
        value=None if outside is None else float(outside),
        limit=0.0,
        passed=None if outside is None else outside == 0,
        text="No tensor outside vision encoder and projector changed."
        if outside == 0
        else "Tensors outside vision encoder and projector changed.",
    )


def _text(summary: Summary) -> Criterion:
    checked = summary.guarantees
    same = checked.text_identical if checked is not None else None
    words = {
        True: "Outputs on text without pictures are the same bit for bit.",
        False: "Outputs on text without pictures differ.",
        None: "Outputs on text were not compared: "
        f"{checked.reason if checked is not None else 'the record does not say'}.",
    }
    return Criterion(name="text", subject="outputs on text", passed=same, text=words[same])


def _forgotten(
    name: str,
    subject: str,
    score: SubjectScore | None,
    before: float | None,
    settings: LedgerSettings,
) -> Criterion:
    """The condition that a person is (still) forgotten.

    Args:
        name: The condition's name.
        subject: The request.
        score: Its score; None if there is none.
        before: The score that was accepted before, 0..1.
        settings: The declared margins.
    """
    if score is None or score.after is None:
        # What was not measured is no evidence, so it cannot be accepted.
        return _unmeasured(name, subject, "nothing could be asked about it", passed=False)
    margin = settings.forget_margin
    limit = min(1.0, max(score.floor, before or 0.0) + margin)
    passed = score.after <= limit + ROUNDING
    return Criterion(
        name=name,
        subject=subject,
        value=score.after,
        limit=limit,
        margin=margin,
        passed=passed,
        text=f"{subject}: {score.after:.3f} on {score.measure}, {_shown(score.base)} before any "
        f"request; {'at' if passed else 'more than the'} most {limit:.3f}"
        f"{' is' if passed else ' that is'} accepted.",
    )


def _kept(score: SubjectScore | None, margin: float) -> Criterion:
    if score is None or score.after is None or score.base is None:
        return _unmeasured(KEPT, KEPT, "nothing could be asked about the people to keep")
    limit = max(0.0, score.base - margin)
    passed = score.after >= limit - ROUNDING
    return Criterion(
        name=KEPT,
        subject=KEPT,
        value=score.after,
        limit=limit,
        margin=margin,
        passed=passed,
        text=f"The people to keep: {score.after:.3f} on {score.measure}, {score.base:.3f} before "
        f"any request; {'at' if passed else 'less than the'} least {limit:.3f}"
        f"{' is' if passed else ' that is'} accepted.",
    )


def _shown(value: float | None) -> str:
    return "unknown" if value is None else f"{value:.3f}"


def _attacks(
    attacks: Attacks | None, scores: Scores, requests: Sequence[str], margin: float | None
) -> list[Criterion]:
    """A criterion for each attack; it decides only where a margin was declared."""
    if attacks is None:
        return [_unmeasured("attack", "attacks", "no attack was made")]
    floor = max((scores[name].floor for name in requests if name in scores), default=0.0)
    recovered: list[tuple[str, float | None, float]] = []
    for outcome in attacks.relearn:
        points = [*outcome.curve("unlearned"), *filter(None, [outcome.worst.get("unlearned")])]
        values = [point.value for point in points if point.value is not None]
        subject = f"relearn {outcome.share:g} {outcome.given}, {outcome.modules}"
        recovered.append((subject, max(values, default=None), floor))
    for name, outcomes in attacks.others.items():
        for other in outcomes:
            model = other.models.get("unlearned")
            answers = model.answers.forget if model is not None and model.answers else None
            if answers is not None:
                recovered.append((name, answers.after, floor))
            recovered += [
                (f"{name} {reading.name}", reading.forget, reading.baseline or 0.0)
                for reading in (model.readings or () if model is not None else ())
            ]
    return [_attack(*found, margin) for found in recovered]


def _attack(subject: str, value: float | None, floor: float, margin: float | None) -> Criterion:
    limit = floor + margin if margin is not None else None
    shown = "not scored" if value is None else f"{value:.3f}"
    decides = "" if limit is None else f"; at most {limit:.3f} is accepted"
    return Criterion(
        name="attack",
        subject=subject,
        value=value,
        limit=limit,
        margin=margin,
        passed=None if limit is None or value is None else value <= limit + ROUNDING,
        text=f"Attack {subject}: {shown}{decides}.",
    )


def _unmeasured(name: str, subject: str, why: str, passed: bool | None = None) -> Criterion:
    text = f"{subject}: not measured, as {why}."
    return Criterion(name=name, subject=subject, passed=passed, text=text)
