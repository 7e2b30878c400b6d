"""What resists relearning: variants of VKD under four attackers; the tables of docs/robust.md.

    python -m experiments.quality.robust [--seeds 0] [--only NAME ...] [--jobs 2] [--out FILE.jsonl]

The variants are those of variants/robust.yaml, run by the same code as `unsee ablate`. Every
variant, seed and choice of splits is one row of the JSONL file; existing rows are not measured
again. Variants are scored on pocket's validation splits; some, the default and the presets among
them, also on the reported ones, with seeds 0, 1 and 2.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from experiments.pages import (
    DOCS,
    ROOT,
    append_row,
    machines,
    mean_and_range,
    read_rows,
    replace_section,
    table,
    titles,
)
from experiments.variants import (
    accuracies,
    facts,
    kept_curve,
    mean_seconds,
    run_variants,
    score_reported,
    score_validation,
)
from unsee.attacks.relearn import area_between
from unsee.records.schema import CurvePoint, Summary
from unsee.studies.ablation import variants
from unsee.studies.comparison import ComparisonRequest

VARIANTS = variants("vkd", Path(__file__).parent / "variants" / "robust.yaml")

# Models that stand beside the variants, by the name of their rows.
MODELS = {"target": "target", "visual-retain": "reference"}

# Variants that are also scored on the reported splits.
REPORTED = (
    "default",
    "paper (200 steps, not attacked)",
    "answers, every 2nd step: 10 inner steps",
    "answers, w_keep 50",
    "pictures, w_keep 100: 20 inner steps",
    "robust (pictures, w_keep 80, 20 inner steps)",
)
REPORTED_SEEDS = (0, 1, 2)

STEPS = (0, 5, 10, 20, 40)
ATTACKERS = {
    f"{share:.0%} {modules}": {"share": share, "modules": modules}
    for modules in ("visual", "all")
    for share in (0.2, 1.0)
}
SCORED = {"validation": score_validation, "reported": score_reported}

# The keys of rows, which are the columns as well, and the measures in records.
MEASURES = {
    "forget": "forget_holdout/vqa/accuracy",
    "retain": "retain_holdout/vqa/accuracy",
    "general": "general/vqa/accuracy",
    "text": "forget/text/accuracy",
}


def make_row(name: str, seed: int, where: str, summary: Summary) -> dict[str, Any]:
    """Returns the row of a variant, or of one of `MODELS`, from a run's record.

    Args:
        name: The variant or the model.
        seed: The seed of the run.
        where: "validation" or "reported".
        summary: The record of the variant, or of any variant with that seed.
    """
    model = MODELS.get(name, "unlearned")
    row = {"variant": name, "seed": seed, "where": where, **facts(summary)}
    if name in MODELS:
        del row["seconds"]
    row |= accuracies(summary.measures_of(model), MEASURES)
    curves = zip(ATTACKERS, (attack.curve(model) for attack in summary.relearn), strict=True)
    row["curves"] = {title: kept_curve(curve) for title, curve in curves if curve}
    return row


def points(curve: Sequence[dict[str, Any]]) -> list[CurvePoint]:
    """Returns a stored curve as points."""
    return [CurvePoint(**point) for point in curve]


def results_table(rows: Sequence[dict[str, Any]]) -> str:
    """Returns accuracies, and the areas to the reference's relearning curves, as markdown."""
    references = {row["seed"]: row["curves"] for row in rows if row["variant"] == "visual-retain"}
    lines = []
    for name, title in titles(rows, "variant", [*MODELS, *VARIANTS]).items():
        own = [row for row in rows if row["variant"] == name]
        areas = [
            [
                area
                for row in own
                if attacker in row["curves"] and row["seed"] in references
                for area in [
                    area_between(
                        points(row["curves"][attacker]),
                        points(references[row["seed"]][attacker]),
                    )
                ]
                if area is not None
            ]
            for attacker in ATTACKERS
        ]
        seconds = [] if name in MODELS else [row["seconds"] for row in own]
        lines.append(
            [
                title,
                str(len(own)),
                *(mean_and_range([row[key] for row in own]) for key in MEASURES),
                *(mean_and_range(values, "+.3f") for values in areas),
                mean_seconds(seconds),
            ]
        )
    return table(["variant", "n", *MEASURES, *ATTACKERS, "seconds"], lines)


def curves_table(rows: Sequence[dict[str, Any]]) -> str:
    """Returns the accuracy along every attack, for the reported variants, as markdown."""
    lines = []
    for title in ATTACKERS:
        for name in ("visual-retain", *REPORTED):
            curves = [row["curves"][title] for row in rows if row["variant"] == name]
            if curves:
                values = [[curve[i]["value"] for curve in curves] for i in range(len(STEPS))]
                lines.append([title, name, *(mean_and_range(some, ".2f") for some in values)])
    head = ["attacker has, tunes", "variant", *(f"{step} steps" for step in STEPS)]
    return table(head, lines)


def sections(rows: Sequence[dict[str, Any]]) -> dict[str, str]:
    """Returns the tables of docs/robust.md, by the name of their section."""
    where = {name: [row for row in rows if row["where"] == name] for name in SCORED}
    reported, validation = where["reported"], where["validation"]
    return {
        "reported": f"Machine: {machines(reported)}.\n\n{results_table(reported)}\n\n"
        f"{curves_table(reported)}",
        "validation": f"Machine: {machines(validation)}.\n\n{results_table(validation)}",
    }


def main() -> None:
    """Runs what is missing, and rewrites the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", default="0", help="Of the variants on the validation splits.")
    parser.add_argument("--only", nargs="*", default=list(VARIANTS))
    parser.add_argument("--out", type=Path, default=Path(__file__).with_suffix(".jsonl"))
    parser.add_argument("--jobs", type=int, default=2, help="Processes side by side.")
    options = parser.parse_args()
    rows = read_rows(options.out)
    wanted = {
        "reported": [(name, seed) for name in REPORTED for seed in REPORTED_SEEDS],
        "validation": [(name, int(seed)) for name in VARIANTS for seed in options.seeds.split(",")],
    }
    attacks = [
        {**attacker, "steps": STEPS[-1], "checkpoints": list(STEPS)}
        for attacker in ATTACKERS.values()
    ]
    request = ComparisonRequest("What resists", VARIANTS, attacks=attacks, device="cpu")
    for where, pairs in wanted.items():
        done = {(row["variant"], row["seed"]) for row in rows if row["where"] == where}
        missing = [pair for pair in pairs if pair not in done and pair[0] in options.only]
        folder = ROOT / "runs" / "robust" / where
        runs = run_variants(request, missing, folder, options.jobs, SCORED[where])
        for cell, summary in runs:
            for name in (cell.entry, *MODELS):
                if (name, cell.seed) not in done:
                    done.add((name, cell.seed))
                    append_row(options.out, rows, make_row(name, cell.seed, where, summary))
    for name, body in sections(rows).items():
        replace_section(DOCS / "robust.md", name, body)


if __name__ == "__main__":
    main()
