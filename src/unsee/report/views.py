"""The content of the report's section on a run: plain data for the template."""

from __future__ import annotations

from dataclasses import dataclass

from markupsafe import Markup

from unsee.records.reader import Run
from unsee.records.recognition import ForgottenPerson, Recognition
from unsee.records.schema import RelearningOutcome
from unsee.report import attack_table, wording
from unsee.report.curves import Attack, attacks, curves, scored, training
from unsee.report.details import Row, benchmark, cost, guarantees, parameters, provenance
from unsee.report.equivalence import TestRow, headroom, test_rows
from unsee.report.findings import (
    KEPT,
    MODULES,
    Finding,
    Level,
    first_key,
    forgotten_prefixes,
    graded,
    percent,
    text_key,
    value_of,
    worst,
)
from unsee.report.measures import LEGEND, Group, groups, missing, models, moved
from unsee.report.people import Person, gallery
from unsee.report.recognition import (
    asked_openly,
    by_features,
    compared_with,
    photograph_key,
    verification,
    zero_shot,
)
from unsee.report.verdict import Verdict, judge

FORGOTTEN, OTHERS, GENERAL = "Forgotten people", "Other people", "General questions"
MATCHED, VERIFIED = "Matched by features", "Verified by features"
READ, ATTACKED = "Text only", "Relearning attack"


@dataclass(frozen=True)
class Fact:
    """A tile under the verdict.

    Attributes:
        label: What was measured.
        value: Scores before and after.
        note: Small print below the value.
        level: Colour of the badge.
        said: Text of the badge; empty for none.
        anchor: Id of the section with the details.
    """

    label: str
    value: str
    note: str
    level: Level
    said: str
    anchor: str


@dataclass(frozen=True)
class View:
    """The content of one run's section."""

    uid: str
    name: str
    run: Run
    judgement: Verdict
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
    defaults: list[Row]
    provenance: list[Row]
    benchmark: str
    legend: list[tuple[str, str]]
    curves: list[tuple[str, str]]
    scored: str
    shares: str
    missing: list[str]
    moved: str
    attacked: list[attack_table.Row]
    attacked_models: list[tuple[str, str, str]]
    tests: list[TestRow]
    learned: str
    given: list[ForgottenPerson]
    compared_with: str


def view(run: Run, uid: str) -> View:
    """Returns the content of one run's section.

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
        parameters=parameters(run)[0],
        defaults=parameters(run)[1],
        provenance=provenance(run),
        benchmark=benchmark(run),
        legend=[(LEGEND.get(name, label), style) for name, label, style in models(run)],
        curves=curves(run),
        scored=scored(run),
        shares=_scale(groups(run, uid)),
        missing=missing(run),
        moved=moved(run),
        attacked=attack_table.table(run),
        attacked_models=attack_table.columns(run),
        tests=test_rows(run.summary),
        learned=headroom(run.summary),
        given=list(run.summary.recognition.people) if run.summary.recognition else [],
        compared_with=compared_with(run.summary),
    )


def _scale(groups: list[Group]) -> str:
    """The unit of the strips' common scale: "percent", "number", or "both"."""
    kinds = {strip.share for group in groups for strip in group.strips}
    return "both" if len(kinds) > 1 else "number" if kinds == {False} else "percent"


def facts(run: Run, judgement: Verdict, uid: str) -> list[Fact]:
    """Returns the tiles: the five numbers that the verdict depends on.

    Args:
        run: The run.
        judgement: Its verdict.
        uid: A prefix of the ids of the run's sections.
    """
    anchor = f"{uid}-measures"
    if run.summary.recognition is not None:
        return _photograph_facts(run, judgement, uid)
    return [
        _seen_fact(run, FORGOTTEN, forgotten_prefixes(run.summary), anchor, judgement),
        _seen_fact(run, OTHERS, ("retain_holdout/vqa", "retain/vqa"), anchor),
        _seen_fact(run, GENERAL, ("general/vqa",), anchor),
        _text_fact(run, judgement.text, f"{uid}-guarantees"),
        _attack_fact(run, judgement.relearning, f"{uid}-relearning"),
    ]


def _photograph_facts(run: Run, judgement: Verdict, uid: str) -> list[Fact]:
    """The tiles where only photographs were given; a sixth one where attacks were run."""
    summary, anchor = run.summary, f"{uid}-measures"
    record = summary.recognition or Recognition()
    asked, matched, verified = asked_openly(summary), by_features(summary), verification(summary)
    chance = f"; chance {percent(record.chance)}" if record.chance else ""
    tiles = [
        (FORGOTTEN, "vqa", "said_before", asked, "says what it said before"),
        (MATCHED, "features", "rank_1", matched, f"among {record.identities} people{chance}"),
        (VERIFIED, "features", "verification_rate", verified, "same person, at 1 % false accepts"),
    ]
    facts = []
    if record.encoder:
        named = (FORGOTTEN, "features", "zero_shot", zero_shot(summary), "named right, zero-shot")
        tiles[:1] = [named] if record.names else []
    for label, kind, metric, finding, note in tiles:
        key = photograph_key(summary, kind, metric)
        before, after = value_of(summary.target, key), value_of(summary.measures, key)
        if after is None:
            facts.append(Fact(label, finding.label, finding.clause, finding.level, "", anchor))
        else:
            value = wording.way(metric, before, after)
            facts.append(Fact(label, value, note, finding.level, finding.label, anchor))
    kept = _seen_fact(
        run, OTHERS, tuple(f"{s}/{k}" for k in ("vqa", "features") for s in KEPT), anchor
    )
    same = value_of(summary.measures, "others/vqa/same_answer")
    if kept.value == "Not measured":
        note = "" if same is None else f"of others it says the same as before in {percent(same)}"
        kept = Fact(OTHERS, "None given", note, "unknown", "Not measured", anchor)
    facts += [kept, _text_fact(run, judgement.text, f"{uid}-guarantees")]
    if summary.attacks is not None:
        facts.append(_attack_fact(run, judgement.relearning, f"{uid}-relearning"))
    return facts


def _seen_fact(
    run: Run, label: str, prefixes: tuple[str, ...], anchor: str, judgement: Verdict | None = None
) -> Fact:
    """The tile of a score on pictures; `judgement` is given for the forgotten people."""
    summary = run.summary
    key = first_key(summary.measures, *prefixes)
    after, before = value_of(summary.measures, key), value_of(summary.target, key)
    if key is None or after is None:
        return Fact(label, "Not measured", "", "unknown", "", anchor)
    prefix, _, metric = key.rpartition("/")
    note = wording.place(prefix)
    level: Level = "unknown"
    said = ""
    if before is not None:
        level, said = graded(after - before)
    if judgement is not None:
        level, said = judgement.forgetting.level, judgement.forgetting.label
        reference = value_of(summary.reference, key)
        note += "" if reference is None else f"; reference {wording.score(metric, reference)}"
    return Fact(label, wording.way(metric, before, after), note, level, said, anchor)


def _text_fact(run: Run, finding: Finding, anchor: str) -> Fact:
    summary = run.summary
    probes = summary.guarantees.text_probes if summary.guarantees else None
    note = f"{probes} text-only probes, compared bit for bit" if probes else ""
    key = text_key(summary)
    after, before = value_of(summary.measures, key), value_of(summary.target, key)
    if key is None or after is None or before is None:
        return Fact(READ, finding.label, note, finding.level, "", anchor)
    value = wording.way(key.rpartition("/")[2], before, after)
    note = "; ".join(part for part in (wording.place(key.rpartition("/")[0]), note) if part)
    return Fact(READ, value, note, finding.level, finding.label, anchor)


def _attack_fact(run: Run, finding: Finding, anchor: str) -> Fact:
    attack = worst(run.summary.relearn)
    if attack is None or attack.area_to_reference is None:
        return Fact(ATTACKED, finding.label, "", finding.level, "", anchor)
    value = wording.signed(attack.area_to_reference)
    modules = MODULES.get(attack.modules, attack.modules)
    worst_gap = attack.worst_gap
    beside = "" if worst_gap is None else f"; at worst {wording.signed(worst_gap)}"
    note = f"above the reference, {percent(attack.share)} {_of(attack)}, {modules}"
    note += beside
    return Fact(ATTACKED, value, note, finding.level, finding.label, anchor)


def _of(attack: RelearningOutcome) -> str:
    """Words for what the share is a share of."""
    short = {"forget": "of samples", "retain": "of retain samples"}
    return short.get(attack.data, attack.given)


def compared(views: list[View]) -> list[dict[str, str]]:
    """The rows of the table that compares several runs."""
    rows = []
    for one in views:
        tiles = {fact.label: fact for fact in one.facts}
        seconds = one.run.summary.cost.seconds if one.run.summary.cost else None
        rows.append(
            {
                "uid": one.uid,
                "name": one.name,
                "folder": one.run.folder.resolve().name,
                "method": one.run.summary.method.name if one.run.summary.method else "none",
                "level": one.judgement.level,
                "headline": one.judgement.headline,
                "forgotten": tiles[FORGOTTEN].value,
                "kept": tiles[OTHERS].value,
                "general": tiles[GENERAL].value if GENERAL in tiles else wording.NONE,
                "text": one.judgement.text.label,
                "relearning": tiles[ATTACKED].value if ATTACKED in tiles else "Not attacked",
                "time": wording.duration(seconds) if seconds else wording.NONE,
            }
        )
    return rows
