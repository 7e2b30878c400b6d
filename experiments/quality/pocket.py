"""The figures of docs/results-pocket.md and the README: quality over seeds, the demo, the cost.

    python -m experiments.quality.pocket [--seeds 0,1,2] [--out runs/performance]

Runs are real commands in processes of their own; those already there are not run again. The demo
and the costs are measured alone, with all cores; the runs of the quality table side by side, on one
core each.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from experiments.pages import ROOT, _spread, command, value
from unsee.records.provenance import describe_this_machine

DOC, README = ROOT / "docs" / "results-pocket.md", ROOT / "README.md"


BEGIN, END = "<!-- results:begin -->", "<!-- results:end -->"


MEASURES = {
    "forgotten people, held-out pictures": "forget_holdout/vqa/accuracy",
    "forgotten people, pictures trained on": "forget/vqa/accuracy",
    "forgotten people, by name": "forget/text/accuracy",
    "others, held-out pictures": "retain_holdout/vqa/accuracy",
    "others, by name": "retain/text/accuracy",
    "what a stranger's picture shows": "general/vqa/accuracy",
    "what a forgotten person's picture shows": "general_forget/vqa/accuracy",
}


RECIPES = (
    "pocket-vkd",
    "pocket-vkd-features",
    "pocket-grad_diff",
    "pocket-grad_diff-visual",
    "pocket-npo",
    "pocket-npo-visual",
)


UNTIL = (
    ["vkd"],
    ["vkd", "supervision=features"],
    ["grad_diff", "trains=all"],
)


def run(name: str, seed: int, out: Path) -> dict[str, Any]:
    """The summary of a recipe's run, made if it is not there."""
    folder = out / f"{name}-{seed}"
    if not (folder / "summary.json").exists():
        command(["run", name, f"seed={seed}", "attacks=[]", "--out", str(folder)], threads=1)
    found: dict[str, Any] = json.loads((folder / "summary.json").read_text("utf-8"))
    return found


def demo(out: Path) -> dict[str, Any]:
    """Seconds and peak memory of `unsee demo` as a whole process."""
    path = out / "demo.json"
    if not path.exists():
        folder = out / f"demo-{int(time.time())}"
        before = time.perf_counter()
        command(["demo", "--out", str(folder)])
        seconds = time.perf_counter() - before
        # Of all children so far the largest; the demo is the largest of them, and runs first.
        peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024
        summary = json.loads((folder / "summary.json").read_text("utf-8"))
        attacks = [
            {k: a[k] for k in ("share", "modules", "area_to_reference", "steps_to_half_recovery")}
            for a in summary["attacks"]["relearn"]
        ]
        row = {"seconds": seconds, "peak_bytes": peak, "attacks": attacks}
        path.write_text(json.dumps(row) + "\n", "utf-8")
    found: dict[str, Any] = json.loads(path.read_text("utf-8"))
    return found


def until(goal: float, seeds: list[int], out: Path) -> list[dict[str, Any]]:
    """Cost of every method until forget/vqa is at the reference's value, seed by seed in turn."""
    rows = []
    for seed in seeds:
        for words in UNTIL:
            path = out / f"until-{'-'.join(words)}-{seed}.json"
            if not path.exists():
                command = [sys.executable, "-m", "experiments.speed.until", *words, f"seed={seed}"]
                done = subprocess.run(
                    [*command, "--goal", str(goal)],
                    cwd=ROOT,
                    capture_output=True,
                    text=True,
                    check=True,
                )
                path.write_text(done.stdout.splitlines()[-1] + "\n", "utf-8")
            rows.append({"name": " ".join(words), **json.loads(path.read_text("utf-8"))})
    return rows


def quality(runs: dict[str, list[dict[str, Any]]], methods: list[str]) -> str:
    """Accuracies of target, references and methods, as a markdown table."""
    first = runs[methods[0]][0]
    titles = ["asked about", "target", "visual-retain", "retain-only", *methods]
    lines = ["| " + " | ".join(titles) + " |", "| --- " * len(titles) + "|"]
    for title, key in MEASURES.items():
        cells = [value(first[name], key) for name in ("target", "reference", "retain_only")]
        for method in methods:
            values = [summary["measures"][key]["value"] for summary in runs[method]]
            cells.append(_spread(values))
        lines.append(f"| {title} | " + " | ".join(cells) + " |")
    exact = [
        "yes" if all(s["guarantees"]["text_identical"] for s in runs[method]) else "no"
        for method in methods
    ]
    lines.append("| text exact, bit for bit | | | | " + " | ".join(exact) + " |")
    return "\n".join(lines)


def costs(rows: list[dict[str, Any]]) -> str:
    """Cost until forgotten, as a markdown table."""
    keys = {
        "seconds": ("seconds", 1),
        "steps": ("steps", 0),
        "peak memory (MB)": ("peak_memory_mb", 0),
        "trainable parameters": ("trainable_parameters", 0),
        "others, held-out pictures": ("retain_holdout/vqa/accuracy", 3),
        "forgotten people, by name": ("forget/text/accuracy", 3),
    }
    lines = ["| method | reached | " + " | ".join(keys) + " |", "| --- " * (len(keys) + 2) + "|"]
    for name in dict.fromkeys(row["name"] for row in rows):
        mine = [row for row in rows if row["name"] == name]
        reached = f"{sum(row['reached'] for row in mine)} of {len(mine)}"
        cells = [_spread([row[key] for row in mine], digits) for key, digits in keys.values()]
        lines.append(f"| {name} | {reached} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> None:
    """Runs what is missing, and rewrites the documents."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--out", type=Path, default=ROOT / "runs" / "performance")
    options = parser.parse_args()
    seeds = [int(seed) for seed in options.seeds.split(",")]
    options.out.mkdir(parents=True, exist_ok=True)
    shown = demo(options.out)
    pairs = [(name, seed) for name in RECIPES for seed in seeds]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        made = [pool.submit(run, name, seed, options.out) for name, seed in pairs]
        summaries = [one.result() for one in made]
    runs = {
        name: [s for (mine, _), s in zip(pairs, summaries, strict=True) if mine == name]
        for name in RECIPES
    }
    key = "forget/vqa/accuracy"
    goal = runs[RECIPES[0]][0]["reference"][key]["value"]
    rows = until(goal, seeds, options.out)
    short = [name for name in RECIPES if name in ("pocket-vkd", "pocket-vkd-features")]
    peak = shown["peak_bytes"] / 2**30
    intro = (
        f"Written by `python -m experiments.quality.pocket --seeds {options.seeds}` on "
        f"{describe_this_machine()}. Accuracy: the whole answer word for word, or the right "
        f"letter. Mean over {len(seeds)} seeds, range in brackets.\n\n"
    )
    demo_line = f"`unsee demo`, report included: {shown['seconds']:.0f} s, {peak:.2f} GB at most."
    attack_lines = [
        "| share | attacker tunes | area to the reference | steps to half recovery |",
        "| --- | --- | --- | --- |",
    ]
    for attack in shown["attacks"]:
        half = attack["steps_to_half_recovery"]
        attack_lines.append(
            f"| {attack['share']:.0%} | {attack['modules']} | {attack['area_to_reference']:+.3f} | "
            f"{'not within the budget' if half is None else f'{half:.1f}'} |"
        )
    text = (
        f"# Results on pocket\n\n{intro}## Quality\n\n{quality(runs, list(RECIPES))}\n\n"
        f"## Cost until forgotten\n\nEach method trains, at a constant rate, until its accuracy on "
        f"the forget pictures is at the visual-retain reference's {goal:.3f} (looked at every 10 "
        f"steps, off the clock), in a process of its own, the methods in turn.\n\n{costs(rows)}\n\n"
        f"## Relearning (the demo's run, seed 0)\n\n" + "\n".join(attack_lines) + "\n\n"
        f"## The demo\n\n{demo_line}\n"
    )
    DOC.write_text(text, "utf-8")
    page = README.read_text("utf-8")
    table = f"{BEGIN}\n{intro}{quality(runs, short)}\n\n{demo_line} Costs and the "
    table += "relearning attack: [docs/results-pocket.md](docs/results-pocket.md); thirteen "
    table += f"methods\nside by side: [docs/results-compare.md](docs/results-compare.md).\n{END}"
    head, tail = page[: page.index(BEGIN)], page[page.index(END) + len(END) :]
    README.write_text(head + table + tail, "utf-8")


if __name__ == "__main__":
    main()
