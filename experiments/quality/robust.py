"""What resists relearning: variants of VKD under four attackers; the tables of docs/robust.md.

    python -m experiments.quality.robust [--seeds 0] [--only NAME ...] [--jobs 2] [--out FILE.jsonl]

Every (variant, seed) is one line in the JSONL file; what is there is not run again. Variants are
judged on pocket's validation splits; some, the preset `robust` among them, also on the reported
ones, with seeds 0, 1 and 2.
"""

from __future__ import annotations

import argparse
import statistics
import time
from pathlib import Path
from typing import Any

import torch

from experiments.pages import fill, read
from experiments.quality.ablation import value
from unsee.attacks.relearn import Relearn, area_between
from unsee.benchmarks import CheckpointRole
from unsee.benchmarks.pocket import Pocket
from unsee.models.vlm import VLM
from unsee.recipes.unlearn import Recipe
from unsee.records.provenance import describe_this_machine
from unsee.training.trainer import Trainer

DOC = Path(__file__).parent.parent / "docs" / "robust.md"


STEPS = (0, 5, 10, 20, 40)


ATTACKERS = {
    f"{share:.0%} {modules}": {"share": share, "modules": modules}
    for modules in ("visual", "all")
    for share in (0.2, 1.0)
}


SPLITS = {
    "validation": ("forget_validation", "retain_validation", "general_validation"),
    "reported": ("forget_holdout", "retain_holdout", "general"),
}


ROBUST = "robust (pictures, w_keep 80, 20 inner steps)"


FORMER = "pictures, w_keep 100: 20 inner steps"


# Ten inner steps in every step; with answers, the LLM is in every pass, and half the weight keeps.
PICTURES = {"robust": True, "relearn_steps": 10, "w_keep": 100.0}


ANSWERS = {**PICTURES, "supervision": "full", "w_keep": 50.0}


SECOND = {**ANSWERS, "relearn_every": 2, "w_keep": 20.0}


IDEAS: dict[str, dict[str, Any]] = {
    "1 inner step (sharpness-aware)": {"relearn_steps": 1},
    "inner steps of 2e-4": {"relearn_lr": 2e-4},
    "attacked in every 2nd step": {"relearn_every": 2},
    "attacked for 300 of 400 steps, then distilled": {"relearn_share": 0.75},
    "attacked for 400 of 800 steps, then distilled": {"relearn_share": 0.5, "steps": 800},
    "not attacked": {"relearn_steps": 0},
    "weights far away": {"w_far": 1.0},
    "weights far away, not attacked": {"w_far": 1.0, "relearn_steps": 0},
    "2 blends a picture": {"neighbours": 2},
    "retain augmented as forget": {"augment_retain": 1.0},
    "batches of 32": {"batch_size": 32},
    "erase at all layers": {"erase_layers": ["all"], "erase_strength": 1.0},
    "erase to a stranger at all layers": {"erase_layers": ["all"], "erase": "stranger"},
    "noise in the projector first, 600 steps": {"renew": 1.0, "steps": 600, "lr": 1e-3},
}


VARIANTS: dict[str, dict[str, Any]] = {
    "target": {},
    "visual-retain": {},
    "default": {},
    "longer": {"steps": 400},
    ROBUST: {"robust": True},
    FORMER: {"robust": True, "w_keep": 100.0},
    **{f"pictures, w_keep {keep}": {**PICTURES, "w_keep": keep} for keep in (50, 80, 100, 120)},
    **{
        f"pictures, w_keep {keep}, 800 steps": {**PICTURES, "w_keep": keep, "steps": 800}
        for keep in (80, 100, 120, 160, 240)
    },
    **{f"pictures, w_keep 100: {title}": {**PICTURES, **some} for title, some in IDEAS.items()},
    **{f"answers, w_keep {keep}": {**ANSWERS, "w_keep": keep} for keep in (20, 40, 50, 60)},
    "answers, w_keep 50: 1 inner step (sharpness-aware)": {**ANSWERS, "relearn_steps": 1},
    "answers, w_keep 50: erase to a stranger": {**ANSWERS, "erase": "stranger"},
    "answers, every 2nd step: 4 inner steps": {**SECOND, "relearn_steps": 4},
    "answers, every 2nd step: 10 inner steps": SECOND,
    "answers, every 2nd step: 10 inner steps of 2e-3": {**SECOND, "relearn_lr": 2e-3},
    "answers, every 2nd step: 10 inner steps of 2e-3, w_keep 40": {
        **SECOND, "relearn_lr": 2e-3, "w_keep": 40,
    },
}  # fmt: skip


REPORTED = (
    "target", "visual-retain", "default", "answers, every 2nd step: 10 inner steps",
    "answers, w_keep 50", FORMER, ROBUST,
)  # fmt: skip


MODELS: dict[str, CheckpointRole] = {"target": "target", "visual-retain": "visual_retain"}


def measure(variant: str, seed: int, where: str) -> dict[str, Any]:
    """Unlearns pocket once, scores it on the splits, and lets four attackers at a copy."""
    # One core a process: a run is then the same however many run side by side.
    torch.set_num_threads(1)
    pocket = Pocket()
    vlm = VLM.load(pocket.checkpoint(MODELS.get(variant, "target")))
    data = pocket.data()
    started = time.perf_counter()
    if variant not in MODELS:
        recipe = Recipe(set={**VARIANTS[variant], "save_every": 0}, seed=seed)
        method, settings, _ = recipe.build()
        method.unlearn(vlm, data, Trainer(settings))
    row = {"variant": variant, "seed": seed, "where": where}
    row["seconds"] = time.perf_counter() - started
    asked = SPLITS[where]
    for name in asked:
        row[name.partition("_")[0]] = value(vlm, {name: pocket.load(name)})
    by_name = [s for s in pocket.load("forget") if s.modality == "text"]
    row["text"] = value(vlm, {"forget": by_name})
    held_out = pocket.load(asked[0])

    def score(model: VLM) -> dict[str, float]:
        return {"value": value(model, {asked[0]: held_out})}

    start = {"value": row["forget"]}
    row["curves"] = {
        title: Relearn(**fields, steps=STEPS[-1], checkpoints=STEPS, seed=seed).curve(  # type: ignore[arg-type]
            vlm, data.forget, score, start
        )
        for title, fields in ATTACKERS.items()
        if variant != "target"
    }
    return row


def table(lines: list[dict[str, Any]]) -> str:
    """Accuracies, and the area to the reference's curve under every attacker, as markdown."""
    base = {line["seed"]: line["curves"] for line in lines if line["variant"] == "visual-retain"}
    head = ["variant", "n", "forget", "retain", "general", "text", *ATTACKERS, "seconds"]
    rows = ["| " + " | ".join(head) + " |", "| --- " * len(head) + "|"]
    for name in (n for n in VARIANTS if any(line["variant"] == n for line in lines)):
        mine = [line for line in lines if line["variant"] == name]
        cells = [_mean([line[key] for line in mine]) for key in head[2:6]]
        cells += [
            _mean(
                [
                    area_between(line["curves"][title], base[line["seed"]][title])
                    for line in mine
                    if title in line["curves"] and line["seed"] in base
                ],
                "+.3f",
            )
            for title in ATTACKERS
        ]
        spent = "" if name in MODELS else f"{statistics.mean(s['seconds'] for s in mine):.0f}"
        rows.append(f"| {name} | {len(mine)} | " + " | ".join([*cells, spent]) + " |")
    return "\n".join(rows)


def curves(lines: list[dict[str, Any]]) -> str:
    """Accuracy after so many steps of every attacker, as markdown."""
    head = ["attacker has, tunes", "variant", *(f"{step} steps" for step in STEPS)]
    rows = ["| " + " | ".join(head) + " |", "| --- " * len(head) + "|"]
    for title in ATTACKERS:
        for name in REPORTED[1:]:
            mine = [line["curves"][title] for line in lines if line["variant"] == name]
            if mine:
                cells = [_mean([c[i]["value"] for c in mine], ".2f") for i in range(len(STEPS))]
                rows.append(f"| {title} | {name} | " + " | ".join(cells) + " |")
    return "\n".join(rows)


def _mean(values: list[float], shape: str = ".3f") -> str:
    """Mean, and the range where there is one."""
    if not values:
        return ""
    mean = f"{statistics.mean(values):{shape}}"
    spread = f" ({min(values):{shape}} to {max(values):{shape}})"
    return mean + (spread if len(values) > 1 else "")


def write(lines: list[dict[str, Any]]) -> None:
    """Puts the tables into the page, between its marks."""
    machine = describe_this_machine()
    some = {where: [line for line in lines if line["where"] == where] for where in SPLITS}
    bodies = {
        "reported": f"{table(some['reported'])}\n\n{curves(some['reported'])}",
        "validation": table(some["validation"]),
    }
    text = DOC.read_text("utf-8")
    for where, body in bodies.items():
        begin, end = f"<!-- {where}:begin -->", f"<!-- {where}:end -->"
        before, after = text[: text.index(begin)], text[text.index(end) :]
        text = f"{before}{begin}\nMachine: {machine}.\n\n{body}\n{after}"
    DOC.write_text(text, "utf-8")


def main() -> None:
    """Runs what is missing and rewrites the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", default="0", help="Of the variants on the validation splits.")
    parser.add_argument("--only", nargs="*", default=list(VARIANTS))
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "robust.jsonl")
    parser.add_argument("--jobs", type=int, default=2, help="Processes side by side.")
    options = parser.parse_args()
    lines = read(options.out)
    done = {(line["variant"], line["seed"], line["where"]) for line in lines}
    seeds = [int(seed) for seed in options.seeds.split(",")]
    wanted = [(name, seed, "reported") for name in REPORTED for seed in (0, 1, 2)]
    wanted += [(name, seed, "validation") for name in VARIANTS for seed in seeds]
    missing = [w for w in wanted if w not in done and w[0] in options.only]
    fill(measure, missing, options.jobs, options.out, lines)
    write(lines)


if __name__ == "__main__":
    main()
