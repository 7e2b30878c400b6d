"""The finding where only photographs were given: asked openly, and compared by features.

Nobody knows a true answer there, so nothing is called forgotten. The finding says what was
measured: how often the model still says of a person what it said before, and how often the features
still match a photograph to its person.
"""

from __future__ import annotations

from unsee.records.recognition import Recognition
from unsee.records.schema import Summary
from unsee.report.findings import (
    NOT_LEARNED,
    OTHERS_SAY,
    TOLERANCE,
    Finding,
    Level,
    broken,
    faulty_prefix,
    people,
    percent,
    renamed,
    too_little,
    utility,
    value_of,
)

GONE, PARTLY, STILL = "No longer recognised", "Partly recognised", "Still recognised"
UNNAMED = "No longer named, still matched"
LESS, MATCHED = "Matched less", "Still matched"

# Rank-1 retrieval above chance from which features can be said to recognise a person, 0..1.
MIN_RETRIEVAL = 0.2


def recognition(summary: Summary) -> Finding:
    """Whether the people to be forgotten are still recognised, as far as it was measured.

    Args:
        summary: The record of a run that was given photographs alone.
    """
    faulty = faulty_prefix(summary)
    if faulty:
        return Finding("bad", "Broken", broken(summary, faulty))
    asked, matched = asked_openly(summary), by_features(summary)
    level, label = _together(asked, matched)
    if (summary.recognition or Recognition()).encoder:
        level, label, asked = matched.level, matched.label, zero_shot(summary)
    if level == "good" and (_tested_on_training(summary) or utility(summary).level == "unknown"):
        level = "warn"
    clauses = "; ".join(clause for clause in (asked.clause, matched.clause) if clause)
    return Finding(level, label, f"{clauses}{_doubts(summary)}")


def _together(asked: Finding, matched: Finding) -> tuple[Level, str]:
    """Level and label of both sides together; answers count before features."""
    if asked.level == "bad":
        return "bad", asked.label if asked.label == "Renamed" else STILL
    if asked.level == "warn":
        return "warn", PARTLY
    if asked.level == "good":
        return ("warn", UNNAMED) if matched.level == "bad" else ("good", GONE)
    if matched.level == "unknown":
        return "unknown", asked.label
    return ("bad", MATCHED) if matched.level == "bad" else ("warn", LESS)


def asked_openly(summary: Summary) -> Finding:
    """Whether the model still says of the people what it said before."""
    record = summary.recognition or Recognition()
    key = photograph_key(summary, "vqa", "said_before")
    before, after = value_of(summary.target, key), value_of(summary.measures, key)
    if record.not_asked or before is None or after is None:
        reason = (record.not_asked or "no answer has a score").rstrip(".")
        return Finding("unknown", "Not asked", f"it was asked no question ({reason})")
    others = value_of(summary.measures, OTHERS_SAY)
    reference = _of_reference(summary, key)
    notes = [f"was {percent(before)}"]
    notes += [] if others is None else [f"of other people: {percent(others)}"]
    notes += [] if reference is None else [f"a model that never saw them: {percent(reference)}"]
    clause = (
        f"asked openly about {_photographs(summary)}, it says what it said before of them in "
        f"{percent(after)} of its answers ({', '.join(notes)})"
    )
    if summary.learned is not None and not summary.learned.enough:
        label = NOT_LEARNED
        return Finding("unknown", label, f"{clause}, but {too_little(summary.learned)}")
    usual = reference if reference is not None else others or 0.0
    other = renamed(summary, key.rpartition("/")[0])
    level, label = _fallen(before, after, usual, ("Not named", "Named less", "Still named"))
    if other and level == "good":
        return Finding("bad", "Renamed", f"{clause}, but it {other}")
    return Finding(level, label, clause)


def by_features(summary: Summary) -> Finding:
    """Whether the features that are read still match photographs to their person."""
    record = summary.recognition or Recognition()
    key = photograph_key(summary, "features", "rank_1")
    before, after = value_of(summary.target, key), value_of(summary.measures, key)
    if before is None or after is None:
        who = people(summary)
        return Finding("unknown", "Not matched", f"no two photographs of {who} can be compared")
    chance = record.chance or 0.0
    reference = _of_reference(summary, key)
    notes = [f"was {percent(before)}", f"chance {percent(chance)}"]
    notes += [] if reference is None else [f"a model that never saw them: {percent(reference)}"]
    clause = (
        f"by features, {percent(after)} of their photographs are matched to them among "
        f"{record.identities} people ({', '.join(notes)})"
    )
    usual = reference if reference is not None else chance
    if before - chance < MIN_RETRIEVAL:
        return Finding("unknown", "Not matched before", clause)
    level, label = _fallen(before, after, usual, ("Not matched", LESS, MATCHED))
    return Finding(level, label, clause)


def zero_shot(summary: Summary) -> Finding:
    """Whether an image encoder's text tower still finds the people's names."""
    record = summary.recognition or Recognition()
    key = photograph_key(summary, "features", "zero_shot")
    before, after = value_of(summary.target, key), value_of(summary.measures, key)
    # Among one name, every picture is given the right one.
    if before is None or after is None or not record.names or record.names < 2:
        return Finding("unknown", "Not named")
    chance = 1 / record.names
    clause = (
        f"among {record.names} names, {percent(after)} of {_photographs(summary)} are given the "
        f"right one zero-shot (was {percent(before)}, chance {percent(chance)})"
    )
    level, label = _fallen(before, after, chance, ("Not named", "Named less", "Still named"))
    return Finding(level, label, clause)


def verification(summary: Summary) -> Finding:
    """Whether two photographs of the people are still taken for the same person."""
    key = photograph_key(summary, "features", "verification_rate")
    before, after = value_of(summary.target, key), value_of(summary.measures, key)
    if before is None or after is None:
        return Finding("unknown", "Not verified", "there are too few pairs of different people")
    reference = _of_reference(summary, key)
    accepted = (summary.recognition or Recognition()).false_accepts or 0.0
    usual = reference if reference is not None else accepted
    if before - usual < MIN_RETRIEVAL:
        return Finding("unknown", "Not verified before")
    level, label = _fallen(before, after, usual, ("Not verified", "Verified less", "Verified"))
    return Finding(level, label)


def _fallen(
    before: float, after: float, usual: float, labels: tuple[str, str, str]
) -> tuple[Level, str]:
    """Whether a score fell to what is usual for people that a model does not know, or halfway."""
    if after <= usual + TOLERANCE + 1e-9:
        return "good", labels[0]
    if after - usual <= (before - usual) / 2:
        return "warn", labels[1]
    return "bad", labels[2]


def photograph_key(summary: Summary, kind: str, metric: str) -> str:
    """Returns the key of a measure, on held-out photographs if some were held out.

    Args:
        summary: The record.
        kind: "vqa" for answers, "features" for features.
        metric: Name of the metric, such as "said_before" or "rank_1".
    """
    keys = [f"{split}/{kind}/{metric}" for split in ("forget_holdout", "forget")]
    measured = (key for key in keys if value_of(summary.measures, key) is not None)
    return next(measured, keys[0])


def _of_reference(summary: Summary, key: str) -> float | None:
    references = (value_of(part, key) for part in (summary.reference, summary.retain_only))
    return next((value for value in references if value is not None), None)


def _tested_on_training(summary: Summary) -> bool:
    """Whether nobody has held-out photographs."""
    return not any(person.held_out for person in (summary.recognition or Recognition()).people)


def _photographs(summary: Summary) -> str:
    kind = "photographs" if _tested_on_training(summary) else "held-out photographs"
    return f"{kind} of {people(summary)}"


def _doubts(summary: Summary) -> str:
    """Further clauses that weaken the finding."""
    record = summary.recognition or Recognition()
    doubts = []
    few = sum(person.held_out == 0 for person in record.people)
    if few == len(record.people):
        doubts.append("no photograph was held out, so these are the ones of training")
    elif few:
        doubts.append(f"{few} of the {len(record.people)} people had too few to hold any out")
    if set(record.decoys) <= {"drawn", "forgotten"} and "drawn" in record.decoys:
        doubts.append("drawn faces stand in for other people, which are easily told apart")
    return "".join(f"; {doubt}" for doubt in doubts)


# Kinds of people that photographs are compared with, in words.
DECOYS = {
    "forgotten": "other people to be forgotten",
    "kept": "people to be kept",
    "strangers": "strangers",
    "drawn": "drawn faces that ship with the package",
}


def compared_with(summary: Summary) -> str:
    """A paragraph on how recognition was measured; empty where there were true answers."""
    record = summary.recognition
    if record is None:
        return ""
    whom = [f"{count} {DECOYS.get(kind, kind)}" for kind, count in record.decoys.items()]
    text = (
        "Held-out photographs were kept out of training and are tested on. By features, each is "
        f"looked for among {record.identities} people: the person"
    )
    text += f", {', '.join(whom)}." if whom else " alone."
    if record.questions:
        quoted = ", ".join(
            f"\N{LEFT DOUBLE QUOTATION MARK}{q}\N{RIGHT DOUBLE QUOTATION MARK}"
            for q in record.questions
        )
        text += f" Every model was asked: {quoted}"
    return text
