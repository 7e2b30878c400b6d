"""The finding on the tests against the visual-retain reference, before and under attack."""

from __future__ import annotations

from collections.abc import Sequence

from unsee.records.schema import EquivalenceTest, Summary
from unsee.report import wording
from unsee.report.findings import SAYS, Finding, percent

INDISTINGUISHABLE = "Indistinguishable"
DISTINGUISHABLE = "Distinguishable"
TOO_FEW = "Not enough people to tell"

LABELS = {
    "indistinguishable": INDISTINGUISHABLE,
    "distinguishable": DISTINGUISHABLE,
    "too_few": TOO_FEW,
}


def equivalence(summary: Summary) -> Finding | None:
    """Whether the model can be told from one that never saw the people; None without tests.

    It is distinguishable if any measure is, before attack or at the worst point of an attack. It is
    indistinguishable if none is and every attack, and the first metric of all questions of a kind
    (accuracy, where it was measured), is shown to be equal.

    Args:
        summary: The record.
    """
    tests = summary.equivalence
    if not tests:
        return None
    attacks = not_run(summary)
    apart = [test for test in tests if test.outcome == "distinguishable"]
    if apart:
        return _distinguishable(summary, apart, attacks)
    decisive = first_metrics(tests)
    open_ones = [test for test in decisive if test.outcome == "too_few"]
    if open_ones:
        return Finding("unknown", TOO_FEW, f"{_too_few(open_ones)}{attacks}")
    within = _within(tests)
    clause = f"it cannot be told from a model that never saw them ({within})"
    return Finding("good", INDISTINGUISHABLE, f"{clause}{attacks}")


def first_metrics(tests: Sequence[EquivalenceTest]) -> list[EquivalenceTest]:
    """The tests that must show equality: those under attack, and one for each kind of question."""
    order = {metric: number for number, metric in enumerate(SAYS)}
    first: dict[str, EquivalenceTest] = {}
    for test in tests:
        prefix, _, metric = test.measure.rpartition("/")
        known = first.get(prefix)
        rank = order.get(metric, len(order))
        if not test.attack and (
            known is None or rank < order.get(known.measure.rpartition("/")[2], len(order))
        ):
            first[prefix] = test
    return [*first.values(), *(test for test in tests if test.attack)]


def not_run(summary: Summary) -> str:
    """A clause that names the attacks that were not run; empty if that is not recorded."""
    if summary.attacks is None:
        return "; no attack was run"
    missing = summary.not_attacked or ()
    return f"; not attacked by {', '.join(missing)}" if missing else ""


def relearning_tests(summary: Summary) -> list[EquivalenceTest]:
    """The tests of relearning attacks, at the worst point of each."""
    return [test for test in summary.equivalence or () if test.attack.startswith("relearn")]


def worst_relearning(summary: Summary) -> Finding | None:
    """The finding on relearning attacks alone; None without tests of them."""
    tests = relearning_tests(summary)
    if not tests:
        return None
    for outcome, level in (
        ("distinguishable", "bad"),
        ("too_few", "unknown"),
        ("indistinguishable", "good"),
    ):
        some = [test for test in tests if test.outcome == outcome]
        if some:
            below = level == "bad" and all(test.side == "below" for test in some)
            return Finding("warn" if below else level, LABELS[outcome])  # type: ignore[arg-type]
    return None


def _distinguishable(summary: Summary, apart: Sequence[EquivalenceTest], attacks: str) -> Finding:
    forgotten = [test for test in apart if is_about_forgotten(summary, test)]
    worst = max(forgotten or apart, key=lambda test: abs(test.difference or 0.0))
    clause = f"it can be told from a model that never saw them by {words(worst)}"
    others = len(apart) - 1
    clause += f" and by {others} more" if others else ""
    when = "under attack" if worst.attack else "before attack"
    leaks = any(test.side == "above" for test in forgotten)
    return Finding("bad" if leaks else "warn", f"{DISTINGUISHABLE} {when}", f"{clause}{attacks}")


def is_about_forgotten(summary: Summary, test: EquivalenceTest) -> bool:
    """Whether a test is about pictures of what is to be forgotten."""
    split, _, rest = test.measure.partition("/")
    return bool(test.attack) or (split in summary.forgetting and rest.startswith("vqa"))


def words(test: EquivalenceTest) -> str:
    """The measure of a test, how far it is from the reference, and on which side."""
    parts = test.measure.rpartition("/")
    metric = parts[2]
    named = "answers" if metric == "forget" else wording.metric_name(metric)
    place = f"{named} ({wording.place(parts[0]).lower()})" if parts[0] else named
    if test.attack.startswith("relearn"):
        place = f"{named} after {wording.steps(test.step or 0)} of {test.attack}"
    elif test.attack:
        place = f"{named} under {test.attack}"
    gap = abs(test.difference or 0.0)
    shown = f"{100 * gap:.0f} points" if metric in (*wording.SHARES, "forget") else f"{gap:.2f}"
    return f"{place}, {shown} {test.side}"


def _too_few(tests: Sequence[EquivalenceTest]) -> str:
    """The test that could not be decided, and how many people would decide it."""
    worst = max(tests, key=lambda test: abs(test.difference or 0.0))
    known = [test.needed for test in tests if test.needed is not None]
    people = "1 person is" if worst.people == 1 else f"{worst.people} people are"
    clause = (
        f"{people} not enough to tell it from a model that never saw them by {words(worst)} "
        f"(margin {percent(worst.margin)}"
    )
    needed = worst.needed if worst.needed is not None else max(known, default=None)
    return f"{clause}; about {needed} would be needed)" if needed is not None else f"{clause})"


def _within(tests: Sequence[EquivalenceTest]) -> str:
    """The margins of the tests, in words."""
    before = {test.margin for test in tests if not test.attack}
    under = {test.margin for test in tests if test.attack}
    margins = [f"{percent(max(before))} before attack"] if before else []
    margins += [f"{percent(max(under))} under attack"] if under else []
    return f"margin {' and '.join(margins)}"
