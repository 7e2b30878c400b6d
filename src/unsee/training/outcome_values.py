"""The outcome of a run as trackers take it: attacks, tests of equivalence and the verdict."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from unsee.records.schema import (
    AttackedModel,
    AttackOutcome,
    Attacks,
    EquivalenceTest,
    RelearningOutcome,
    Summary,
)

# The model that is judged; the names of the others stand behind "attack_".
JUDGED = "unlearned"

# What makes two relearning attacks of a run different.
BUDGET = ("share", "data", "modules", "worst_case", "steps", "lr", "rank", "batch_size", "seed")

_ODD = re.compile(r"[^-/\w.]+")


def outcome_values(summary: Summary) -> dict[str, float | str]:
    """Returns numbers and texts of a record by name, without the measures before any attack.

    - `attack/NAME/forget` and `attack/NAME/retain`: score under the attack (0..1); of a relearning
      attack the highest that was reached. `attack_reference/...` and so on are those of the others.
    - `attack/NAME/READING`: what an attack reads off the model, such as an AUC.
    - `equivalence/[ATTACK/]MEASURE`: mean difference to the reference over people (-1..1);
      `equivalence/indistinguishable` and so on: the number of tests with that outcome.
    - `verdict`: the sentence.

    NAME is followed by the fields in which several budgets of one attack differ. Characters that
    TensorBoard does not take are replaced by "_".

    Args:
        summary: The record.
    """
    attacks = summary.attacks or Attacks()
    values: dict[str, float | str | None] = {}
    for outcome, name in _named([_budget(o) for o in attacks.relearn], "relearn", attacks.relearn):
        values |= _relearning(name, outcome)
    for label, outcomes in attacks.others.items():
        fields = [_fields(outcome) for outcome in outcomes]
        for outcome, name in _named(fields, label, outcomes):
            for model, attacked in outcome.models.items():
                values |= _attacked(f"{_prefix(model)}/{name}", attacked)
    values |= _tests(summary.equivalence or ())
    values["verdict"] = summary.verdict or None
    return {_ODD.sub("_", name): value for name, value in values.items() if value is not None}


def _prefix(model: str) -> str:
    return "attack" if model == JUDGED else f"attack_{model}"


def _budget(outcome: RelearningOutcome) -> dict[str, Any]:
    return {name: getattr(outcome, name) for name in BUDGET}


def _fields(outcome: AttackOutcome) -> dict[str, Any]:
    return {name: value for fields in outcome.parameters.values() for name, value in fields.items()}


def _named(
    fields: Sequence[Mapping[str, Any]], name: str, outcomes: Sequence[Any]
) -> Iterator[tuple[Any, str]]:
    """Yields each outcome with a name of its own, such as "relearn-share-0.25"."""
    different = (
        [key for key in fields[0] if len({str(each.get(key)) for each in fields}) > 1]
        if fields
        else []
    )
    taken: Counter[str] = Counter()
    for each, outcome in zip(fields, outcomes, strict=True):
        full = "-".join([name, *(f"{key}-{each.get(key)}" for key in different)])
        taken[full] += 1
        yield outcome, full if taken[full] == 1 else f"{full}-{taken[full]}"


def _relearning(name: str, outcome: RelearningOutcome) -> dict[str, float | None]:
    values: dict[str, float | None] = {}
    for model in outcome.curves:
        curve = outcome.curve(model)
        scores = [point.value for point in curve if point.value is not None]
        retain = [point.retain for point in curve if point.retain is not None]
        values[f"{_prefix(model)}/{name}/forget"] = max(scores, default=None)
        values[f"{_prefix(model)}/{name}/retain"] = retain[-1] if retain else None
    for key in ("area_to_reference", "worst_gap", "steps_to_half_recovery"):
        values[f"{_prefix(JUDGED)}/{name}/{key}"] = getattr(outcome, key)
    return values


def _attacked(name: str, attacked: AttackedModel) -> dict[str, float | None]:
    values: dict[str, float | None] = {}
    if attacked.answers is not None:
        for side in ("forget", "retain"):
            comparison = getattr(attacked.answers, side)
            values[f"{name}/{side}"] = comparison.after if comparison is not None else None
    for reading in attacked.readings or ():
        values[f"{name}/{reading.name}"] = reading.forget
    return values


def _tests(tests: Sequence[EquivalenceTest]) -> dict[str, float | None]:
    values: dict[str, float | None] = {}
    for test in tests:
        parts = [part for part in ("equivalence", test.attack, test.measure) if part]
        values["/".join(parts)] = test.difference
    counts = Counter(test.outcome for test in tests)
    return values | {f"equivalence/{outcome}": float(n) for outcome, n in counts.items()}
