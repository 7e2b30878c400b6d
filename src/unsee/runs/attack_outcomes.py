"""Robustness: what models say before and after an attack, the unlearned one beside the others."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from unsee.attacks import VARIANT, Chain, Subject, label, required_data
from unsee.data.selection import evenly
from unsee.errors import ConfigError, DataError
from unsee.evaluation.bootstrap import estimate
from unsee.evaluation.evaluate import evaluate
from unsee.metrics import normalize_answer
from unsee.models.vlm import VLM
from unsee.progress import Bar
from unsee.records.folder import Part, jsonable
from unsee.types import Data, Sample

MOST = 60  # retain questions a model and attack, enough to see what an attack costs elsewhere


SPLITS = {"forget": "forget_holdout", "retain": "retain_holdout"}


Row = dict[str, Any]


MISSING = {
    "attacker_samples": "forget samples to work from. Give them with --forget",
    "answers": "forget samples with questions and answers. Give a table with columns image, "
    "question, answer, concept",
    "retain": "pictures of people who were not forgotten. Give them with --retain",
    "non_members": "samples about people that no model was trained on. Give them with "
    "--non-members",
}


def check(chain: Chain, data: Data, splits: Mapping[str, Sequence[Sample]]) -> None:
    """Refuses attacks that cannot run, before hours are spent on the way to them.

    Raises:
        ConfigError: If one that reads the model stands before another.
        DataError: If one lacks what it works from, or nothing could score it.
    """
    name = label(chain)
    for attack in chain[:-1]:
        if attack.reads:
            raise ConfigError(
                f"'{name}': {attack.name} reads the model and leaves nothing to attack further. "
                "Put it last."
            )
    there = {
        "attacker_samples": bool(data.forget),
        "answers": any(s.answer and s.picture is not None for s in data.forget),
        "retain": any(s.picture is not None for s in data.retain),
        "non_members": bool(data.outside),
    }
    for need in sorted(required_data([chain])):
        if not there[need]:
            raise DataError(f"the attack '{name}' needs {MISSING[need]}, or leave out the attacks.")
    held = splits.get("forget_holdout", ())
    if not chain[-1].reads and not any(s.picture is not None and s.answer for s in held):
        what = "relearning attack" if name == "relearn" else f"attack '{name}'"
        raise DataError(
            f"the {what} is scored on held-out questions about the forget pictures, and "
            "there are none. Give a table with columns image, question, answer, concept, or leave "
            "out the attacks."
        )


def assess(
    chains: Sequence[Chain],
    subjects: Mapping[str, Callable[[], VLM]],
    data: Data,
    splits: Mapping[str, Sequence[Sample]],
    part: Part,
    bar: Bar,
    max_new_tokens: int = 24,
) -> dict[str, list[dict[str, Any]]]:
    """What every model says before and after each chain of attacks, as `summary.json` holds it.

    Args:
        chains: Attacks, each made on what the one before it leaves.
        subjects: What gives each model, by name; "unlearned" is the one that is judged.
        data: What an attacker may work from.
        splits: What is asked: of "forget_holdout" everything, of "retain_holdout" up to `MOST`
            questions, evenly spread; those with a picture and a true answer.
        part: Keeps what was found of a model, so that a resumed run does not find it again.
        bar: Told about each model and attack.
        max_new_tokens: Longest answer, in tokens.
    """
    asked = {
        name: [s for s in splits[name] if s.picture is not None and s.answer]
        for name in SPLITS.values()
        if name in splits
    }
    if "retain_holdout" in asked:
        asked["retain_holdout"] = evenly(asked["retain_holdout"], MOST)
    found: dict[str, list[dict[str, Any]]] = {}
    for index, chain in enumerate(chains):
        models = {}
        for name, load in subjects.items():
            bar.stage(f"{label(chain)}: {name.replace('_', '-')}")

            def attack(
                chain: Chain = chain, load: Callable[[], VLM] = load, name: str = name
            ) -> dict[str, Any]:
                start = Subject(load(), asked, data.forget, data.retain, data.outside)
                started = time.perf_counter()
                if chain[-1].reads:
                    found = read_leakage(start, chain)
                else:
                    before = part("chain-start", name, lambda: answers(start, max_new_tokens))
                    found = {
                        "answers": compare(
                            before, answers(apply_attacks(start, chain), max_new_tokens)
                        )
                    }
                return found | {"seconds": time.perf_counter() - started}

            models[name] = part(f"chain-{index}", name, attack, chain)
        found.setdefault(label(chain), []).append(
            {
                "access": [attack.access for attack in chain],
                "parameters": {attack.name: jsonable(asdict(attack)) for attack in chain},  # type: ignore[call-overload]
                "models": models,
            }
        )
    return found


def apply_attacks(subject: Subject, chain: Chain) -> Subject:
    """What the attacks leave, one after the other."""
    for attack in chain:
        subject = attack.apply(subject)
    return subject


def read_leakage(subject: Subject, chain: Chain) -> dict[str, Any]:
    """What the last attack reads off the model that those before it leave."""
    subject = apply_attacks(subject, chain[:-1])
    return {"readings": [asdict(reading) for reading in chain[-1].readings(subject)]}


def answers(subject: Subject, max_new_tokens: int = 24) -> dict[str, list[Row]]:
    """One {"id", "concept", "score"} a question, by "forget" and "retain"."""
    found: dict[str, list[Row]] = {}
    for side, split in SPLITS.items():
        samples = list(subject.samples.get(split, ()))
        rows = evaluate(
            subject.vlm, {split: samples}, metrics=["accuracy"], max_new_tokens=max_new_tokens
        ).rows
        found[side] = [
            {"id": s.id, "concept": s.concept or s.id, "score": recalled(row)}
            for s, row in zip(samples, rows, strict=True)
        ]
    return found


def recalled(row: Mapping[str, Any]) -> float:
    """1 if the true answer comes back: right word for word, by its letter, or within a sentence."""
    right = float(row["scores"]["accuracy"] or 0.0)
    if row["task"] in ("classification", "ranking"):
        return right
    # Whoever is talked into answering seldom answers with the bare sentence.
    return max(right, float(normalize_answer(row["truth"]) in normalize_answer(row["output"])))


def compare(
    before: Mapping[str, Sequence[Row]], after: Mapping[str, Sequence[Row]]
) -> dict[str, Any]:
    """Scores before and after, by "forget" and "retain", over the questions that are still asked.

    Of several variants of one question `after` is their mean, and `any` counts a question as
    answered if one of them is.
    """
    found: dict[str, Any] = {}
    for side, rows in after.items():
        known = {row["id"]: row for row in before[side]}
        groups: dict[str, list[Row]] = {}
        names: dict[str, list[float]] = {}
        for row in rows:
            origin, variants = _origin(row["id"], known)
            groups.setdefault(origin, []).append(row)
            if variants:
                names.setdefault(variants, []).append(row["score"])
        if not groups:
            found[side] = None
            continue
        concepts = [known[origin]["concept"] for origin in groups]
        was = [known[origin]["score"] for origin in groups]
        now = [sum(r["score"] for r in some) / len(some) for some in groups.values()]
        measured = estimate(now, concepts, "lower")
        found[side] = {
            "before": sum(was) / len(was),
            "after": measured.value,
            "low": measured.low,
            "high": measured.high,
            "any": sum(max(r["score"] for r in some) for some in groups.values()) / len(groups),
            "n": len(groups),
            "variants": {name: sum(s) / len(s) for name, s in names.items()},
        }
    return found


def _origin(identity: str, known: Mapping[str, Row]) -> tuple[str, str]:
    """The id of the question that a variant was made of, and the variant's name."""
    names: list[str] = []
    while identity not in known:
        identity, separator, name = identity.rpartition(VARIANT)
        if not separator:
            raise DataError(f"'{name}' is the id of no question that was asked before the attack.")
        names.insert(0, name)
    return identity, ", ".join(names)
