"""The table of attacks other than relearning: answers of every model before and after."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from unsee.records.reader import Run
from unsee.records.schema import (
    AnswerComparison,
    AttackAnswers,
    AttackedModel,
    AttackOutcome,
    Attacks,
)
from unsee.report import wording
from unsee.report.findings import percent

# Name in the record, label and style of the columns; the last is shown where it was attacked.
COLUMNS = (
    ("target", "Before", "target"),
    ("unlearned", "After", "unlearned"),
    ("reference", "Visual-retain", "reference"),
    ("retain_only", "Retain-only", "retain-only"),
    ("visual_refit", "Visual-refit", "visual-refit"),
)


@dataclass(frozen=True)
class Row:
    """One attack, or one number that an attack computes from the models.

    Attributes:
        attack: Name of the attack or chain.
        what: Its fields, or the name of the number.
        cells: Forgotten people, by model: "before → after" or the number.
        retain: Other people, for the unlearned model: "before → after" or the number.
        n: Number of questions or samples about the forgotten people.
    """

    attack: str
    what: str
    cells: list[str]
    retain: str
    n: str


def columns(run: Run) -> list[tuple[str, str, str]]:
    """The models of the table: name in the record, label and style."""
    others = (run.summary.attacks or Attacks()).others.values()
    refitted = any("visual_refit" in outcome.models for some in others for outcome in some)
    return list(COLUMNS if refitted else COLUMNS[:-1])


def table(run: Run) -> list[Row]:
    """The rows of all attacks but relearning alone, in the record's order."""
    rows = []
    models = [name for name, _, _ in columns(run)]
    for name, outcomes in (run.summary.attacks or Attacks()).others.items():
        label = name.replace("_", " ")
        for outcome in outcomes:
            unlearned = outcome.models.get("unlearned", AttackedModel())
            if unlearned.answers is not None:
                rows.append(_answer_row(label, outcome, models))
            rows += [
                _reading_row(label, outcome, index, models)
                for index in range(len(unlearned.readings or ()))
            ]
    return rows


def _answer_row(label: str, outcome: AttackOutcome, models: Sequence[str]) -> Row:
    """How often the true answer is given, before and after the attack."""
    answers = {name: model.answers or AttackAnswers() for name, model in outcome.models.items()}
    unlearned = answers["unlearned"]
    questions = unlearned.forget.n if unlearned.forget else None
    return Row(
        label,
        _fields(outcome),
        [_before_after(answers.get(name, AttackAnswers()).forget) for name in models],
        _before_after(unlearned.retain),
        wording.NONE if questions is None else str(questions),
    )


def _reading_row(label: str, outcome: AttackOutcome, index: int, models: Sequence[str]) -> Row:
    """One number that the attack computes from every model."""
    cells = []
    for name in models:
        readings = outcome.models.get(name, AttackedModel()).readings or ()
        cells.append(_score(readings[index].forget if index < len(readings) else None))
    reading = (outcome.models["unlearned"].readings or ())[index]
    return Row(
        label,
        f"{reading.name}, baseline {_score(reading.baseline)}",
        cells,
        _score(reading.retain),
        wording.NONE if reading.n is None else str(reading.n),
    )


def _fields(outcome: AttackOutcome) -> str:
    """The fields in which entries of one attack usually differ."""
    shown = ("bits", "scheme", "epsilon", "share", "modules", "words", "layout", "shots", "border")
    return ", ".join(
        f"{key} {value}"
        for fields in outcome.parameters.values()
        for key, value in fields.items()
        if key in shown
    )


def _before_after(comparison: AnswerComparison | None) -> str:
    if comparison is None or comparison.before is None or comparison.after is None:
        return wording.NONE
    return f"{percent(comparison.before).removesuffix(' %')} → {percent(comparison.after)}"


def _score(value: float | None) -> str:
    return wording.NONE if value is None else f"{value:.2f}"
