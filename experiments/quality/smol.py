"""The figures of docs/results-smol.md: a build from pretrained parts, and unlearning on it.

    python -m experiments.quality.smol [--parts minimind] [--effort small] [--language TARBALL]
                               [--out runs/smol] [--seed 0] [--most 16] [--write]

Finished runs are not repeated, and runs that were stopped are resumed. The target and the
references do not depend on the method, so only the first run scores them; at most `--most`
questions about pictures and as many by name are asked of every split. `--write` runs nothing and
writes the page from the records.
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from experiments.pages import DOCS, POCKET_MEASURES, ROOT, run_unsee, table
from unsee.progress import bar
from unsee.recipes.catalog import find_recipe
from unsee.recipes.plan import plan
from unsee.recipes.unlearn import read_recipe
from unsee.records.folder import SUMMARY
from unsee.records.reader import read_run
from unsee.records.schema import Measures, Summary
from unsee.runs.run import run
from unsee.types import Sample

RECIPES = ("smol-vkd-features", "smol-vkd", "smol-grad_diff", "smol-npo")


def draw(samples: Sequence[Sample], most: int, seed: int) -> list[Sample]:
    """Returns at most `most` samples of each modality, drawn at random, in their order."""
    order = np.random.default_rng(seed).permutation(len(samples))
    drawn: list[int] = []
    for modality in ("vqa", "text"):
        drawn += [i for i in order if samples[i].modality == modality][:most]
    return [samples[i] for i in sorted(drawn)]


def unlearn(
    name: str, build: Path, folder: Path, seed: int, most: int, references: bool, command: str
) -> None:
    """Runs one recipe.

    Args:
        name: The recipe.
        build: The pocket build.
        folder: The run folder.
        seed: The seed of the run and of the questions that are drawn.
        most: Most questions of each modality and split.
        references: Whether to score the target and the references as well.
        command: What the record says was typed.
    """
    print(name, flush=True)
    overrides = [f"data={build}", f"seed={seed}"]
    job, _ = plan(read_recipe(find_recipe(name), overrides), "run", command)
    job = replace(
        job,
        splits={split: draw(samples, most, seed) for split, samples in job.splits.items()},
        references=job.references if references else {},
    )
    with bar() as progress:
        run(job, folder, progress)


def shown(measures: Measures | None, key: str) -> str:
    """Returns one score, with its interval where it has one."""
    measure = (measures or {}).get(key)
    if measure is None or measure.value is None:
        return ""
    low, high = measure.low, measure.high
    interval = f" ({low:.2f} to {high:.2f})" if low is not None and high is not None else ""
    return f"{measure.value:.3f}{interval}"


def quality_table(runs: Mapping[str, Summary]) -> str:
    """Returns the accuracies of the target, the references and the methods as markdown."""
    first = next(iter(runs.values()))
    unlearned = [summary.measures for summary in runs.values()]
    models = [first.target, first.reference, first.retain_only, *unlearned]
    rows = [
        [title, *(shown(measures, key) for measures in models)]
        for title, key in POCKET_MEASURES.items()
    ]
    exact = [
        "yes" if s.guarantees is not None and s.guarantees.text_identical else "no"
        for s in runs.values()
    ]
    rows.append(["text exact, bit for bit", "", "", "", *exact])
    return table(["asked about", "target", "visual-retain", "retain-only", *runs], rows)


def relearning_table(runs: Mapping[str, Summary]) -> str:
    """Returns the accuracy on held-out pictures along every relearning attack as markdown."""
    rows = []
    budgets: set[tuple[float, str]] = set()
    for name, summary in runs.items():
        for attack in summary.relearn:
            budget = (attack.share, attack.modules)
            curves = {name: attack.curve("unlearned")}
            if budget not in budgets and attack.curve("reference"):
                curves["visual-retain"] = attack.curve("reference")
            budgets.add(budget)
            for model, curve in curves.items():
                points = ", ".join(f"{point.step}: {point.value:.3f}" for point in curve)
                rows.append([f"{attack.share:.0%}", attack.modules, model, points])
    return table(["share", "attacker tunes", "model", "after steps: accuracy"], rows)


def describe_build(folder: Path) -> str:
    """Describes a build from its build.json, in sentences."""
    build = json.loads((folder / "build.json").read_text("utf-8"))
    nearest = build["nearest_neighbour"]
    packages = ", ".join(dict.fromkeys(part["package"] for part in build["parts"]))
    return (
        f"{build['parameters'] / 1e6:.1f} million parameters from {packages}; {build['people']} "
        f"people, {build['forgotten']} of them to be forgotten; seed {build['seed']}; "
        f"{build['seconds'] / 60:.0f} minutes on {build['threads']} threads of {build['machine']} "
        f"({build['device']}). Who a held-out picture shows, told by its nearest neighbour among "
        f"the training pictures: {nearest['pixels']:.2f} by raw pixels, {nearest['tower']:.2f} by "
        f"the tower's mean token, {nearest['chance']:.2f} by chance."
    )


def page(build: Path, command: str, most: int, runs: Mapping[str, Summary]) -> str:
    """Returns docs/results-smol.md."""
    text = (
        f"# Results on pretrained parts\n\nWritten by `{command}`. One seed; in brackets the 95 % "
        "interval over people, where there is one. Accuracy: the whole answer word for word, "
        f"or the right letter; of every split at most {most} questions about pictures and "
        f"{most} by name are asked.\n\n## The build\n\n{describe_build(build)}\n"
    )
    if runs:
        text += f"\n## Quality\n\n{quality_table(runs)}\n"
        text += f"\n## Relearning\n\n{relearning_table(runs)}\n"
    missing = [name for name in RECIPES if name not in runs]
    if missing:
        text += f"\nNot run: {', '.join(missing)}.\n"
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
        run_unsee(words)
    command = (
        f"python -m experiments.quality.smol --parts {options.parts} --effort {options.effort} "
        f"--seed {options.seed} --most {options.most}"
    )
    runs = {}
    for name in RECIPES:
        folder = out / f"{build.name}-{name}"
        if not (folder / SUMMARY).exists() and not options.write:
            first = name == RECIPES[0]
            unlearn(name, build, folder, options.seed, options.most, first, command)
        if (folder / SUMMARY).exists():
            runs[name] = read_run(folder).summary
        text = page(build, command, options.most, runs)
        (DOCS / "results-smol.md").write_text(text, "utf-8")


if __name__ == "__main__":
    main()
