"""Charts over steps: recovery curves under attack, and the terms of the training loss."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from markupsafe import Markup

from unsee.records.reader import Run
from unsee.records.schema import RelearningOutcome
from unsee.report import charts, wording
from unsee.report.findings import MODULES, percent, value_of

CURVES = (
    ("visual_refit", "Visual-refit reference", "visual-refit"),
    ("retain_only", "Retain-only reference", "retain-only"),
    ("reference", "Visual-retain reference", "reference"),
    ("unlearned", "Unlearned model", "unlearned"),
)


@dataclass(frozen=True)
class Attack:
    """One panel of the recovery curves."""

    share: str
    given: str
    budget: str
    drawing: Markup
    area: str
    half: str
    steps: list[int]
    table: list[tuple[str, list[str]]]


def curves(run: Run) -> list[tuple[str, str]]:
    """The legend of the recovery curves: all lines that some panel has."""
    drawn = [
        (label, style)
        for name, label, style in reversed(CURVES)
        if any(attack.curve(name) for attack in run.summary.relearn)
    ]
    points = [point for attack in run.summary.relearn for point in attack.curve("unlearned")]
    if any(point.retain is not None for point in points):
        drawn.append(("Other people, unlearned model", "retained"))
    return drawn


def attacks(run: Run, uid: str) -> list[tuple[str, list[Attack]]]:
    """The relearning attacks by the modules that are trained, one panel per share and data."""
    rows: dict[str, list[RelearningOutcome]] = {}
    for attack in run.summary.relearn:
        rows.setdefault(attack.modules, []).append(attack)
    return [
        (
            MODULES.get(modules, modules),
            [
                _attack(
                    attack, f"{uid}-a{row}-{column}", value_of(run.summary.target, attack.measure)
                )
                for column, attack in enumerate(
                    sorted(found, key=lambda a: (a.data != "forget", a.worst_case, a.share))
                )
            ],
        )
        for row, (modules, found) in enumerate(rows.items())
    ]


def metric_of(key: str | None) -> str:
    """The metric of a "split/modality/metric" key; accuracy for older records without a key."""
    return (key or "").rpartition("/")[2] or "accuracy"


def scored(run: Run) -> str:
    """A sentence about the metric of the recovery curves."""
    told = []
    for attack in run.summary.relearn:
        mine, other = (metric_of(key) for key in (attack.measure, attack.retain_measure))
        text = f"The curves show {wording.metric_name(mine)}"
        asked = any(point.retain is not None for point in attack.curve("unlearned"))
        if asked and other != mine:
            text += f"; that of the other people {wording.metric_name(other)}"
        told.append(f"{text}.")
    return " ".join(dict.fromkeys(told))


def _attack(attack: RelearningOutcome, uid: str, before: float | None) -> Attack:
    lines = []
    table = []
    metric, other = (metric_of(key) for key in (attack.measure, attack.retain_measure))
    kept = [charts.Dot(p.step, p.retain) for p in attack.curve("unlearned")]
    if any(dot.y is not None for dot in kept):
        lines.append(charts.Line("Other people, unlearned model", "retained", kept, markers=False))
        table.append(("Other people, unlearned model", other, {dot.x: dot.y for dot in kept}))
    for name, label, style in CURVES:
        points = attack.curve(name)
        if points:
            dots = [charts.Dot(p.step, p.value, p.low, p.high) for p in points]
            lines.append(charts.Line(label, style, dots))
            table.insert(0, (label, metric, {dot.x: dot.y for dot in dots}))
    steps = sorted({int(step) for *_, values in table for step in values})
    said = [
        f"{label} from {wording.score(name, _ends(values)[0])} to "
        f"{wording.score(name, _ends(values)[1])}"
        for label, name, values in table
    ]
    share = percent(attack.share)
    modules = MODULES.get(attack.modules, attack.modules)
    half = attack.steps_to_half_recovery
    return Attack(
        share=share,
        given=attack.given,
        budget=_budget(attack),
        drawing=charts.line_chart(
            lines,
            uid=uid,
            title=f"Recovery with {share} {attack.given}, training {modules}",
            desc="; ".join(said) + f" over {attack.steps} steps.",
            x_label="attack steps",
            share=True,
            percent=wording.is_share(metric),
        ),
        area=_area(attack),
        half=_half(half, before),
        steps=steps,
        table=[
            (label, [wording.score(name, v[s]) if s in v else wording.NONE for s in steps])
            for label, name, v in table
        ],
    )


def _budget(attack: RelearningOutcome) -> str:
    """Words for steps and learning rate; of a sweep, for where the worst point is."""
    if attack.worst_case == "off":
        return f"{attack.steps} steps" + (
            "" if attack.lr is None else f", learning rate {attack.lr:g}"
        )
    worst = attack.worst.get("unlearned")
    at = ""
    if worst is not None and worst.lr is not None:
        at = f": after {worst.step} steps at {worst.lr:g}"
    return f"worst of all learning rates, up to {attack.steps} steps{at}"


def _area(attack: RelearningOutcome) -> str:
    """The signed area, the unsigned one and the worst gap to the reference."""
    area, unsigned, gap = (
        attack.area_to_reference,
        attack.unsigned_area_to_reference,
        attack.worst_gap,
    )
    if area is None:
        return "no reference"
    further = [f"unsigned {unsigned:.2f}"] if unsigned is not None else []
    further += [f"at worst {wording.signed(gap)}"] if gap is not None else []
    return wording.signed(area) + (f" ({', '.join(further)})" if further else "")


def _half(steps: float | None, before: float | None) -> str:
    """Words for the step at which half of the target model's score is reached."""
    if steps is not None:
        return wording.steps(steps)
    return "nothing known before" if before == 0 else "not reached"


def _ends(values: Mapping[float, float | None]) -> tuple[float | None, float | None]:
    ordered = [values[step] for step in sorted(values)]
    return ordered[0], ordered[-1]


def training(run: Run, uid: str) -> list[tuple[str, Markup]]:
    """One chart of the loss and one of each of its terms."""
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
