"""Sentences of a certificate, made from the record alone and never better than it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from unsee.certificates import schema
from unsee.errors import listed, shorten
from unsee.records.attacks import CurvePoint, RelearningOutcome
from unsee.records.schema import (
    AttackedModel,
    Attacks,
    EquivalenceTest,
    Guarantees,
    Summary,
)
from unsee.report import wording
from unsee.report.equivalence import first_metrics, is_about_forgotten, outcome_of, words
from unsee.report.findings import (
    MODULES,
    TOLERANCE,
    first_key,
    percent,
    value_of,
)
from unsee.report.verdict import BARRED, Verdict

# How many sentences of one kind are written out; the document has two pages.
MOST = 3

LIMITS = tuple(
    """\
This certificate is a technical record. It is no legal advice, and does not state that a request \
under article 17 of the GDPR has been met: that assessment is the controller's.
It is about the model that its hashes identify. Other copies of the model, backups, training data, \
indexes, logs and answers that were given before are not covered.
It says what was measured and how sure that is. Questions, photographs and attacks that were not \
tried may have another outcome.
A signature shows who issued the certificate and that it is as issued, not that the measurements \
are right. They can be repeated with the commands above.""".splitlines()
)


def text_check(checked: Guarantees) -> str:
    """How the behaviour on text was checked, and the outcome.

    Args:
        checked: The record's part.
    """
    unchanged = {
        True: " The language part has the same SHA-256 as before.",
        False: " The SHA-256 of the language part has changed.",
        None: "",
    }[checked.language_part_sha256_unchanged]
    probes = checked.text_probes or 0
    if checked.text_identical is None:
        reason = checked.reason or "the record does not say why"
        return f"Outputs on text were not compared: {reason}.{unchanged}"
    how = f"the logits on {probes} fixed texts without images were hashed before and after"
    if checked.text_identical:
        return f"Bit for bit the same: {how}, and every hash is equal.{unchanged}"
    share = checked.text_next_token_same
    near = "" if share is None else f" {percent(share)} of next tokens are the same."
    return f"Not the same: {how}, and they differ.{near}{unchanged}"


def equivalence(summary: Summary, judged: Verdict) -> schema.EquivalenceStatement:
    """The equivalence statement: "indistinguishable within margin m at budget B", or what failed.

    Args:
        summary: The record.
        judged: The verdict on it.
    """
    tests = tuple(_test(test) for test in summary.equivalence or ())
    outcome, statement = _equivalence(summary, judged)
    return schema.EquivalenceStatement(
        outcome=outcome, statement=shorten(statement, 4000), tests=tests
    )


def _equivalence(summary: Summary, judged: Verdict) -> tuple[Any, str]:
    tests = summary.equivalence
    if judged.forgetting.label in BARRED:
        return "not_applicable", (
            f"No statement of equivalence is made, for the record bars it: "
            f"{judged.forgetting.label.lower()}. {_sentence(judged.forgetting.clause)}"
        )
    if not tests:
        return "not_tested", (
            "Not tested: the record has no test against a reference model that never saw the "
            "photographs, so nothing says whether the model can be told from one."
        )
    attacks = list(dict.fromkeys(test.attack for test in tests if test.attack))
    budget = f"{_plural(len(attacks), 'attack')} ({listed(attacks, MOST)})"
    outcome = outcome_of(tests)
    if outcome == "indistinguishable":
        before = [test for test in tests if not test.attack]
        under = [test for test in tests if test.attack]
        parts = []
        if before:
            margin = _points(max(test.margin for test in before))
            parts.append(
                f"within a margin of {margin} before any attack ({_plural(len(before), 'measure')})"
            )
        if under:
            margin = _points(max(test.margin for test in under))
            parts.append(f"within a margin of {margin} under {budget}")
        missing = "" if under else " No attack was compared with such a model."
        return outcome, (
            "Indistinguishable from a model that never saw the photographs: "
            f"{' and '.join(parts)}, by two one-sided tests at the 5 % level.{missing}"
        )
    failed = [test for test in first_metrics(tests) if test.outcome == "too_few"]
    if outcome == "distinguishable":
        failed = [test for test in tests if test.outcome == outcome]
    failed.sort(key=lambda test: (not is_about_forgotten(summary, test), -_gap(test)))
    named = "; ".join(words(test) for test in failed[:MOST])
    more = f"; and {len(failed) - MOST} more" if len(failed) > MOST else ""
    if outcome == "distinguishable":
        return outcome, (
            f"Distinguishable from a model that never saw the photographs, by "
            f"{_plural(len(failed), 'test')} of {len(tests)}: {named}{more}."
        )
    people = max((test.people for test in failed), default=0)
    needed = max((test.needed or 0 for test in failed), default=0)
    wish = f"; about {needed} would be needed" if needed else ""
    return "too_few", (
        "Not decided: "
        f"{_plural(people, 'data subject')} cannot show equality within the margins{wish}. "
        f"Undecided: {named}{more}."
    )


def residual_risk(
    summary: Summary,
    judged: Verdict,
    equal: schema.EquivalenceStatement,
    request: schema.Request,
) -> schema.ResidualRisk:
    """The risk that remains; never better than the record.

    Args:
        summary: The record.
        judged: The verdict on it.
        equal: The equivalence statement.
        request: The request.
    """
    level = _risk_level(summary, judged, equal, request)
    lead = {
        "bounded": "No question and no attack that was run told the model from one that never saw "
        "the photographs, within the margins stated. That is a bound, not a proof of absence.",
        "found": "The record shows that something about the data subjects can still be told from "
        "the model, or that it was damaged.",
        "unknown": "The record does not show whether the data subjects can still be recognised.",
    }[level]
    found = [
        *_verdict_lines(judged),
        *_attack_lines(summary),
        *_request_lines(request),
        *_unknown_lines(summary),
        *_standing_lines(summary),
    ]
    statements = tuple(shorten(text, 4000) for text in (lead, *dict.fromkeys(found)))
    return schema.ResidualRisk(level=level, statements=statements)


def _risk_level(
    summary: Summary,
    judged: Verdict,
    equal: schema.EquivalenceStatement,
    request: schema.Request,
) -> Any:
    """The level: found where anything in the record speaks for it, bounded only where all does."""
    found = (
        judged.level == "bad"
        or judged.forgetting.level == "bad"
        or judged.relearning.level == "bad"
        or any(
            test.outcome == "distinguishable" and is_about_forgotten(summary, test)
            for test in summary.equivalence or ()
        )
        or any(audit.passed is False for audit in request.re_audit)
        or request.decision == "not_accepted"
    )
    if found:
        return "found"
    attacked = any(test.attack for test in summary.equivalence or ())
    everything = equal.outcome == "indistinguishable" and attacked and judged.level == "good"
    return "bounded" if everything else "unknown"


def _verdict_lines(judged: Verdict) -> Iterator[str]:
    """The findings on forgetting that are not good."""
    if judged.forgetting.level != "good" and judged.forgetting.clause:
        yield f"{judged.forgetting.label}: {_sentence(judged.forgetting.clause)}"
    if judged.utility.level in ("warn", "bad") and judged.utility.clause:
        yield _sentence(judged.utility.clause)
    if judged.text.level in ("warn", "bad") and judged.text.clause:
        yield _sentence(judged.text.clause)
    if judged.unscored:
        yield judged.unscored


def _attack_lines(summary: Summary) -> Iterator[str]:
    """The strongest attacks that bring answers back, with their budgets."""
    gains = [*_relearned(summary), *_recovered(summary)]
    gains.sort(key=lambda gain: -gain[0])
    for _, line in gains[:MOST]:
        yield line
    if len(gains) > MOST:
        yield f"{len(gains) - MOST} more attacks raise the score of the forgotten; see the record."


def _relearned(summary: Summary) -> Iterator[tuple[float, str]]:
    for outcome in summary.relearn:
        points = [p for p in outcome.curve("unlearned") if p.value is not None]
        if not points:
            continue
        start, peak = points[0].value or 0.0, max(points, key=_height)
        beside = max(outcome.curve("reference"), key=_height, default=None)
        height = beside.value if beside is not None else None
        gain = (peak.value or 0.0) - start
        if gain > TOLERANCE + 1e-9:
            yield gain, f"{_relearning(outcome, peak)}{_compared(height)}."


def _relearning(outcome: RelearningOutcome, peak: CurvePoint) -> str:
    trained = MODULES.get(outcome.modules, outcome.modules)
    return (
        f"Whoever can train the model and has {percent(outcome.share)} {outcome.given} gets "
        f"{percent(peak.value or 0.0)} right after {wording.steps(peak.step)} on {trained}"
    )


def _recovered(summary: Summary) -> Iterator[tuple[float, str]]:
    for name, outcomes in (summary.attacks or Attacks()).others.items():
        for outcome in outcomes:
            models = outcome.models
            asked = models.get("unlearned", AttackedModel()).answers
            forget = asked.forget if asked is not None else None
            if forget is None or forget.before is None or forget.after is None:
                continue
            other = models.get("reference", AttackedModel()).answers
            beside = other.forget.after if other is not None and other.forget else None
            gain = forget.after - forget.before
            if gain > TOLERANCE + 1e-9:
                way = f"from {percent(forget.before)} to {percent(forget.after)}"
                yield gain, f"The attack {name} raises right answers {way}{_compared(beside)}."


def _request_lines(request: schema.Request) -> Iterator[str]:
    failed = [audit for audit in request.re_audit if audit.passed is False]
    for audit in failed[:MOST]:
        whom = (
            "subjects of an earlier request" if audit.who == "forgotten_earlier" else "the others"
        )
        yield (
            f"The re-audit of {whom} failed on {audit.measure}: {_share(audit.before)} before, "
            f"{_share(audit.after)} after."
        )
    if len(failed) > MOST:
        yield f"{len(failed) - MOST} more re-audits failed; see certificate.json."


def _unknown_lines(summary: Summary) -> Iterator[str]:
    """Sentences on what the record says nothing about."""
    missing = summary.not_attacked or ()
    if summary.attacks is None:
        yield "No attack was run, so nothing is known of what an attacker could bring back."
    elif missing:
        count = _plural(len(missing), "registered attack")
        yield f"Nothing is known of {count} that were not run; they are listed with the attacks."
    for reason, names in wording.by_reason(summary.attacks_left_out or {}).items():
        # What to type is for whoever makes the run, and not for who reads its certificate.
        yield f"Not run: {', '.join(names)}, as {reason.partition('. ')[0]}."
    photographs = summary.photographs
    if photographs is not None and photographs.how_far:
        count = _plural(photographs.per_person[0], "photograph")
        yield f"There were {count} of the data subject with the fewest. {photographs.how_far}"
    if photographs is not None and photographs.marked:
        yield (
            f"Of {_plural(photographs.marked, 'group photograph')} only the marked face was to be "
            "forgotten; the other people shown were kept, as far as the measures tell."
        )
    benchmark = summary.benchmark
    people = benchmark.forgotten if benchmark is not None else None
    if people is not None and people < 5:
        yield (
            f"The measures rest on {_plural(people, 'data subject')}: too few for intervals over "
            "people."
        )


def _standing_lines(summary: Summary) -> Iterator[str]:
    """Sentences that hold of every result of the kind."""
    checked = summary.guarantees or Guarantees()
    key = first_key(summary.measures, "forget/text", "forget_holdout/text")
    by_name = value_of(summary.measures, key)
    if checked.text_identical or checked.changed_outside_visual == 0:
        asked = "" if by_name is None else f" (asked by name, {percent(by_name)} right)"
        yield (
            "What the language part has read about a data subject is unchanged, and can still be "
            f"asked for by name{asked}; only recognition from images was unlearned."
        )
    saved = summary.artifacts
    if saved is not None and saved.patch:
        yield (
            "The base checkpoint is as it was: whoever has it, or takes the patch off, has the "
            "model from before the request."
        )


def verify_commands(request: schema.Request, has_patch: bool) -> tuple[str, ...]:
    """The commands that check the certificate, from the quickest to the most thorough.

    Args:
        request: The request.
        has_patch: Whether the result is a patch.
    """
    start = "unsee certificate verify certificate.json"
    commands = [f"{start} --public-key KEY.pub", f"{start} --run RUN"]
    if has_patch:
        commands.append(f"{start} --patch PATCH --model MODEL")
        commands.append("unsee apply PATCH --model BASE --out RESULT")
        commands.append("unsee verify BASE RESULT --require text,visual")
    else:
        commands.append(f"{start} --model MODEL")
    if request.photographs is not None:
        commands.append(f"{start} --photos PHOTOS --salt SALT")
    commands.append("unsee audit --model RESULT --forget PHOTOS --attack standard")
    return tuple(commands)


def _test(test: EquivalenceTest) -> schema.Test:
    return schema.Test(
        attack=test.attack,
        step=test.step,
        measure=test.measure,
        outcome=test.outcome,
        side=test.side,
        difference=test.difference,
        low=test.low,
        high=test.high,
        margin=test.margin,
        p=test.p,
        people=test.people,
        needed=test.needed,
    )


def _gap(test: EquivalenceTest) -> float:
    return abs(test.difference or 0.0)


def _height(point: CurvePoint) -> tuple[float, int]:
    return (-1.0 if point.value is None else point.value, -point.step)


def _compared(reference: float | None) -> str:
    if reference is None:
        return "; no model that never saw the photographs was compared"
    return f" (a model that never saw the photographs: {percent(reference)})"


def _share(value: float | None) -> str:
    return "not measured" if value is None else percent(value)


def _points(margin: float) -> str:
    return f"{100 * margin:g} percentage points"


def _plural(count: int, word: str) -> str:
    return f"{count} {word}" if count == 1 else f"{count} {word}s"


def _sentence(clause: str) -> str:
    """A clause as a sentence."""
    return f"{clause[:1].upper()}{clause[1:].rstrip('.')}." if clause else ""
