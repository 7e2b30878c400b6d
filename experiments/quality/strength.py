"""Settings of VKD for photographs, on people whom docs/results-photos.md does not forget.

    python -m experiments.quality.strength --pocket runs/photos/pocket [--groups 0,1] [--jobs 2]

Of the kept people of a pocket of photographs, four groups of three are forgotten, one group at a
time, with every variant of variants/strength_*.yaml, run by the same code as `unsee ablate`, and
relearned by an attacker with a fifth of the pictures who trains the visual part. Writes the table
of docs/vkd.md: accuracies on held-out photographs, on what strangers' photographs and those of the
forgotten people show, and along the attack. Existing rows are not measured again.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from experiments.pages import (
    DOCS,
    ROOT,
    append_row,
    machines,
    mean_and_range,
    read_rows,
    replace_section,
    table,
)
from experiments.variants import accuracies, facts, kept_curve, mean_seconds, run_variants
from unsee.benchmarks.pocket import CHECKPOINTS, Pocket
from unsee.benchmarks.pocket.world import WORLD, picture_questions
from unsee.recipes.job import Job
from unsee.records.schema import Summary
from unsee.studies.ablation import variants
from unsee.studies.comparison import ComparisonRequest
from unsee.types import Data, Sample

GROUPS, SIZE = 4, 3
TARGET = "target"

VARIANTS = {
    name: variant
    for method in ("vkd", "npo")
    for name, variant in variants(
        method, Path(__file__).parent / "variants" / f"strength_{method}.yaml"
    ).items()
}
# The keys of rows, which are the columns as well, and the measures in records.
MEASURES = {
    "forgotten": "forget_holdout/vqa/accuracy",
    "others": "retain_holdout/vqa/accuracy",
    "strangers": "general/vqa/accuracy",
    "general, forgotten": "general_forget/vqa/accuracy",
}
STEPS = (0, 10, 20, 40)
ATTACK = {"share": 0.2, "modules": "visual", "steps": STEPS[-1], "checkpoints": list(STEPS)}


def build_group(pocket: Pocket, group: int, folder: Path) -> Path:
    """Returns a build that forgets another group of people; its models are the pocket's.

    Args:
        pocket: The build of the photographs.
        group: The number of the group.
        folder: The folder of the new build, which is written once.
    """
    if not (folder / WORLD).exists():
        order = np.random.default_rng(5).permutation(sorted(pocket.world.retained)).tolist()
        forgotten = sorted(order[group * SIZE : (group + 1) * SIZE])
        folder.mkdir(parents=True, exist_ok=True)
        for name in (*CHECKPOINTS, "pictures"):
            if (pocket.folder / name).exists():
                (folder / name).symlink_to((pocket.folder / name).resolve())
        world = json.loads((pocket.folder / WORLD).read_text("utf-8"))
        (folder / WORLD).write_text(json.dumps({**world, "forgotten": forgotten}), "utf-8")
    return folder


def score_held_out(job: Job) -> Job:
    """Scores a job on all held-out photographs, and lets VKD have photographs alone.

    The references are left out: they know other people than the group's.
    """
    pocket = Pocket(Path((job.benchmark or {})["location"]))
    world = pocket.world

    def held_out(people: Sequence[int]) -> list[Sample]:
        shots = [
            s for role in ("holdout", "validation") for s in world.shots_of(list(people), role)
        ]
        return picture_questions(world, shots, np.random.default_rng(3), held_out=True)

    data = job.data
    if job.method is not None and job.method.name == "vkd":
        # As from a user's folders, which hold photographs of people who have a name.
        names = {person.name for person in world.people}
        named = [s for s in data.retain if s.picture is not None and s.concept in names]
        data = Data(data.forget, named)
    return replace(
        job,
        data=data,
        splits={
            "forget_holdout": held_out(world.forgotten),
            "retain_holdout": held_out(world.retained),
            "general": pocket.load("general_validation"),
            "general_forget": pocket.load("general_forget_validation"),
        },
        references={TARGET: job.references[TARGET]},
        metrics=("accuracy",),
    )


def make_row(setting: str, group: int, summary: Summary) -> dict[str, Any]:
    """Returns the row of a variant, or of the target, from a record of the group."""
    measures = summary.measures_of(TARGET if setting == TARGET else "unlearned")
    row = {"setting": setting, "group": group, **facts(summary)}
    row |= accuracies(measures, MEASURES)
    if setting == TARGET:
        del row["seconds"]
    else:
        (attack,) = summary.relearn
        row["curve"] = kept_curve(attack.curve("unlearned"))
    return row


def results_table(rows: Sequence[dict[str, Any]]) -> str:
    """Returns the mean and range over groups of every setting as markdown."""
    lines = []
    for setting in (TARGET, *VARIANTS):
        own = [row for row in rows if row["setting"] == setting]
        if own:
            cells = [mean_and_range([row[key] for row in own]) for key in MEASURES]
            curves = [row["curve"] for row in own if "curve" in row]
            relearned = [
                mean_and_range([curve[i]["value"] for curve in curves], ".2f")
                for i in range(1, len(STEPS))
            ]
            cost = mean_seconds([row["seconds"] for row in own if "seconds" in row])
            lines.append([setting, str(len(own)), *cells, *relearned, cost])
    steps = [f"after {step} steps" for step in STEPS[1:]]
    return table(["setting", "n", *MEASURES, *steps, "seconds"], lines)


def section(rows: Sequence[dict[str, Any]]) -> str:
    """Returns what docs/vkd.md says."""
    return f"Machine: {machines(rows)}.\n\n{results_table(rows)}"


def main() -> None:
    """Runs what is missing, and rewrites the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pocket", type=Path, default=ROOT / "runs" / "photos" / "pocket")
    parser.add_argument("--out", type=Path, default=Path(__file__).with_suffix(".jsonl"))
    parser.add_argument("--groups", default=",".join(map(str, range(GROUPS))))
    parser.add_argument("--only", nargs="*", default=list(VARIANTS))
    parser.add_argument("--jobs", type=int, default=2, help="Processes side by side.")
    options = parser.parse_args()
    rows = read_rows(options.out)
    pocket = Pocket(options.pocket)
    for group in map(int, options.groups.split(",")):
        done = {row["setting"] for row in rows if row["group"] == group}
        missing = [(name, 0) for name in options.only if name not in done]
        out = options.pocket.parent / "strength" / str(group)
        build = build_group(pocket, group, out.with_name(f"pocket-{group}"))
        request = ComparisonRequest(
            "Settings", VARIANTS, benchmark=(f"pocket@{build}",), attacks=(ATTACK,), device="cpu"
        )
        for cell, summary in run_variants(request, missing, out, options.jobs, score_held_out):
            for setting in (cell.entry, TARGET):
                if setting not in done:
                    done.add(setting)
                    append_row(options.out, rows, make_row(setting, group, summary))
    # Rows of another build of the photographs are in a file, and a table, of their own.
    replace_section(DOCS / "vkd.md", options.out.stem, section(rows))


if __name__ == "__main__":
    main()
