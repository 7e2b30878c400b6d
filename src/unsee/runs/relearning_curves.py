"""Recovery: what attacks of every budget bring back, of a model and of those beside it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from unsee.attacks.relearn import Curve, Relearn
from unsee.benchmarks import HELD_OUT, Scoring
from unsee.data.selection import evenly
from unsee.evaluation.evaluate import evaluate
from unsee.models.vlm import VLM
from unsee.progress import Bar
from unsee.records.folder import Part
from unsee.types import Sample

MOST = 180  # retain questions at every look, enough to see what an attack costs elsewhere


Score = dict[str, Any]


def recover(
    attacks: Sequence[Relearn],
    subjects: Mapping[str, Callable[[], VLM]],
    known: Sequence[Sample],
    splits: Mapping[str, Sequence[Sample]],
    part: Part,
    bar: Bar,
    scoring: Mapping[str, Scoring],
    target: Mapping[str, Any],
) -> list[dict[str, Any]]:
    """Recovery curves of every subject under every budget, as `summary.json` holds them.

    Args:
        attacks: The budgets.
        subjects: What gives each model, by name; "unlearned" is the one that is judged.
        known: The forget samples, of which an attacker gets a share.
        splits: What is asked: of all "forget_holdout", of the unlearned model also up to `MOST`
            questions of "retain_holdout", evenly spread.
        part: Keeps what was found of a model, so that a resumed run does not find it again.
        bar: Told about each curve.
        scoring: What each of these is scored with; exact answers where not given.
        target: The measures of the model before unlearning, as far as they are known.
    """
    how = {name: scoring.get(name, Scoring()) for name in HELD_OUT}
    measure, retain_measure = (f"{name}/vqa/{how[name].metric}" for name in HELD_OUT)
    asked = {
        name: [s for s in splits[name] if s.modality == "vqa"]
        for name in HELD_OUT
        if name in splits
    }
    if "retain_holdout" in asked:
        asked["retain_holdout"] = evenly(asked["retain_holdout"], MOST)

    def curve(index: int, attack: Relearn, name: str, load: Callable[[], VLM]) -> Curve:
        bar.stage(f"relearning {attack.share:.0%} {attack.modules}: {name.replace('_', '-')}")
        # What an attack costs the attacker elsewhere is only asked of the model that is judged.
        mine = {n: s for n, s in asked.items() if name == "unlearned" or n == "forget_holdout"}

        def score(vlm: VLM) -> Score:
            return _score(vlm, mine, how)

        # Every budget starts from the same model: it is scored once.
        start = part("attack-start", name, lambda: score(load()))
        found: Curve = part(
            f"attack-{index}", name, lambda: attack.curve(load(), known, score, start), attack
        )
        return found

    return [
        attack.report(
            {name: curve(index, attack, name, load) for name, load in subjects.items()},
            target.get(measure, {}).get("value"),
            measure,
            retain_measure,
        )
        | {"longest": {name: how[name].max_new_tokens for name in asked}}
        for index, attack in enumerate(attacks)
    ]


def _score(vlm: VLM, splits: Mapping[str, Sequence[Sample]], how: Mapping[str, Scoring]) -> Score:
    found = {}
    for name, samples in splits.items():
        metric, max_new_tokens = how[name].metric, how[name].max_new_tokens
        measured = evaluate(
            vlm, {name: samples}, metrics=[metric], max_new_tokens=max_new_tokens
        ).measures
        found[name] = measured.get(f"{name}/vqa/{metric}")
    mine, kept = (found.get(name) for name in HELD_OUT)
    # A metric that applies to none of the questions has measured nothing.
    score = {part: getattr(mine, part, None) for part in ("value", "low", "high")}
    return {**score, "retain": getattr(kept, "value", None)}
