"""Tests against the visual-retain reference, before attack and at the worst point of every attack.

Each measure is tested two-sided (see `unsee.evaluation.equivalence`). Of a recovery curve, the
checkpoint with the largest unsigned difference is tested; attacks that read numbers off a model are
tested by the intervals of those numbers.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from unsee.attacks import ATTACKS, Chain, label
from unsee.attacks.relearn import Relearn
from unsee.evaluation.equivalence import (
    Equivalence,
    PersonScores,
    compare_intervals,
    compare_people,
    measured_people,
)
from unsee.metrics.names import NAMING
from unsee.recipes.components import chain_text
from unsee.recipes.job import Job
from unsee.records.schema import (
    AnswerComparison,
    AttackedModel,
    Attacks,
    CurvePoint,
    EquivalenceTest,
    Reading,
    RelearningOutcome,
    SampleResult,
)


@dataclass(frozen=True)
class Side:
    """One of the two models of a test: its scores by person, or else a number with an interval.

    Attributes:
        people: Mean scores of people; empty if they are not known.
        interval: Value with lower and upper end of its 95 % interval; the ends may be None.
    """

    people: PersonScores
    interval: tuple[float, float | None, float | None] | None = None


def equivalence_tests(
    job: Job,
    rows: Mapping[str, Sequence[SampleResult]],
    attacks: Attacks | None,
    photographs: Mapping[str, Mapping[str, PersonScores]] | None = None,
) -> tuple[EquivalenceTest, ...] | None:
    """Returns all tests of a run; None without the visual-retain reference.

    Args:
        job: The job, which holds the margins.
        rows: The rows of each model, by "unlearned" and "reference".
        attacks: The outcomes of the job's attacks.
        photographs: Mean scores of people by model and measure, where photographs alone were given.
    """
    if "reference" not in job.references:
        return None
    if photographs is not None:
        tests = compare_measures(
            photographs["unlearned"], photographs["reference"], job.equivalence_margin
        )
    else:
        tests = before_attack(job, rows) if {"unlearned", "reference"} <= rows.keys() else []
    if attacks is not None:
        people = len({sample.concept or sample.id for sample in job.attacker.forget})
        tests += under_attack(job.attacks, attacks, job.attack_margin, people)
    return tuple(tests)


def not_attacked(chains: Iterable[Chain]) -> tuple[str, ...]:
    """Returns the registered attacks that are in none of the chains."""
    run = {attack.name for chain in chains for attack in chain}
    return tuple(name for name in ATTACKS.names() if name not in run)


def before_attack(job: Job, rows: Mapping[str, Sequence[SampleResult]]) -> list[EquivalenceTest]:
    """Returns a test of every measure that is a mean of the scores of single answers.

    Args:
        job: The job.
        rows: The rows of "unlearned" and "reference".
    """
    own, reference = (
        measured_people(
            # The samples of lm-evaluation-harness are about nobody.
            [row.model_dump() for row in rows[model] if row.split in job.splits],
            dict.fromkeys([*job.metrics, *NAMING]),
            job.forgetting,
        )
        for model in ("unlearned", "reference")
    )
    return compare_measures(own, reference, job.equivalence_margin)


def compare_measures(
    own: Mapping[str, PersonScores], reference: Mapping[str, PersonScores], margin: float
) -> list[EquivalenceTest]:
    """Returns a test of every measure that both models have.

    Args:
        own: The unlearned model's scores of people, by measure.
        reference: The reference model's.
        margin: Difference below which two scores count as equal.
    """
    tests = []
    for key, scores in own.items():
        result = compare_people(scores, reference.get(key, PersonScores()), margin)
        if result is not None:
            tests.append(_recorded(result, measure=key))
    return tests


def under_attack(
    chains: Sequence[Chain], attacks: Attacks, margin: float, people: int
) -> list[EquivalenceTest]:
    """Returns a test for every attack, and for every number that an attack reads.

    Args:
        chains: The attacks, in the order in which they were run.
        attacks: Their outcomes.
        margin: Difference below which two scores count as equal.
        people: Number of forgotten people, for attacks that read numbers about all of them.
    """
    budgets: list[Chain] = [c for c in chains if len(c) == 1 and isinstance(c[0], Relearn)]
    tests = []
    for outcome, chain in zip(attacks.relearn, budgets, strict=False):
        test = _worst_point(outcome, chain_text(chain, complete=False), margin, people)
        tests += [test] if test is not None else []
    others: dict[str, list[Chain]] = {}
    for chain in chains:
        if chain not in budgets:
            others.setdefault(label(chain), []).append(chain)
    for name, outcomes in attacks.others.items():
        labels = [chain_text(chain, complete=False) for chain in others.get(name, ())]
        for number, one in enumerate(outcomes):
            typed = labels[number] if number < len(labels) else name
            models = (one.models.get("unlearned"), one.models.get("reference"))
            if models[0] is not None and models[1] is not None:
                tests += _of_outcome(typed, models[0], models[1], margin, people)
    return tests


def _worst_point(
    outcome: RelearningOutcome, attack: str, margin: float, people: int
) -> EquivalenceTest | None:
    """The test at the checkpoint of the largest unsigned difference; None without a reference."""
    reference = {point.step: point for point in outcome.curve("reference")}
    worst: tuple[int, Equivalence] | None = None
    for point in outcome.curve("unlearned"):
        if point.step in reference:
            result = _test(_side(point), _side(reference[point.step]), people, margin)
            if result is not None and (
                worst is None or abs(result.difference) > abs(worst[1].difference)
            ):
                worst = point.step, result
    if worst is None:
        return None
    return _recorded(worst[1], attack=attack, step=worst[0], measure=outcome.measure)


def _side(scored: CurvePoint | AnswerComparison) -> Side:
    value = scored.value if isinstance(scored, CurvePoint) else scored.after
    interval = (value, scored.low, scored.high) if value is not None else None
    by_person = {person: s for person, s in scored.by_person.items() if s is not None}
    return Side(PersonScores(by_person, scored.resolution or 0.0), interval)


def _of_outcome(
    attack: str, unlearned: AttackedModel, reference: AttackedModel, margin: float, people: int
) -> list[EquivalenceTest]:
    """The tests of an attack that asks questions or reads numbers."""
    tests = []
    own, other = (m.answers.forget if m.answers else None for m in (unlearned, reference))
    if own is not None and other is not None:
        result = _test(_side(own), _side(other), people, margin)
        if result is not None:
            tests.append(_recorded(result, attack=attack, measure="forget"))
    readings = {reading.name: reading for reading in reference.readings or ()}
    for reading in unlearned.readings or ():
        if reading.name in readings:
            sides = [_reading_side(r) for r in (reading, readings[reading.name])]
            result = _test(sides[0], sides[1], people, margin)
            if result is not None:
                tests.append(_recorded(result, attack=attack, measure=reading.name))
    return tests


def _reading_side(reading: Reading) -> Side:
    value = reading.forget
    interval = (value, reading.low, reading.high) if value is not None else None
    return Side(PersonScores(), interval)


def _test(own: Side, reference: Side, count: int, margin: float) -> Equivalence | None:
    """The test by people where they are known, else by intervals; None if one is unscored."""
    result = compare_people(own.people, reference.people, margin)
    if result is None and own.interval is not None and reference.interval is not None:
        result = compare_intervals(own.interval, reference.interval, count, margin)
    return result


def _recorded(
    result: Equivalence, measure: str, attack: str = "", step: int | None = None
) -> EquivalenceTest:
    return EquivalenceTest(
        attack=attack,
        step=step,
        measure=measure,
        outcome=result.outcome,
        side="above" if result.difference >= 0 else "below",
        difference=result.difference,
        low=result.low,
        high=result.high,
        margin=result.margin,
        p=result.p,
        people=result.people,
        needed=result.needed,
        test=result.test,
    )
