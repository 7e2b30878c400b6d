"""What each part of the page shows, made from one run: plain data that the template lays out."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from markupsafe import Markup

from unsee.report import charts, wording
from unsee.report.judgement import (
    MODULES,
    Finding,
    Judgement,
    Level,
    changes,
    first_key,
    judge,
    percent,
    value_of,
    worst,
)
from unsee.report.people import Person, gallery
from unsee.report.reader import Measured, Relearning, Run

# Name in the record, name on the page, class of colour and shape; "measures" is the judged model.
MODELS = (
    ("target", "Before", "target"),
    ("measures", "After", "unlearned"),
    ("reference", "Visual-retain", "reference"),
    ("retain_only", "Retain-only", "retain-only"),
)
LEGEND = {
    "target": "Before unlearning (target)",
    "reference": "Visual-retain reference",
    "retain_only": "Retain-only reference",
}
CURVES = (
    ("retain_only", "Retain-only reference", "retain-only"),
    ("reference", "Visual-retain reference", "reference"),
    ("unlearned", "Unlearned model", "unlearned"),
)


@dataclass(frozen=True)
class Fact:
    """A tile under the verdict."""

    label: str
    value: str
    note: str
    level: Level
    said: str
    anchor: str


@dataclass(frozen=True)
class Strip:
    """A row of the chart that shows all models on one measure."""

    label: str
    metric: str
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


@dataclass(frozen=True)
class Attack:
    """One panel of the recovery curves."""

    share: str
    budget: str
    drawing: Markup
    area: str
    half: str
    steps: list[int]
    table: list[tuple[str, list[str]]]


@dataclass(frozen=True)
class Row:
    """A line of a list of facts."""

    label: str
    value: str
    note: str = ""
    level: Level | None = None
    code: bool = False


@dataclass(frozen=True)
class View:
    """Everything the page shows of one run."""

    uid: str
    name: str
    run: Run
    judgement: Judgement
    facts: list[Fact]
    people: list[Person]
    hidden_people: int
    models: list[tuple[str, str, str]]
    groups: list[Group]
    attacks: list[tuple[str, list[Attack]]]
    guarantees: list[Row]
    cost: list[Row]
    training: list[tuple[str, Markup]]
    parameters: list[Row]
    provenance: list[Row]
    benchmark: str
    legend: list[tuple[str, str]]
    curves: list[tuple[str, str]]
    missing: list[str]
    other_attacks: list[str]


def view(run: Run, uid: str) -> View:
    """All parts of one run's section.

    Args:
        run: The run, read.
        uid: A prefix that keeps ids apart where several runs share a page.
    """
    judgement = judge(run.summary)
    people, hidden = gallery(run)
    return View(
        uid=uid,
        name=run.summary.name,
        run=run,
        judgement=judgement,
        facts=facts(run, judgement, uid),
        people=people,
        hidden_people=hidden,
        models=models(run),
        groups=groups(run, uid),
        attacks=attacks(run, uid),
        guarantees=guarantees(run),
        cost=cost(run),
        training=training(run, uid),
        parameters=parameters(run),
        provenance=provenance(run),
        benchmark=benchmark(run),
        legend=[(LEGEND.get(name, label), style) for name, label, style in models(run)],
        curves=curves(run),
        missing=missing(run),
        other_attacks=sorted(set(run.summary.attacks or {}) - {"relearn"}),
    )


def models(run: Run) -> list[tuple[str, str, str]]:
    """The models that were measured, in the order of the columns."""
    alone = run.summary.target is None and run.summary.kind in ("evaluate", "audit")
    return [
        (name, "This model" if name == "measures" and alone else label, style)
        for name, label, style in MODELS
        if getattr(run.summary, name)
    ]


def facts(run: Run, judgement: Judgement, uid: str) -> list[Fact]:
    """The tiles: the four or five numbers that the verdict rests on."""
    summary = run.summary
    found = []
    tiles = (
        ("Forgotten people, seen", ("forget_holdout/vqa", "forget/vqa"), judgement.forgetting),
        ("Other people, seen", ("retain_holdout/vqa", "retain/vqa"), None),
        ("General questions", ("general/vqa",), None),
    )
    worst_split = min(changes(summary), key=lambda item: item[2] - item[1], default=("", 0, 0))[0]
    for label, prefixes, finding in tiles:
        key = first_key(summary.measures, *prefixes)
        after, before = value_of(summary.measures, key), value_of(summary.target, key)
        if key is None or after is None:
            found.append(Fact(label, "Not measured", "", "unknown", "", f"{uid}-measures"))
            continue
        reference = value_of(summary.reference, key)
        now = wording.score(key.split("/")[-1], after)
        value = now
        if before is not None:
            value = f"{wording.score(key.split('/')[-1], before).removesuffix(' %')} → {now}"
        if finding is not None:
            level, said = finding.level, finding.label
        elif before is None:
            level, said = "unknown", ""
        elif key.split("/")[0] == worst_split:
            level, said = judgement.utility.level, judgement.utility.label
        else:
            level, said = "good" if after >= before - 0.02 - 1e-9 else "warn", "Kept"
            said = said if level == "good" else "Worse"
        note = f"{wording.place('/'.join(key.split('/')[:2]))}"
        if finding is not None:
            note += f"; reference {percent(reference)}" if reference is not None else ""
        found.append(Fact(label, value, note, level, said, f"{uid}-measures"))
    found.append(_text_fact(run, judgement.text, f"{uid}-guarantees"))
    attack = worst(summary.relearn)
    if attack is not None and attack.area_to_reference is not None:
        value = wording.signed(attack.area_to_reference)
        note = f"above the reference, {percent(attack.share)} of samples, {_modules(attack)}"
    else:
        value, note = judgement.relearning.label, ""
    relearning = judgement.relearning
    said = relearning.label if relearning.label != value else ""
    found.append(Fact("Under relearning", value, note, relearning.level, said, f"{uid}-relearning"))
    return found


def _text_fact(run: Run, finding: Finding, anchor: str) -> Fact:
    summary = run.summary
    probes = (summary.guarantees or {}).get("text_probes")
    note = f"{probes} text-only probes, bit for bit" if probes else ""
    key = first_key(summary.measures, "forget/text", "retain/text", "general/text")
    after, before = value_of(summary.measures, key), value_of(summary.target, key)
    if key is None or after is None or before is None:
        return Fact("What it has read", finding.label, note, finding.level, "", anchor)
    value = f"{percent(before).removesuffix(' %')} → {percent(after)}"
    named = "By name; " if key.startswith(("forget", "retain")) else ""
    return Fact("What it has read", value, named + note, finding.level, finding.label, anchor)


def _modules(attack: Relearning) -> str:
    return MODULES.get(attack.modules, attack.modules)


def groups(run: Run, uid: str) -> list[Group]:
    """The measures, grouped; each with a strip for its first metric and a row for every metric."""
    measured = {name: getattr(run.summary, name) or {} for name, _, _ in models(run)}
    keys = list(dict.fromkeys(key for part in measured.values() for key in part))
    order = {prefix: index for index, prefix in enumerate(wording.SPLITS)}
    keys.sort(key=lambda key: order.get(key.rpartition("/")[0], len(order)))
    made = {name: Group(title, note) for name, title, note in wording.GROUPS}
    drawn: set[str] = set()
    for number, key in enumerate(keys):
        prefix, _, metric = key.rpartition("/")
        group = made[wording.group_of(key)]
        cells = [_cell(measured[name].get(key), metric) for name, _, _ in models(run)]
        own = measured.get("measures", {}).get(key)
        known = next((part[key] for part in measured.values() if key in part), Measured())
        group.rows.append(
            {
                "label": wording.place(prefix),
                "metric": wording.metric_name(metric),
                "cells": cells,
                "better": wording.BETTER[(own or known).better],
                "n": wording.sample_count(own or known),
            }
        )
        if prefix in drawn or own is None or own.value is None:
            continue
        if f"{prefix}/{metric}" != (first_key(run.summary.measures, prefix) or key):
            continue
        drawn.add(prefix)
        group.strips.append(_strip(run, key, f"{uid}-s{number}", group.title))
    return [group for group in made.values() if group.rows]


def missing(run: Run) -> list[str]:
    """What was not measured beside the model, in plain sentences."""
    summary = run.summary
    absent = []
    if not summary.target and summary.kind not in ("evaluate", "audit"):
        absent.append("The target model was not measured, so there is no before.")
    if not summary.reference:
        absent.append(
            "No visual-retain reference was measured: nothing says what a model that never saw "
            "the people would answer."
        )
    if not summary.retain_only:
        absent.append("No retain-only reference was measured.")
    return absent


def curves(run: Run) -> list[tuple[str, str]]:
    """The legend of the recovery curves: what is drawn in any panel."""
    drawn = [
        (label, style)
        for name, label, style in reversed(CURVES)
        if any(attack.curve(name) for attack in run.summary.relearn)
    ]
    points = [point for attack in run.summary.relearn for point in attack.curve("unlearned")]
    if any(point.retain is not None for point in points):
        drawn.append(("Other people, unlearned model", "retained"))
    return drawn


def _cell(found: Measured | None, metric: str) -> dict[str, str]:
    if found is None:
        return {"value": "–", "interval": ""}
    return {
        "value": wording.score(metric, found.value),
        "interval": wording.interval(metric, found),
    }


def _strip(run: Run, key: str, uid: str, group: str) -> Strip:
    prefix, _, metric = key.rpartition("/")
    marks = []
    for name, label, style in models(run):
        found: Measured | None = (getattr(run.summary, name) or {}).get(key)
        if found is not None and found.value is not None and 0 <= found.value <= 1:
            marks.append(charts.Mark(label, style, found.value, found.low, found.high))
    # Drawn last, and so on top: the model in question, then the reference it is held against.
    marks.sort(
        key=lambda mark: ("target", "retain-only", "reference", "unlearned").index(mark.style)
    )
    title = f"{group}: {wording.place(prefix)}, {wording.metric_name(metric)}"
    before = value_of(run.summary.target, key)
    return Strip(
        label=wording.place(prefix),
        metric=wording.metric_name(metric),
        drawing=charts.strip(marks, uid=uid, title=title),
        before=None if before is None else wording.score(metric, before),
        after=wording.score(metric, value_of(run.summary.measures, key)),
    )


def attacks(run: Run, uid: str) -> list[tuple[str, list[Attack]]]:
    """The relearning attacks by the attacker's modules, each a row of panels by share."""
    rows: dict[str, list[Relearning]] = {}
    for attack in run.summary.relearn:
        rows.setdefault(attack.modules, []).append(attack)
    return [
        (
            MODULES.get(modules, modules),
            [
                _attack(attack, f"{uid}-a{row}-{column}")
                for column, attack in enumerate(sorted(found, key=lambda a: a.share))
            ],
        )
        for row, (modules, found) in enumerate(rows.items())
    ]


def _attack(attack: Relearning, uid: str) -> Attack:
    lines = []
    table = []
    metric = attack.measure.rpartition("/")[2] or "accuracy"
    kept = [charts.Dot(p.step, p.retain) for p in attack.curve("unlearned")]
    if any(dot.y is not None for dot in kept):
        lines.append(charts.Line("Other people, unlearned model", "retained", kept, markers=False))
        table.append(("Other people, unlearned model", {dot.x: dot.y for dot in kept}))
    for name, label, style in CURVES:
        points = attack.curve(name)
        if points:
            dots = [charts.Dot(p.step, p.value, p.low, p.high) for p in points]
            lines.append(charts.Line(label, style, dots))
            table.insert(0, (label, {dot.x: dot.y for dot in dots}))
    steps = sorted({int(step) for _, values in table for step in values})
    said = [
        f"{label} from {wording.score(metric, _ends(values)[0])} to "
        f"{wording.score(metric, _ends(values)[1])}"
        for label, values in table
    ]
    share = percent(attack.share)
    half = attack.steps_to_half_recovery
    return Attack(
        share=share,
        budget=f"{attack.steps} steps"
        + ("" if attack.lr is None else f", learning rate {attack.lr:g}"),
        drawing=charts.line_chart(
            lines,
            uid=uid,
            title=f"Recovery with {share} of the forget samples, training {_modules(attack)}",
            desc="; ".join(said) + f" over {attack.steps} steps.",
            x_label="attack steps",
            share=True,
        ),
        area="no reference" if attack.area_to_reference is None else _area(attack),
        half="not reached" if half is None else f"{half:g} steps",
        steps=steps,
        table=[
            (label, [wording.score(metric, v[s]) if s in v else "–" for s in steps])
            for label, v in table
        ],
    )


def _area(attack: Relearning) -> str:
    return wording.signed(attack.area_to_reference or 0.0)


def _ends(values: Mapping[float, float | None]) -> tuple[float | None, float | None]:
    ordered = [values[step] for step in sorted(values)]
    return ordered[0], ordered[-1]


def guarantees(run: Run) -> list[Row]:
    """The exact statements about what the run changed; empty if none was recorded."""
    held = run.summary.guarantees
    if not held:
        return []
    probes = held.get("text_probes")
    rows = [
        _yes_no(
            held.get("text_identical"),
            "Text-only answers are identical",
            f"Logits equal bit for bit on {probes} probes without a picture." if probes else "",
        ),
        _yes_no(
            held.get("language_part_sha256_unchanged"),
            "Language part is untouched",
            f"SHA-256 {held['language_part_sha256']}" if held.get("language_part_sha256") else "",
        ),
    ]
    outside = held.get("changed_outside_visual")
    if outside is not None:
        note = "none" if outside == 0 else f"{outside} tensors"
        level: Level = "good" if outside == 0 else "warn"
        rows.append(Row("Changed outside the visual part", note, level=level))
    if held.get("changed_tensors") is not None:
        total = held.get("total_tensors")
        of = f" of {total:,}" if isinstance(total, int) else ""
        rows.append(Row("Tensors changed", f"{held['changed_tensors']}{of}"))
    if held.get("reason"):
        rows.append(Row("Why not checked", str(held["reason"])))
    if held.get("patch_bytes") is not None:
        rows.append(
            Row(
                "Visual patch",
                wording.size(held["patch_bytes"]),
                "The whole change, to be shipped.",
            )
        )
    return rows


def _yes_no(value: object, label: str, note: str) -> Row:
    if value is True:
        return Row(label, "yes", note, "good")
    if value is False:
        return Row(label, "no", "", "warn")
    return Row(label, "not checked", "", "unknown")


def cost(run: Run) -> list[Row]:
    """What the run cost."""
    held = dict(run.summary.cost or {})
    rows = []
    if (seconds := held.pop("seconds", None)) is not None:
        rows.append(Row("Time", wording.duration(float(seconds))))
    if (steps := held.pop("steps", None)) is not None:
        rows.append(Row("Steps", wording.plain(steps)))
    total = held.pop("total_parameters", None)
    if (trained := held.pop("trainable_parameters", None)) is not None:
        of = f"{percent(trained / total)} of {total:,}" if total else ""
        rows.append(Row("Trained parameters", f"{trained:,}", of))
    if (peak := held.pop("peak_memory_bytes", None)) is not None:
        rows.append(Row("Peak memory", wording.size(peak)))
    if (speed := held.pop("samples_per_second", None)) is not None:
        rows.append(
            Row("Speed", f"{speed:,.0f} samples/s" if speed >= 10 else f"{speed:.1f} samples/s")
        )
    return rows + [
        Row(wording.words(k), wording.plain(v)) for k, v in held.items() if v is not None
    ]


def training(run: Run, uid: str) -> list[tuple[str, Markup]]:
    """A chart of the loss and one of each named term, over the steps."""
    series: dict[str, list[charts.Dot]] = {}
    for step in run.train:
        parts = {"loss": step.loss} | (dict(step.terms) if step.terms else {})
        for name, value in parts.items():
            series.setdefault(name, []).append(charts.Dot(step.step, value))
    made = []
    for number, (name, dots) in enumerate(series.items()):
        if sum(dot.y is not None for dot in dots) < 2:
            continue
        line = charts.Line(name, "term", charts.thin(dots), markers=False)
        values = [dot.y for dot in dots if dot.y is not None]
        label = "Loss (sum)" if name == "loss" else name
        drawing = charts.line_chart(
            [line],
            uid=f"{uid}-t{number}",
            title=f"{label} over the training steps",
            desc=f"From {values[0]:.4g} to {values[-1]:.4g} over {len(values)} steps.",
            x_label="steps",
            share=False,
        )
        made.append((label, drawing))
    return made


def parameters(run: Run) -> list[Row]:
    """The method's hyperparameters."""
    method = run.summary.method
    return [Row(k, wording.plain(v)) for k, v in (method.parameters if method else {}).items()]


def provenance(run: Run) -> list[Row]:
    """Versions, device, seeds and hashes."""
    held = run.summary.provenance or {}
    rows = [Row("Created", run.summary.created)] if run.summary.created else []
    for key, value in held.items():
        code = key.endswith("sha256") or key == "commit"
        label = (
            f"{wording.words(key.removesuffix('_sha256'))} SHA-256" if code else wording.words(key)
        )
        label = {"commit": "Commit", "dirty": "Uncommitted changes", "cpu": "CPU"}.get(key, label)
        label = key if key in ("unsee", "torch", "transformers", "python") else label
        # A version is no number: "5230" must not become "5,230".
        rows.append(Row(label, str(value) if key == "seed" else wording.plain(value), code=code))
    return rows


def benchmark(run: Run) -> str:
    """The benchmark in a line, such as "pocket: people 40, forgotten 4"."""
    held = dict(run.summary.benchmark or {})
    name = held.pop("name", None)
    parts = ", ".join(f"{k.replace('_', ' ')} {wording.plain(v)}" for k, v in held.items())
    return ": ".join(str(part) for part in (name, parts) if part)


def compared(views: list[View]) -> list[dict[str, str]]:
    """The rows of the table that compares several runs."""
    rows = []
    for one in views:
        tiles = {fact.label: fact for fact in one.facts}
        held = one.run.summary.cost or {}
        rows.append(
            {
                "uid": one.uid,
                "name": one.name,
                "folder": os.path.basename(os.path.abspath(one.run.folder)),
                "method": one.run.summary.method.name if one.run.summary.method else "none",
                "level": one.judgement.level,
                "headline": one.judgement.headline,
                "forgotten": tiles["Forgotten people, seen"].value,
                "kept": tiles["Other people, seen"].value,
                "general": tiles["General questions"].value,
                "text": one.judgement.text.label,
                "relearning": tiles["Under relearning"].value,
                "time": wording.duration(held["seconds"]) if held.get("seconds") else "–",
            }
        )
    return rows
