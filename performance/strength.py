"""Settings of VKD for photographs, on people whom docs/results-photos.md does not forget.

    python -m performance.strength --pocket runs/photos/pocket [--jobs 2] [--out FILE.jsonl]

Of the kept people of a pocket of photographs, four groups of three are forgotten, one group at a
time, with every setting; the table is of held-out photographs, and of questions about strangers'.
What is in the file is not run again.
"""

from __future__ import annotations

import argparse
import multiprocessing
import statistics
import time
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path
from typing import Any

import numpy as np
import torch

from performance.ablation import append, read
from performance.pocket import ROOT, machine
from unsee.benchmarks.pocket import Pocket
from unsee.benchmarks.pocket.world import picture_questions
from unsee.config import Recipe
from unsee.evaluate import evaluate
from unsee.methods import Trainer
from unsee.model import VLM
from unsee.types import Data, Sample

GROUPS, SIZE = 4, 3
STRONG = {"supervision": "features", "population": "alike", "erase_strength": 3, "w_erase": 10}
# What is tried: the method and what is set; pictures alone, or with questions and answers.
SETTINGS: dict[str, tuple[str, dict[str, Any]]] = {
    "defaults": ("vkd", {"supervision": "features"}),
    "strength 3, w_erase 4, 400 steps": (
        "vkd",
        {"supervision": "features", "erase_strength": 3, "w_erase": 4, "steps": 400},
    ),
    "the same, the people most alike": ("vkd", {**STRONG, "w_erase": 4, "steps": 400}),
    "w_erase 10, lr 1e-3": ("vkd", {**STRONG, "steps": 400, "lr": 1e-3}),
    "800 steps": ("vkd", {**STRONG, "steps": 800, "lr": 1e-3}),
    "the same, the whole population": (
        "vkd",
        {**STRONG, "population": "kept", "steps": 800, "lr": 1e-3},
    ),
    "npo, with questions and answers": ("npo", {}),
}
COLUMNS = {"forgotten": "forgotten/vqa", "others": "others/vqa", "strangers": "strangers/vqa"}


def measure(setting: str, group: int, folder: Path) -> dict[str, Any]:
    """Forgets one group with one setting, and asks about pictures that nobody saw in training."""
    torch.set_num_threads(1)
    pocket, (name, fields) = Pocket(folder), SETTINGS[setting]
    world = pocket.world
    order = np.random.default_rng(5).permutation(sorted(world.retained)).tolist()
    leaving = order[group * SIZE : (group + 1) * SIZE]
    staying = [i for i in (*world.forgotten, *world.retained) if i not in leaving]

    def held(who: list[int]) -> list[Sample]:
        shots = [s for role in ("holdout", "validation") for s in world.of(who, role)]
        return picture_questions(world, shots, np.random.default_rng(3), held_out=True)

    splits = {
        "forgotten": held(leaving),
        "others": held(staying),
        "strangers": pocket.load("general_validation"),
    }
    method, settings, _ = Recipe(method=name, set={**fields, "save_every": 0}).build()
    known = pocket.data()
    everyone = [*known.forget, *known.retain]
    if name == "vkd":
        # As from folders: a folder holds the pictures of somebody who has a name.
        named = {world.people[i].name for i in (*leaving, *staying)}
        everyone = [s for s in everyone if s.picture is not None and s.concept in named]
    mine = {world.people[i].name for i in leaving}
    # As in `Pocket.data`: who they are is to be forgotten, not what else their pictures show.
    shots = world.of(sorted(leaving), "train")
    forget = picture_questions(world, shots, np.random.default_rng(4), held_out=False)
    retain = [s for s in everyone if s.concept not in mine]
    vlm = VLM.load(pocket.checkpoint("target"))
    before = _accuracies(vlm, splits)
    started = time.perf_counter()
    method.unlearn(vlm, Data(forget, retain), Trainer(settings))
    seconds = time.perf_counter() - started
    return {
        "setting": setting, "group": group, "seconds": seconds, "before": before,
        **_accuracies(vlm, splits),
    }  # fmt: skip


def _accuracies(vlm: VLM, splits: dict[str, list[Sample]]) -> dict[str, float]:
    found = evaluate(vlm, splits, metrics=["accuracy"]).measures
    return {key: found[f"{key}/accuracy"].value or 0.0 for key in COLUMNS.values()}


def table(lines: list[dict[str, Any]]) -> str:
    """Mean and range over groups of every setting, as markdown."""
    titles = ["setting", *COLUMNS, "seconds"]
    rows = ["| " + " | ".join(titles) + " |", "| --- " * len(titles) + "|"]

    def cells(values: dict[str, list[float]]) -> str:
        return " | ".join(
            f"{statistics.mean(v):.3f} ({min(v):.3f} to {max(v):.3f})" for v in values.values()
        )

    first = {line["group"]: line["before"] for line in lines}.values()
    rows.append(f"| target | {cells({k: [b[k] for b in first] for k in COLUMNS.values()})} | |")
    for setting in SETTINGS:
        mine = [line for line in lines if line["setting"] == setting]
        if mine:
            seconds = statistics.mean(line["seconds"] for line in mine)
            found = cells({k: [line[k] for line in mine] for k in COLUMNS.values()})
            rows.append(f"| {setting} | {found} | {seconds:.0f} |")
    return "\n".join(rows)


def main() -> None:
    """Measures what is missing, and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pocket", type=Path, default=ROOT / "runs" / "photos" / "pocket")
    parser.add_argument("--out", type=Path, default=ROOT / "runs" / "photos" / "strength.jsonl")
    parser.add_argument("--jobs", type=int, default=2, help="Processes side by side.")
    options = parser.parse_args()
    options.out.parent.mkdir(parents=True, exist_ok=True)
    lines = read(options.out)
    done = {(line["setting"], line["group"]) for line in lines}
    pairs = [(s, g) for s in SETTINGS for g in range(GROUPS) if (s, g) not in done]
    # One core a process: a run is then the same however many run side by side.
    fresh = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(options.jobs, mp_context=fresh) as pool:
        for made in as_completed([pool.submit(measure, *pair, options.pocket) for pair in pairs]):
            append(options.out, lines, made.result())
    print(f"{machine()}\n\n{table(lines)}")


if __name__ == "__main__":
    main()
