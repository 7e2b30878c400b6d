"""What retraining the visual part alone gives, and how keep-distillation leaks; in docs/robust.md.

    python -m experiments.quality.refit [--steps 600] [--out FILE.jsonl]

Two models start from the target's language part and the visual weights from before the people were
learned, and never see a picture of the forgotten people:

- visual-refit is trained on the retained answers (`unsee finetune ... who=visual_refit`);
- keep-distilled is trained to give the target's features of the kept pictures, at all layers.

Both are scored on pocket's validation splits and attacked as the variants of robust.py, with a
fifth of the forget pictures. Every model is one row of the JSONL file, of the form of robust.jsonl,
from which the other rows of the table are read; existing rows are not measured again.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import Tensor

from experiments.pages import (
    DOCS,
    ROOT,
    append_row,
    machines,
    read_rows,
    replace_section,
    run_unsee,
    table,
)
from experiments.quality.robust import ATTACKERS, MEASURES, STEPS
from experiments.variants import accuracies, facts, kept_curve, score_validation
from unsee.attacks.relearn import Relearn
from unsee.benchmarks.pocket import Pocket
from unsee.features.capture import picture_features
from unsee.features.layers import choose_layers
from unsee.features.pictures import picture_batches
from unsee.features.statistics import layer_statistics, scaled_distance
from unsee.models.vlm import VLM
from unsee.progress import Bar
from unsee.recipes.finetune import make_finetune
from unsee.recipes.job import Job
from unsee.recipes.plan_finetune import plan_finetune
from unsee.records.schema import Summary
from unsee.runs.finetune import RECORD, starting_model
from unsee.runs.run import run
from unsee.training.loop import fit
from unsee.training.sampling import batch_indices
from unsee.training.settings import TrainingSettings

FOLDER = ROOT / "runs" / "refit"
RATE, BATCH, SEED = 1e-3, 16, 0
ATTACKER = "20% visual"

# Rows of the table in order; the first three are read from robust.jsonl.
KNOWN = (
    "visual-retain",
    "paper (200 steps, not attacked)",
    "robust (pictures, w_keep 80, 20 inner steps)",
)
MADE = ("visual-refit", "keep-distilled")


def refit(steps: int) -> Path:
    """Makes the visual-refit reference with one command; returns its folder."""
    out = FOLDER / "visual-refit"
    if not (out / RECORD).exists():
        words = ["finetune", "finetune-pocket-full", "who=visual_refit", "parts=visual"]
        words += [f"steps={steps}", f"batch_size={BATCH}", f"lr={RATE}", "save_every=0"]
        run_unsee([*words, "--out", str(out)], threads=1)
    return out / "visual_refit"


def distil_kept(steps: int) -> Path:
    """Makes the keep-distilled model; returns its folder."""
    out = FOLDER / "keep-distilled"
    if not out.exists():
        recipe = make_finetune({"benchmark": "pocket", "who": "visual_refit"})
        student = starting_model(plan_finetune(recipe), "visual_refit")
        teacher = VLM.load(Pocket().checkpoint("target"))
        pictures = {s.picture.source: s.picture for s in Pocket().data().retain if s.picture}
        kept = list(pictures.values())
        names = choose_layers(teacher, ["all"])
        statistics = layer_statistics(teacher, picture_batches(teacher, kept), names)
        teacher.model.requires_grad_(False)
        student.model.requires_grad_(False)

        def step(number: int) -> Mapping[str, Tensor]:
            rows = batch_indices(len(kept), BATCH, number, SEED)
            inputs = student.collate_pictures([kept[i].open() for i in rows])
            wanted = picture_features(teacher, inputs, names)
            features = picture_features(student, inputs, names)
            terms = [
                scaled_distance(features[n], wanted[n], statistics[n][1]).mean() for n in names
            ]
            return {"keep": sum(terms[1:], terms[0]) / len(terms)}

        settings = TrainingSettings(steps=steps, lr=RATE, batch_size=BATCH, save_every=0, seed=SEED)
        fit(student.parameters("visual"), step, settings)
        student.save(out)
    return out


def audit(name: str, model: Path) -> Summary:
    """Scores and attacks a model on pocket's validation splits; returns the record."""
    pocket = Pocket()
    attack = Relearn(**ATTACKERS[ATTACKER], steps=STEPS[-1], checkpoints=STEPS)  # type: ignore[arg-type]
    job = Job(
        kind="audit",
        command="python -m experiments.quality.refit",
        recipe=f"# python -m experiments.quality.refit\nmodel: {name}\n",
        model=model,
        data=pocket.data(),
        splits={},
        attacks=[(attack,)],
        references={
            "target": pocket.checkpoint("target"),
            "reference": pocket.checkpoint("visual_retain"),
        },
        forgetting=("forget", "forget_holdout"),
        device="cpu",
    )
    job = replace(score_validation(job), benchmark=pocket.metadata())
    finished = run(job, FOLDER / f"audit-{name}", Bar(None), FOLDER / "references")
    if finished is None:
        raise RuntimeError("the audit was not run by the main process.")
    return finished.summary


def make_row(name: str, summary: Summary) -> dict[str, Any]:
    """Returns the row of a model, in the form of robust.jsonl."""
    curve = summary.relearn[0].curve("unlearned")
    return {
        "variant": name,
        "seed": SEED,
        "where": "validation",
        **facts(summary),
        **accuracies(summary.measures_of("unlearned"), MEASURES),
        "curves": {ATTACKER: kept_curve(curve)},
    }


def results_table(rows: Sequence[dict[str, Any]]) -> str:
    """Returns accuracies, and accuracy along the attack, as markdown."""
    lines = []
    for name in (*KNOWN, *MADE):
        row = next((r for r in rows if r["variant"] == name and r["seed"] == SEED), None)
        if row is not None:
            points = {point["step"]: point["value"] for point in row["curves"][ATTACKER]}
            values = [*(row[key] for key in MEASURES), *(points[step] for step in STEPS[1:])]
            lines.append([name, *(f"{value:.3f}" for value in values)])
    return table(["model", *MEASURES, *(f"{step} steps" for step in STEPS[1:])], lines)


def section(rows: Sequence[dict[str, Any]], others: Sequence[dict[str, Any]]) -> str:
    """Returns the section of docs/robust.md.

    Args:
        rows: The rows of this experiment.
        others: The rows of robust.jsonl.
    """
    known = [row for row in others if row["where"] == "validation"]
    return f"Machine: {machines(rows)}.\n\n{results_table([*known, *rows])}"


def main() -> None:
    """Makes and measures what is missing, and rewrites the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=600, help="Training steps of both models.")
    parser.add_argument("--out", type=Path, default=Path(__file__).with_suffix(".jsonl"))
    options = parser.parse_args()
    rows = read_rows(options.out)
    for name, make in zip(MADE, (refit, distil_kept), strict=True):
        if name not in {row["variant"] for row in rows}:
            append_row(options.out, rows, make_row(name, audit(name, make(options.steps))))
    others = read_rows(Path(__file__).with_name("robust.jsonl"))
    replace_section(DOCS / "robust.md", "refit", section(rows, others))


if __name__ == "__main__":
    main()
