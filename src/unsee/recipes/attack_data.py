"""The data that attacks need, and what to type where some is missing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from unsee.attacks import AttackerData, Chain, required_data
from unsee.types import Sample

# The options that give an attacker's data, by what they give.
AUDIT = {"forget": "--forget", "retain": "--retain", "non_members": "--non-members"}
UNLEARN = {**AUDIT, "non_members": "--strangers"}
LEDGER = {
    "forget": "--photos",
    "retain": "unsee request init --retain",
    "non_members": "unsee request init --strangers",
}

TABLE = "give a table with columns image, question, answer, concept"

# What is missing and what to type, by need; the first need that is not met is named.
MISSING = {
    "target": "the model before unlearning is missing. Give it with --target",
    "attacker_samples": "forget samples to work from are missing. Give them with {forget}",
    "answers": f"true answers are missing. With {{forget}}, {TABLE}",
    "questions": "held-out questions about the forget pictures, which score it, are missing. With "
    f"{{forget}}, {TABLE}",
    "forget_holdout": "photographs of the people to be forgotten that were not trained on are "
    "missing. Give four or more of each with {forget}",
    "retain": "pictures of people who were not forgotten are missing. Give them with {retain}",
    "retain_holdout": "photographs of two people who are kept that were not trained on are "
    "missing. Give four or more of each with {retain}",
    "non_members": "samples about people that no model was trained on are missing. Give them with "
    "{non_members}",
    "non_member_answers": "true answers about people that no model was trained on are missing. "
    f"With {{non_members}}, {TABLE}",
}


def missing_data(
    chain: Chain, available: Mapping[str, bool], options: Mapping[str, str]
) -> str | None:
    """Returns what attacks lack, and what to type to have it; None if they lack nothing.

    Args:
        chain: Attacks, one after the other.
        available: Whether there is some, by need; a need that is not listed is met.
        options: The options that give it, such as `AUDIT`.

    Example:
        >>> from unsee.attacks.prototype import Prototype
        >>> missing_data((Prototype(),), {"retain": False}, AUDIT)
        'pictures of people who were not forgotten are missing. Give them with --retain'
    """
    needs = {"forget_holdout", *required_data([chain])}
    if chain[-1].asks:
        # Where there are no answers at all, that is what is said.
        needs |= {"questions"} if available.get("answers", True) else {"answers"}
    if "retain" in needs:
        needs.add("retain_holdout")
    if {"answers", "non_members"} <= needs:
        needs = needs - {"non_members"} | {"non_member_answers"}
    lacking = [need for need in MISSING if need in needs and not available.get(need, True)]
    return MISSING[lacking[0]].format(**options) if lacking else None


def available_data(
    attacker: AttackerData, splits: Mapping[str, Sequence[Sample]], has_target: bool
) -> dict[str, bool]:
    """Returns whether there is some data, by need, for attacks that are scored by answers.

    Args:
        attacker: The attacker's data.
        splits: The samples that the run asks, by split.
        has_target: Whether the run has the model before unlearning.
    """
    held_out = splits.get("forget_holdout", ())
    return {
        "target": has_target,
        "attacker_samples": bool(attacker.forget),
        "answers": any(s.answer and s.picture is not None for s in attacker.forget),
        "questions": any(s.answer and s.picture is not None for s in held_out),
        "retain": any(s.picture is not None for s in attacker.retain),
        "non_members": any(s.picture is not None for s in attacker.non_members),
        "non_member_answers": any(s.answer for s in attacker.non_members),
    }


def available_photographs(
    splits: Mapping[str, Sequence[Sample]], non_members: Sequence[Sample]
) -> dict[str, bool]:
    """Returns whether there is some data, by need, where photographs alone are given.

    Args:
        splits: The photographs that are held out, by split.
        non_members: Samples about people that no model was trained on.
    """
    kept = {s.concept for s in splits.get("retain_holdout", ()) if s.concept}
    return {
        "answers": False,
        "questions": False,
        "forget_holdout": bool(splits.get("forget_holdout")),
        "retain_holdout": len(kept) > 1,
        "non_members": any(s.picture is not None for s in non_members),
        "non_member_answers": False,
    }
