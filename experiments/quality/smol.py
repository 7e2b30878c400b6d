"""The figures of docs/results-smol.md: a build from pretrained parts, what is unlearned on it.

    python -m experiments.quality.smol [--parts minimind] [--effort small] [--language TARBALL]
                               [--out runs/smol] [--seed 0] [--most 16] [--write]

What is finished is not done again, what was killed goes on. Target and references, the same for all
recipes, are asked in the first run alone; of every split at most so many questions of pictures and
of names. With --write nothing is run: the page is made of what there is.
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from experiments.pages import ROOT, command
from experiments.quality.pocket import MEASURES
from unsee.progress import bar
from unsee.recipes.catalog import find_recipe
from unsee.recipes.plan import plan
from unsee.recipes.unlearn import read_recipe
from unsee.runs.run import run
from unsee.types import Sample

DOC = ROOT / "docs" / "results-smol.md"


RECIPES = ("smol-vkd-features", "smol-vkd", "smol-grad_diff", "smol-npo")


COLUMNS = {"target": "target", "reference": "visual-retain", "retain_only": "retain-only"}


def found(folder: Path) -> dict[str, Any] | None:
    """A finished run's summary."""
    path = folder / "summary.json"
    return json.loads(path.read_text("utf-8")) if path.exists() else None


def some(samples: Sequence[Sample], most: int, seed: int) -> list[Sample]:
    """At most so many of either modality, drawn; in their order."""
    order = np.random.default_rng(seed).permutation(len(samples))
    drawn: list[int] = []
    for modality in ("vqa", "text"):
        drawn += [i for i in order if samples[i].modality == modality][:most]
    return [samples[i] for i in sorted(drawn)]


def unlearn(
    name: str, build: Path, folder: Path, seed: int, most: int, beside: bool, how: str
) -> None:
    """One recipe's run, with target and references beside it or alone; `how` is what was typed."""
    print(name, flush=True)
    words = [f"data={build}", f"seed={seed}"]
    job, _ = plan(read_recipe(find_recipe(name), words), "run", how)
    job = replace(
        job,
        splits={split: some(samples, most, seed) for split, samples in job.splits.items()},
        references=job.references if beside else {},
    )
    with bar() as shown:
        run(job, folder, shown)


def cell(measures: dict[str, Any] | None, key: str) -> str:
    """One score, with its interval where it has one."""
    measure = (measures or {}).get(key)
    if not measure or measure.get("value") is None:
        return ""
    low, high = measure.get("low"), measure.get("high")
    interval = f" ({low:.2f} to {high:.2f})" if low is not None and high is not None else ""
    return f"{measure['value']:.3f}{interval}"


def quality(runs: dict[str, dict[str, Any]]) -> str:
    """Accuracies of target, references and methods, as a markdown table."""
    first = next(iter(runs.values()))
    titles = ["asked about", *COLUMNS.values(), *runs]
    lines = ["| " + " | ".join(titles) + " |", "| --- " * len(titles) + "|"]
    for title, key in MEASURES.items():
        cells = [cell(first.get(name), key) for name in COLUMNS]
        cells += [cell(summary["measures"], key) for summary in runs.values()]
        lines.append(f"| {title} | " + " | ".join(cells) + " |")
    exact = ["yes" if s["guarantees"]["text_identical"] else "no" for s in runs.values()]
    lines.append("| text exact, bit for bit | | | | " + " | ".join(exact) + " |")
    return "\n".join(lines)


def relearning(runs: dict[str, dict[str, Any]]) -> str:
    """Accuracy on held-out pictures after so many steps of every attack, as a markdown table."""
    lines = ["| share | attacker tunes | model | after steps: accuracy |", "| --- " * 4 + "|"]
    seen: set[tuple[float, str]] = set()
    for name, summary in runs.items():
        for attack in (summary.get("attacks") or {}).get("relearn", []):
            budget = (attack["share"], attack["modules"])
            curves = {name: attack["curves"]["unlearned"]}
            if budget not in seen and "reference" in attack["curves"]:
                curves["visual-retain"] = attack["curves"]["reference"]
            seen.add(budget)
            for model, curve in curves.items():
                points = ", ".join(f"{p['step']}: {p['value']:.3f}" for p in curve)
                lines.append(f"| {budget[0]:.0%} | {budget[1]} | {model} | {points} |")
    return "\n".join(lines)


def built(folder: Path) -> str:
    """What build.json says, in sentences."""
    told = json.loads((folder / "build.json").read_text("utf-8"))
    near = told["nearest_neighbour"]
    packages = ", ".join(dict.fromkeys(part["package"] for part in told["parts"]))
    return (
        f"{told['parameters'] / 1e6:.1f} million parameters from {packages}; {told['people']} "
        f"people, {told['forgotten']} of them to be forgotten; seed {told['seed']}; "
        f"{told['seconds'] / 60:.0f} minutes on {told['threads']} threads of {told['machine']} "
        f"({told['device']}). Who a held-out picture shows, told by its nearest neighbour among "
        f"the training pictures: {near['pixels']:.2f} by raw pixels, {near['tower']:.2f} by the "
        f"tower's mean token, {near['chance']:.2f} by chance."
    )


def page(build: Path, how: str, most: int, runs: dict[str, dict[str, Any]]) -> str:
    """The whole document."""
    text = f"# Results on pretrained parts\n\nWritten by `{how}`. One seed; in brackets the 95 % "
    text += "interval over people, where there is one. Accuracy: the whole answer word for word, "
    text += f"or the right letter; of every split at most {most} questions about pictures and "
    text += f"{most} by name are asked.\n\n## The build\n\n{built(build)}\n"
    absent = [name for name in RECIPES if name not in runs]
    if runs:
        text += f"\n## Quality\n\n{quality(runs)}\n\n## Relearning\n\n{relearning(runs)}\n"
    if absent:
        text += f"\nNot run: {', '.join(absent)}.\n"
    return text


def main() -> None:
    """Builds and runs what is missing, and writes the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--parts", default="minimind", choices=("smol", "minimind"))
    parser.add_argument("--effort", default="small")
    parser.add_argument("--language")
    parser.add_argument("--faces")
    parser.add_argument("--out", type=Path, default=ROOT / "runs" / "smol")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--most", type=int, default=16)
    parser.add_argument("--write", action="store_true")
    options = parser.parse_args()
    out = options.out.resolve()
    build = out / f"{options.parts}-{options.effort}-{options.seed}"
    if not build.exists() and not options.write:
        out.mkdir(parents=True, exist_ok=True)
        words = ["pocket", "build", "--parts", options.parts, "--effort", options.effort]
        words += ["--seed", str(options.seed), "--out", str(build)]
        for name in ("language", "faces"):
            if getattr(options, name):
                words += [f"--{name}", os.path.abspath(getattr(options, name))]
        command(words)
    how = f"python -m experiments.quality.smol --parts {options.parts} --effort {options.effort}"
    how += f" --seed {options.seed} --most {options.most}"
    runs = {}
    for name in RECIPES:
        folder = out / f"{build.name}-{name}"
        if found(folder) is None and not options.write:
            beside = name == RECIPES[0]
            unlearn(name, build, folder, options.seed, options.most, beside, how)
        summary = found(folder)
        if summary is not None:
            runs[name] = summary
        DOC.write_text(page(build, how, options.most, runs), "utf-8")


if __name__ == "__main__":
    main()
