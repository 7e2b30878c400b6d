"""Whether the result of a step is accepted: every condition, what was measured, and the margin."""

from __future__ import annotations

from collections.abc import Mapping

from unsee.evaluation.headroom import chance
from unsee.records.schema import Attacks, Summary
from unsee.report.findings import first_key, value_of
from unsee.requests.entries import Criterion, Decision, LedgerSettings, LedgerState
from unsee.requests.settings import PlannedStep

# Score, 0..1, up to which rounding is no difference.
ROUNDING = 1e-9


def scores_of(planned: PlannedStep, summary: Summary) -> dict[str, dict[str, float | None]]:
    """Returns the scores of the base model and after a step, by request and of "kept".

    Args:
        planned: The step.
        summary: The record of its run.
    """
    scores: dict[str, dict[str, float | None]] = {}
    for name, split in planned.splits.items():
        key = first_key(summary.measures, f"{split}/vqa/")
        if key is not None:
            scores[name] = {
                "before": value_of(summary.target, key),
                "after": value_of(summary.measures, key),
                "chance": chance(s for s in planned.job.splits[split] if s.modality == "vqa"),
            }
    return scores


def decide(
    planned: PlannedStep,
    summary: Summary,
    state: LedgerState,
    requests: tuple[str, ...],
    settings: LedgerSettings,
) -> Decision:
    """Returns the decision on a step.

    Args:
        planned: The step.
        summary: The record of its run.
        state: The ledger before the step.
        requests: Ids of the requests that the step answers.
        settings: The declared margins.
    """
    scores = scores_of(planned, summary)
    criteria = [_patch(summary), _text(summary)]
    for name in requests:
        criteria.append(_forgotten("forgotten", name, scores.get(name), settings.forget_margin))
    for name in state.forgotten:
        if name in scores:
            score = scores[name]
            before = state.last_score(name) or 0.0
            limit = max(before, score["chance"] or 0.0) + settings.forget_margin
            criteria.append(_at_most("still forgotten", name, score["after"], limit))
    kept = scores.get("kept")
    if kept is not None:
        criteria.append(_kept(kept["after"], kept["before"], settings.keep_margin))
    else:
        criteria.append(_unmeasured("kept", "kept", "the people to keep were not asked about"))
    criteria += _attacks(summary.attacks, scores, requests, settings.attack_margin)
    accepted = all(criterion.passed is not False for criterion in criteria)
    return Decision(accepted=accepted, criteria=tuple(criteria), not_measured=planned.not_measured)


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
    name: str, subject: str, score: Mapping[str, float | None] | None, margin: float
) -> Criterion:
    if score is None or score["after"] is None:
        return _unmeasured(name, subject, "no question with an answer was given about it")
    return _at_most(name, subject, score["after"], (score["chance"] or 0.0) + margin)


def _at_most(name: str, subject: str, value: float | None, limit: float) -> Criterion:
    if value is None:
        return _unmeasured(name, subject, "its questions were not scored")
    passed = value <= limit + ROUNDING
    return Criterion(
        name=name,
        subject=subject,
        value=value,
        limit=limit,
        passed=passed,
        text=f"{subject}: {value:.3f} of the questions about the photographs are answered right; "
        f"{'at' if passed else 'more than the'} most {limit:.3f} {'is' if passed else 'that is'} "
        "accepted.",
    )


def _kept(after: float | None, start: float | None, margin: float) -> Criterion:
    if after is None or start is None:
        return _unmeasured("kept", "kept", "the questions about the others were not scored")
    limit = start - margin
    passed = after >= limit - ROUNDING
    return Criterion(
        name="kept",
        subject="kept",
        value=after,
        limit=limit,
        passed=passed,
        text=f"The others: {after:.3f} of the questions are answered right, {start:.3f} when the "
        f"ledger began; {'at' if passed else 'less than the'} least {limit:.3f} "
        f"{'is' if passed else 'that is'} accepted.",
    )


def _attacks(
    attacks: Attacks | None,
    scores: Mapping[str, Mapping[str, float | None]],
    requests: tuple[str, ...],
    margin: float | None,
) -> list[Criterion]:
    """A criterion for each attack; it decides only where a margin was declared."""
    if attacks is None:
        return [_unmeasured("attack", "none", "no attack was made")]
    floors = [scores[name]["chance"] or 0.0 for name in requests if name in scores]
    limit = max(floors, default=0.0) + margin if margin is not None else None
    recovered: list[tuple[str, float | None]] = []
    for outcome in attacks.relearn:
        points = [*outcome.curve("unlearned"), *filter(None, [outcome.worst.get("unlearned")])]
        values = [point.value for point in points if point.value is not None]
        subject = f"relearn {outcome.share:g} {outcome.given}, {outcome.modules}"
        recovered.append((subject, max(values, default=None)))
    for name, outcomes in attacks.others.items():
        for other in outcomes:
            model = other.models.get("unlearned")
            answers = model.answers.forget if model is not None and model.answers else None
            if answers is not None:
                recovered.append((name, answers.after))
    return [
        Criterion(
            name="attack",
            subject=subject,
            value=value,
            limit=limit,
            passed=None if limit is None or value is None else value <= limit + ROUNDING,
            text=f"Attack {subject}: "
            + ("not scored" if value is None else f"{value:.3f} of the questions answered right")
            + ("." if limit is None else f"; at most {limit:.3f} is accepted."),
        )
        for subject, value in recovered
    ]


def _unmeasured(name: str, subject: str, why: str) -> Criterion:
    return Criterion(name=name, subject=subject, text=f"{subject}: not measured, as {why}.")
