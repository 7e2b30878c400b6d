"""The VKD study on pocket: every part off, every alternative, over seeds; writes docs/vkd.md.

    python -m experiments.quality.ablation [--seeds 0,1,2] [--only NAME ...] [--jobs 2] [--out FILE]

Every (variant, seed) is one line in the JSONL file; what is there is not run again, so the command
can be broken off and repeated. Variants are judged on pocket's validation splits, which are neither
trained on nor reported; the default's reported splits stand in docs/results-pocket.md.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from experiments.pages import append, fill, read
from unsee.attacks.relearn import Relearn
from unsee.benchmarks.pocket import VALIDATION, Pocket
from unsee.evaluation.evaluate import evaluate
from unsee.models.vlm import VLM
from unsee.recipes.unlearn import Recipe
from unsee.records.provenance import describe_this_machine
from unsee.studies.ablation import variants
from unsee.training.trainer import Trainer

DOC = Path(__file__).parent.parent / "docs" / "vkd.md"


BEGIN, END = "<!-- ablation:begin -->", "<!-- ablation:end -->"


VARIANTS = variants("vkd")


COLUMNS = {
    "forget": "forget_validation/vqa/accuracy",
    "retain": "retain_validation/vqa/accuracy",
    "general": "general_validation/vqa/accuracy",
    "of the forgotten": "general_forget_validation/vqa/accuracy",
    "text": "forget/text/accuracy",
    "relearned": "relearned",
}


def measure(variant: str, seed: int) -> dict[str, Any]:
    """Unlearns pocket once and scores it on the validation splits and under a short attack."""
    # One core a process: a run is then the same however many run side by side.
    torch.set_num_threads(1)
    pocket = Pocket()
    method_name, changes = VARIANTS[variant]
    changes = dict(changes)
    if changes.get("erase") == "base":
        changes["base"] = str(pocket.checkpoint("base"))
    recipe = Recipe(method=method_name, set={**changes, "save_every": 0}, seed=seed)
    method, settings, _ = recipe.build()
    vlm = VLM.load(pocket.checkpoint("target"))
    data = pocket.data()
    started = time.perf_counter()
    method.unlearn(vlm, data, Trainer(settings))
    row = {"variant": variant, "seed": seed, "seconds": time.perf_counter() - started}
    row |= scores(vlm, pocket)
    validation = pocket.load("forget_validation")

    def score(model: VLM) -> dict[str, float]:
        return {"value": value(model, {"forget_validation": validation})}

    attack = Relearn(share=0.2, steps=20, modules="visual", checkpoints=(20,), seed=seed)
    curve = attack.curve(vlm, [s for s in data.forget if s.picture], score)
    row["relearned"] = curve[-1]["value"]
    return row


def scores(vlm: VLM, pocket: Any) -> dict[str, float]:
    """The study's accuracies of a model, by measure name."""
    splits = {name: pocket.load(name) for name in (*VALIDATION, "general_forget_validation")}
    splits["forget"] = [s for s in pocket.load("forget") if s.modality == "text"]
    found = evaluate(vlm, splits, metrics=["accuracy"]).measures
    return {key: found[key].value or 0.0 for key in COLUMNS.values() if key in found}


def value(vlm: VLM, splits: Mapping[str, Any]) -> float:
    """The one accuracy of a single split of pictures."""
    (estimate,) = evaluate(vlm, splits, metrics=["accuracy"]).measures.values()
    return float(estimate.value or 0.0)


def table(lines: list[dict[str, Any]]) -> str:
    """Mean and range over seeds of every variant, as markdown."""
    rows = ["| variant | n | " + " | ".join(COLUMNS) + " |", "| --- " * (len(COLUMNS) + 2) + "|"]
    for name in dict.fromkeys(line["variant"] for line in lines):
        mine = [line for line in lines if line["variant"] == name]
        cells = []
        for key in COLUMNS.values():
            values = [line[key] for line in mine if line.get(key) is not None]
            if not values:
                cells.append("")
                continue
            mean = f"{statistics.mean(values):.3f}"
            spread = f" ({min(values):.3f} to {max(values):.3f})"
            cells.append(mean + (spread if len(values) > 1 else ""))
        rows.append(f"| {name} | {len(mine)} | " + " | ".join(cells) + " |")
    return "\n".join(rows)


def main() -> None:
    """Runs what is missing and rewrites the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--only", nargs="*", default=list(VARIANTS))
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "ablation.jsonl")
    parser.add_argument("--jobs", type=int, default=2, help="Processes side by side.")
    options = parser.parse_args()
    lines = read(options.out)
    done = {(line["variant"], line["seed"]) for line in lines}
    pocket = Pocket()
    for name in ("target", "visual_retain", "retain_only"):
        if (name, 0) not in done:
            row = scores(VLM.load(pocket.checkpoint(name)), pocket)
            append(options.out, lines, {"variant": name, "seed": 0, **row})
    seeds = [int(seed) for seed in options.seeds.split(",")]
    missing = [(name, s) for s in seeds for name in options.only if (name, s) not in done]
    fill(measure, missing, options.jobs, options.out, lines)
    order = ["target", "visual_retain", "retain_only", *VARIANTS]
    lines.sort(key=lambda line: order.index(line["variant"]))
    machine = describe_this_machine()
    body = (
        f"{BEGIN}\nMean over seeds (range). `of the forgotten`: what anyone can see, asked about "
        "the forgotten people's pictures; rows without it were measured before. `relearned`: "
        "accuracy on the same held-out pictures after 20 steps of an attacker who has 20 % of the "
        "forget samples and tunes the visual "
        f"part. Machine: {machine}.\n\n{table(lines)}\n{END}"
    )
    text = DOC.read_text("utf-8")
    DOC.write_text(text[: text.index(BEGIN)] + body + text[text.index(END) + len(END) :], "utf-8")


if __name__ == "__main__":
    main()
