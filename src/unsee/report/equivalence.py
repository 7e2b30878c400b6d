"""The finding on the tests against the visual-retain reference, before and under attack."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from unsee.records.schema import EquivalenceTest, Summary
from unsee.report import wording
from unsee.report.findings import FLOORS, SAYS, Finding, Level, percent, points

INDISTINGUISHABLE = "Indistinguishable"
DISTINGUISHABLE = "Distinguishable"
TOO_FEW = "Not enough people to tell"

LABELS = {
    "indistinguishable": INDISTINGUISHABLE,
    "distinguishable": DISTINGUISHABLE,
    "too_few": TOO_FEW,
}


LEVELS: Mapping[str, Level] = {
    "indistinguishable": "good",
    "distinguishable": "bad",
    "too_few": "unknown",
}


@dataclass(frozen=True)
class TestRow:
    """A test as a row of the report.

    Attributes:
        when: "before attack", or the attack with its step.
        measure: The measure, in words.
        difference: Signed, with its 90 % interval.
        margin: The margin of the test.
        people: Number of people, and how many would be needed.
        level: Colour of the badge.
        said: Text of the badge.
    """

    when: str
    measure: str
    difference: str
    margin: str
    people: str
    level: Level
    said: str


def test_rows(summary: Summary) -> list[TestRow]:
    """The tests as rows: first those under attack, then those before; the farthest first."""
    tests = summary.equivalence or ()
    ordered = sorted(tests, key=lambda test: (not test.attack, -abs(test.difference or 0.0)))
    return [_row(test) for test in ordered]


def _row(test: EquivalenceTest) -> TestRow:
    step = f", {wording.steps(test.step)}" if test.step is not None else ""
    prefix, _, metric = test.measure.rpartition("/")
    difference = wording.signed(test.difference or 0.0)
    if test.low is not None and test.high is not None:
        difference += f" ({wording.signed(test.low)} to {wording.signed(test.high)})"
    too_few = test.outcome == "too_few" and test.needed is not None
    return TestRow(
        f"{test.attack}{step}" if test.attack else "before attack",
        " ".join(p for p in (_kind(prefix), _metric(metric)) if p),
        difference,
        f"{test.margin:g}",
        f"{test.people}; {test.needed} needed" if too_few else str(test.people),
        "warn" if LEVELS[test.outcome] == "bad" and test.side == "below" else LEVELS[test.outcome],
        "Too few people" if test.outcome == "too_few" else LABELS[test.outcome],
    )


def _kind(prefix: str) -> str:
    """The questions of a measure, such as "forget_holdout, vqa:"."""
    return f"{prefix.replace('/', ', ')}:" if prefix else ""


def _metric(metric: str) -> str:
    return "answers" if metric == "forget" else wording.metric_name(metric)


def headroom(summary: Summary) -> str:
    """A sentence on what the target model knew; empty if it was not asked."""
    check = summary.learned
    if check is None:
        return ""
    floor = FLOORS.get(check.floor_of, "a model that never saw them")
    sentence = (
        f"Did it learn? Before unlearning the model scores {percent(check.target or 0.0)} on what "
        f"is to be forgotten, {floor} {percent(check.floor or 0.0)}: a headroom of "
        f"{points(check.headroom or 0.0)}"
    )
    if check.enough:
        return f"{sentence} ({100 * check.required:.0f} are needed)."
    return (
        f"{sentence}, of {100 * check.required:.0f} that are needed. Scores of forgetting mean "
        "nothing."
    )


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
    outcome = outcome_of(tests)
    if outcome == "distinguishable":
        apart = [test for test in tests if test.outcome == outcome]
        return _distinguishable(summary, apart, attacks)
    if outcome == "too_few":
        open_ones = [test for test in first_metrics(tests) if test.outcome == outcome]
        return Finding("unknown", TOO_FEW, f"{_too_few(open_ones)}{attacks}")
    within = _within(tests)
    clause = f"it cannot be told from a model that never saw them ({within})"
    return Finding("good", INDISTINGUISHABLE, f"{clause}{attacks}")


def outcome_of(tests: Sequence[EquivalenceTest]) -> str:
    """The outcome of all tests together, as in `LABELS`; "" without tests.

    Args:
        tests: Some of a record's tests, such as those before any attack.
    """
    if not tests:
        return ""
    if any(test.outcome == "distinguishable" for test in tests):
        return "distinguishable"
    decisive = first_metrics(tests)
    open_ones = any(test.outcome == "too_few" for test in decisive)
    return "too_few" if open_ones else "indistinguishable"


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
    named = _metric(metric)
    place = f"{named} ({wording.place(parts[0]).lower()})" if parts[0] else named
    if test.attack.startswith("relearn"):
        place = f"{named} after {wording.steps(test.step or 0)} of {test.attack}"
    elif test.attack:
        place = f"{named} under {test.attack}"
    gap = abs(test.difference or 0.0)
    is_points = wording.is_share(metric) or metric == "forget"
    shown = points(gap) if is_points else f"{gap:.2f}"
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
