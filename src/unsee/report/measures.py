"""Scores of all models: a strip for the first metric of each split, a table for all metrics."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from markupsafe import Markup

from unsee.records.reader import Run
from unsee.records.schema import Measure, Representation
from unsee.report import charts, wording
from unsee.report.findings import SAYS, first_key, value_of

# Name in the record, name on the page, class of colour and shape; "measures" is the judged model.
MODELS = (
    ("target", "Before", "target"),
    ("measures", "After", "unlearned"),
    ("reference", "Visual-retain", "reference"),
    ("retain_only", "Retain-only", "retain-only"),
    ("visual_refit", "Visual-refit", "visual-refit"),
)


# Styles in the order of drawing.
DRAWN = ("target", "visual-refit", "retain-only", "reference", "unlearned")

LEGEND = {
    "target": "Before unlearning (target)",
    "reference": "Visual-retain reference",
    "retain_only": "Retain-only reference",
    "visual_refit": "Visual-refit reference",
}


@dataclass(frozen=True)
class Strip:
    """A row of the chart that shows all models on one measure."""

    label: str
    metric: str
    share: bool
    drawing: Markup
    before: str | None
    after: str


@dataclass(frozen=True)
class Group:
    """Measures of one kind: forgotten, kept, general or text."""

    title: str
    note: str
    strips: list[Strip] = field(default_factory=list)
    rows: list[dict[str, Any]] = field(default_factory=list)


def models(run: Run) -> list[tuple[str, str, str]]:
    """The models that were measured, in the order of the columns."""
    alone = run.summary.target is None and run.summary.kind in ("evaluate", "audit")
    return [
        (name, "This model" if name == "measures" and alone else label, style)
        for name, label, style in MODELS
        if getattr(run.summary, name)
    ]


def missing(run: Run) -> list[str]:
    """Sentences about the models that were not measured."""
    summary = run.summary
    absent = []
    if not summary.target and summary.kind not in ("evaluate", "audit"):
        absent.append(
            "The target model was not measured, so there are no scores before unlearning."
        )
    if not summary.reference:
        absent.append(
            "The visual-retain reference was not measured, so nothing tells what a model that "
            "never saw the people would answer."
        )
    if not summary.retain_only:
        absent.append("The retain-only reference was not measured.")
    return absent


def moved(run: Run) -> str:
    """A sentence about how far the visual features changed; empty if that is not known."""
    shift = run.summary.representation or Representation()
    sides = [("forget", shift.forget_shift), ("retain", shift.retain_shift)]
    changes = [f"{value:.2f} on {verb} pictures" for verb, value in sides if value is not None]
    if not changes:
        return ""
    return (
        f"The visual features that are read changed by {' and by '.join(changes)} "
        "(mean squared change, in units of their variance over all pictures). This measures how "
        "much changed, not what was forgotten."
    )


def groups(run: Run, uid: str) -> list[Group]:
    """The measures, grouped; each with a strip for its first metric and a row for every metric."""
    measured = {name: getattr(run.summary, name) or {} for name, _, _ in models(run)}
    keys = list(dict.fromkeys(key for part in measured.values() for key in part))
    order = {prefix: index for index, prefix in enumerate(wording.SPLITS)}
    keys.sort(key=lambda key: order.get(key.rpartition("/")[0], len(order)))
    tasks = run.summary.harness.tasks if run.summary.harness else {}
    made = {name: Group(title, note) for name, title, note in wording.GROUPS}
    # Text-only questions whose measure should fall are about what is to be forgotten too.
    lost = {
        key.rpartition("/")[0]
        for part in measured.values()
        for key, found in part.items()
        if found.better == "lower" and key.rpartition("/")[2] in SAYS
    }
    drawn: set[str] = set()
    for number, key in enumerate(keys):
        prefix, _, metric = key.rpartition("/")
        ability = key.split("/")[0] in tasks
        named = wording.group_of(key, run.summary.forgetting, prefix in lost)
        group = made["ability" if ability else named]
        cells = [_cell(measured[name].get(key), metric) for name, _, _ in models(run)]
        own = measured.get("measures", {}).get(key)
        known = next((part[key] for part in measured.values() if key in part), Measure())
        group.rows.append(
            {
                "label": wording.place(prefix),
                "metric": wording.metric_name(metric),
                "cells": cells,
                "better": wording.BETTER[(own or known).better],
                "n": f"{(own or known).n:,}",
                "unscored": (own or known).n_unscored,
            }
        )
        if prefix in drawn or own is None or own.value is None:
            continue
        if f"{prefix}/{metric}" != (first_key(run.summary.measures, prefix) or key):
            continue
        drawn.add(prefix)
        group.strips.append(_strip(run, key, f"{uid}-s{number}", group.title))
    return [group for group in made.values() if group.rows]


def _cell(found: Measure | None, metric: str) -> dict[str, str]:
    if found is None:
        return {"value": wording.NONE, "interval": ""}
    return {
        "value": wording.score(metric, found.value),
        "interval": wording.interval(metric, found),
    }


def _strip(run: Run, key: str, uid: str, group: str) -> Strip:
    prefix, _, metric = key.rpartition("/")
    marks = []
    for name, label, style in models(run):
        found: Measure | None = (getattr(run.summary, name) or {}).get(key)
        if found is not None and found.value is not None and 0 <= found.value <= 1:
            marks.append(charts.Mark(label, style, found.value, found.low, found.high))
    # Drawn last, and so on top: the model in question, then the reference it is held against.
    marks.sort(key=lambda mark: DRAWN.index(mark.style))
    title = f"{group}: {wording.place(prefix)}, {wording.metric_name(metric)}"
    before = value_of(run.summary.target, key)
    return Strip(
        label=wording.place(prefix),
        metric=wording.metric_name(metric),
        share=wording.is_share(metric),
        drawing=charts.strip(marks, uid=uid, title=title, percent=wording.is_share(metric)),
        before=None if before is None else wording.score(metric, before),
        after=wording.score(metric, value_of(run.summary.measures, key)),
    )
