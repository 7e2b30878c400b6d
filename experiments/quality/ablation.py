"""The VKD study on pocket: every part off, every alternative, over seeds; writes docs/vkd.md.

    python -m experiments.quality.ablation [--seeds 0,1,2] [--only NAME ...] [--jobs 2] [--out FILE]

The variants are those of `unsee ablate vkd`. Every variant and seed is one row of the JSONL file;
existing rows are not measured again, so the command can be stopped and repeated. Variants are
scored on pocket's validation splits, which are neither trained on nor reported; the default's
reported splits are in docs/results-pocket.md.
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
from experiments.variants import accuracies, facts, run_variants, score_validation
from unsee.records.schema import Summary
from unsee.studies.ablation import variants
from unsee.studies.comparison import ComparisonRequest

VARIANTS = variants("vkd")
MODELS = ("target", "visual_retain", "retain_only")
ATTACK = {"share": 0.2, "steps": 20, "modules": "visual", "checkpoints": [20]}

# The columns of the table, by the key of a row.
COLUMNS = {
    "forget_validation/vqa/accuracy": "forget",
    "retain_validation/vqa/accuracy": "retain",
    "general_validation/vqa/accuracy": "general",
    "general_forget_validation/vqa/accuracy": "general, forgotten",
    "forget/text/accuracy": "text",
    "relearned": "relearned",
}

# The keys of rows, and the measures in records whose held-out splits are the validation splits.
MEASURES = {
    "forget_validation/vqa/accuracy": "forget_holdout/vqa/accuracy",
    "retain_validation/vqa/accuracy": "retain_holdout/vqa/accuracy",
    "general_validation/vqa/accuracy": "general/vqa/accuracy",
    "general_forget_validation/vqa/accuracy": "general_forget/vqa/accuracy",
    "forget/text/accuracy": "forget/text/accuracy",
}


def variant_row(variant: str, seed: int, summary: Summary) -> dict[str, Any]:
    """Returns the row of a variant's run."""
    row = {"variant": variant, "seed": seed, **facts(summary)}
    row |= accuracies(summary.measures_of("unlearned"), MEASURES)
    row["relearned"] = summary.relearn[0].curve("unlearned")[-1].value
    return row


def model_row(model: str, summary: Summary) -> dict[str, Any]:
    """Returns the row of the target or a reference, which any variant's record has."""
    measures = summary.measures_of("reference" if model == "visual_retain" else model)
    row = {"variant": model, "seed": 0, "machine": facts(summary)["machine"]}
    return row | accuracies(measures, MEASURES)


def results_table(rows: Sequence[dict[str, Any]]) -> str:
    """Returns the mean and range over seeds of every variant as markdown."""
    lines = []
    for name, title in titles(rows, "variant", [*MODELS, *VARIANTS]).items():
        own = [row for row in rows if row["variant"] == name]
        values = [[row[key] for row in own if row.get(key) is not None] for key in COLUMNS]
        lines.append([title, str(len(own)), *map(mean_and_range, values)])
    return table(["variant", "n", *COLUMNS.values()], lines)


def section(rows: Sequence[dict[str, Any]]) -> str:
    """Returns what docs/vkd.md says of the study."""
    return (
        "Mean over seeds (range). `general, forgotten`: what anyone can see in the forgotten "
        "people's pictures, which earlier rows lack. `relearned`: accuracy on the held-out forget "
        "pictures after a relearning attack that has 20 % of the forget samples and tunes the "
        "visual part for 20 steps. "
        f"Machine: {machines(rows)}.\n\n{results_table(rows)}"
    )


def main() -> None:
    """Runs what is missing, and rewrites the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--only", nargs="*", default=list(VARIANTS))
    parser.add_argument("--out", type=Path, default=Path(__file__).with_suffix(".jsonl"))
    parser.add_argument("--jobs", type=int, default=2, help="Processes side by side.")
    options = parser.parse_args()
    rows = read_rows(options.out)
    done = {(row["variant"], row["seed"]) for row in rows}
    seeds = [int(seed) for seed in options.seeds.split(",")]
    missing = [(name, s) for s in seeds for name in options.only if (name, s) not in done]
    request = ComparisonRequest("Parts of vkd", VARIANTS, attacks=(ATTACK,), device="cpu")
    folder = ROOT / "runs" / "ablation"
    for cell, summary in run_variants(request, missing, folder, options.jobs, score_validation):
        append_row(options.out, rows, variant_row(cell.entry, cell.seed, summary))
        for model in MODELS:
            if not any(row["variant"] == model for row in rows):
                append_row(options.out, rows, model_row(model, summary))
    replace_section(DOCS / "vkd.md", "ablation", section(rows))


if __name__ == "__main__":
    main()
