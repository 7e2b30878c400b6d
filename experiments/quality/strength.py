"""Settings of VKD for photographs, on people whom docs/results-photos.md does not forget.

    python -m experiments.quality.strength --pocket runs/photos/pocket [--jobs 2] [--out FILE.jsonl]

Of the kept people of a pocket of photographs, four groups of three are forgotten, one group at a
time, with every setting; the table is of held-out photographs, and of questions about strangers'.
What is in the file is not run again.
"""

from __future__ import annotations

import argparse
import statistics
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from experiments.pages import ROOT, fill, read
from experiments.quality.ablation import value
from unsee.benchmarks.pocket import Pocket
from unsee.benchmarks.pocket.world import picture_questions
from unsee.models.vlm import VLM
from unsee.recipes.unlearn import Recipe
from unsee.records.provenance import describe_this_machine
from unsee.training.trainer import Trainer
from unsee.types import Data, Sample

GROUPS, SIZE = 4, 3


STRONG = {"supervision": "features", "population": "alike", "erase_strength": 3, "w_erase": 10}


# What is tried: the method and what is set; pictures alone, or with questions and answers.
TARGET = "target"


SETTINGS: dict[str, tuple[str, dict[str, Any]]] = {
    TARGET: ("vkd", {}),
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


COLUMNS = ("forgotten", "others", "strangers")


def measure(setting: str, group: int, folder: Path) -> dict[str, Any]:
    """Forgets one group with one setting, and asks about pictures that nobody saw in training."""
    # One core a process: a run is then the same however many run side by side.
    torch.set_num_threads(1)
    pocket, (name, fields) = Pocket(folder), SETTINGS[setting]
    world = pocket.world
    order = np.random.default_rng(5).permutation(sorted(world.retained)).tolist()
    leaving = order[group * SIZE : (group + 1) * SIZE]
    staying = [i for i in (*world.forgotten, *world.retained) if i not in leaving]

    def held(who: list[int]) -> list[Sample]:
        shots = [s for role in ("holdout", "validation") for s in world.of(who, role)]
        return picture_questions(world, shots, np.random.default_rng(3), held_out=True)

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
    started = time.perf_counter()
    if setting != TARGET:
        method.unlearn(vlm, Data(forget, retain), Trainer(settings))
    row = {"setting": setting, "group": group, "seconds": time.perf_counter() - started}
    splits = held(leaving), held(staying), pocket.load("general_validation")
    return row | {k: value(vlm, {k: some}) for k, some in zip(COLUMNS, splits, strict=True)}


def table(lines: list[dict[str, Any]]) -> str:
    """Mean and range over groups of every setting, as markdown."""
    titles = ["setting", *COLUMNS, "seconds"]
    rows = ["| " + " | ".join(titles) + " |", "| --- " * len(titles) + "|"]

    for setting in SETTINGS:
        mine = [line for line in lines if line["setting"] == setting]
        if mine:
            columns = [[line[key] for line in mine] for key in COLUMNS]
            cells = [f"{statistics.mean(c):.3f} ({min(c):.3f} to {max(c):.3f})" for c in columns]
            seconds = statistics.mean(line["seconds"] for line in mine)
            cells.append("" if setting == TARGET else f"{seconds:.0f}")
            rows.append(f"| {setting} | {' | '.join(cells)} |")
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
    everything = [(s, g) for s in SETTINGS for g in range(GROUPS)]
    missing = [(*pair, options.pocket) for pair in everything if pair not in done]
    fill(measure, missing, options.jobs, options.out, lines)
    print(f"{describe_this_machine()}\n\n{table(lines)}")


if __name__ == "__main__":
    main()
