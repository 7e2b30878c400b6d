"""The figures of docs/results-pocket.md and the README: quality over seeds, the demo, the cost.

    python -m experiments.quality.pocket [--seeds 0,1,2] [--out runs/performance]

Every run is an `unsee` command in a process of its own; finished runs are not repeated. The demo
and the costs are measured one at a time on all cores; the runs of the quality table run side by
side, on one core each.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

from experiments.pages import (
    DOCS,
    POCKET_MEASURES,
    ROOT,
    load_or_make,
    mean_and_range,
    replace_section,
    rows_that_begin,
    run_module,
    run_once,
    run_unsee,
    shown_value,
    table,
)
from unsee.records.provenance import describe_this_machine
from unsee.records.reader import read_run
from unsee.records.schema import Summary

RECIPES = (
    "pocket-vkd",
    "pocket-vkd-features",
    "pocket-grad_diff",
    "pocket-grad_diff-visual",
    "pocket-npo",
    "pocket-npo-visual",
)
SITE = "https://unsee-ml.github.io/unsee/"
README_RECIPES = ("pocket-vkd", "pocket-vkd-features")
# Beginnings of the rows that the README shows.
README_ROWS = (
    "| forgotten people, held-out",
    "| forgotten people, by name",
    "| others, held-out",
    "| what a forgotten",
    "| text exact",
)

# Methods, with their fields, whose cost is measured by `experiments.speed.until_forgotten`.
TIMED = (
    ["vkd", "paper=true"],
    ["vkd", "paper=true", "supervision=features"],
    ["grad_diff", "trains=all"],
)

# Columns of the cost table: the key of a row, and how it is shown.
COSTS = {
    "seconds": ("seconds", ".1f"),
    "steps": ("steps", ".0f"),
    "peak memory (MB)": ("peak_memory_mb", ".0f"),
    "trainable parameters": ("trainable_parameters", ".0f"),
    "others, held-out pictures": ("retain_holdout/vqa/accuracy", ".3f"),
    "forgotten people, by name": ("forget/text/accuracy", ".3f"),
}


def run_recipe(name: str, seed: int, out: Path) -> Summary:
    """Returns the record of a recipe's run without attacks."""
    words = ["run", name, f"seed={seed}", "attacks=[]"]
    return run_once(out / f"{name}-{seed}", words, threads=1)


def measure_demo(out: Path) -> dict[str, Any]:
    """Measures the seconds and the peak memory of `unsee demo` as a whole process."""
    folder = out / f"demo-{int(time.time())}"
    before = time.perf_counter()
    run_unsee(["demo", "--out", str(folder)])
    seconds = time.perf_counter() - before
    # The largest child process so far; the demo is the largest of them, and runs first.
    import resource  # missing on Windows

    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024
    keys = {"share", "modules", "area_to_reference", "steps_to_half_recovery"}
    attacks = [attack.model_dump(include=keys) for attack in read_run(folder).summary.relearn]
    return {"seconds": seconds, "peak_bytes": peak, "attacks": attacks}


def measure_costs(goal: float, seeds: Sequence[int], out: Path) -> list[dict[str, Any]]:
    """Measures every method's cost until forget/vqa/accuracy is at `goal`, one seed after another.

    Args:
        goal: The visual-retain reference's accuracy.
        seeds: The seeds.
        out: The folder that keeps one file a measurement.
    """
    rows = []
    for seed in seeds:
        for words in TIMED:
            options = [*words, f"seed={seed}", "--goal", str(goal)]
            make = partial(run_module, "experiments.speed.until_forgotten", options)
            row = load_or_make(out / f"until-{'-'.join(words)}-{seed}.json", make)
            rows.append({"name": " ".join(words), **row})
    return rows


def quality_table(runs: Mapping[str, Sequence[Summary]]) -> str:
    """Returns the accuracies of the target, the references and the methods as markdown."""
    first = next(iter(runs.values()))[0]
    rows = []
    for title, key in POCKET_MEASURES.items():
        models = (first.target, first.reference, first.retain_only)
        values = [
            [summary.measures[key].value for summary in summaries if summary.measures]
            for summaries in runs.values()
        ]
        rows.append(
            [
                title,
                *(shown_value(measures, key) for measures in models),
                *(mean_and_range([v for v in some if v is not None]) for some in values),
            ]
        )
    rows.append(["text exact, bit for bit", "", "", "", *map(_text_exact, runs.values())])
    return table(["asked about", "target", "visual-retain", "retain-only", *runs], rows)


def _text_exact(summaries: Sequence[Summary]) -> str:
    exact = all(
        summary.guarantees is not None and summary.guarantees.text_identical
        for summary in summaries
    )
    return "yes" if exact else "no"


def cost_table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Returns the cost until forgotten as markdown."""
    lines = []
    for name in dict.fromkeys(row["name"] for row in rows):
        own = [row for row in rows if row["name"] == name]
        reached = f"{sum(row['reached'] for row in own)} of {len(own)}"
        cells = [mean_and_range([r[key] for r in own], shape) for key, shape in COSTS.values()]
        lines.append([name, reached, *cells])
    return table(["method", "reached", *COSTS], lines)


def attack_table(attacks: Sequence[Mapping[str, Any]]) -> str:
    """Returns the demo's relearning attacks as markdown."""
    rows = []
    for attack in attacks:
        half = attack["steps_to_half_recovery"]
        rows.append(
            [
                f"{attack['share']:.0%}",
                attack["modules"],
                f"{attack['area_to_reference']:+.3f}",
                "not within the budget" if half is None else f"{half:.1f}",
            ]
        )
    head = ["share", "attacker tunes", "area to the reference", "steps to half recovery"]
    return table(head, rows)


def main() -> None:
    """Runs what is missing, and rewrites the pages."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--out", type=Path, default=ROOT / "runs" / "performance")
    options = parser.parse_args()
    seeds = [int(seed) for seed in options.seeds.split(",")]
    out: Path = options.out
    demo = load_or_make(out / "demo.json", lambda: measure_demo(out))
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        pending = {
            name: [pool.submit(run_recipe, name, seed, out) for seed in seeds] for name in RECIPES
        }
        runs = {name: [run.result() for run in some] for name, some in pending.items()}
    reference = runs[RECIPES[0]][0].reference or {}
    goal = float(reference["forget/vqa/accuracy"].value or 0.0)
    costs = measure_costs(goal, seeds, out)
    intro = (
        f"Written by `python -m experiments.quality.pocket --seeds {options.seeds}` on "
        f"{describe_this_machine()}. Accuracy: the whole answer word for word, or the right "
        f"letter. Mean over {len(seeds)} seeds, range in brackets.\n\n"
    )
    peak = demo["peak_bytes"] / 2**30
    demo_line = f"`unsee demo`, report included: {demo['seconds']:.0f} s, {peak:.2f} GB at most."
    page = (
        f"# Results on pocket\n\n{intro}## Quality\n\n{quality_table(runs)}\n\n"
        f"## Cost until forgotten\n\nEach method trains at a constant rate until its accuracy on "
        f"the forget pictures reaches the visual-retain reference's {goal:.3f} (checked every 10 "
        f"steps, which is not counted in the seconds). Each runs in a process of its own, one "
        f"after another.\n\n{cost_table(costs)}\n\n"
        f"## Relearning (the demo's run, seed 0)\n\n{attack_table(demo['attacks'])}\n\n"
        f"## The demo\n\n{demo_line}\n"
    )
    (DOCS / "results-pocket.md").write_text(page, "utf-8")
    whole = quality_table({name: runs[name] for name in README_RECIPES})
    short = rows_that_begin(whole, README_ROWS)
    section = (
        f"{intro}{short}\n\n{demo_line} [Costs and the relearning attack]"
        f"({SITE}results-pocket/); [thirteen methods compared]({SITE}results-compare/)."
    )
    replace_section(ROOT / "README.md", "results", section)


if __name__ == "__main__":
    main()
