"""The files that a meta-evaluation writes: ratings.json, and a page of tables in markdown."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

from unsee.files import write_atomically
from unsee.records.markdown import Table
from unsee.records.provenance import describe_machine
from unsee.studies.ratings import KEPT, ModelRecord, Rating, is_useful, rate
from unsee.studies.results import mean_and_range

RATINGS, TABLE = "ratings.json", "table.md"

# What the table of models shows of how each was made.
SHOWN = ("method", "seed", "start", "steps", "share")

# Open-MMUnlearning, arXiv 2610.10358, section 5, on MLLMU-Bench; classification is our accuracy.
PUBLISHED = {
    "bleu": 0.950,
    "rouge_l": 0.921,
    "truth_ratio": 0.896,
    "ks": 0.888,
    "probability": 0.887,
    "grad_norm": 0.873,
    "loss": 0.817,
    "js": 0.793,
    "zlib": 0.793,
    "cloze": 0.766,
    "min_k": 0.755,
    "accuracy": 0.740,
    "min_k_plus": 0.493,
}

MEANING = (
    "`faithfulness` is the ROC-AUC between models that saw the people to be forgotten and models "
    "that never did, with its 95 % interval over models; `relearning` and `quantization` are the "
    "means of R and Q over unlearned models, `robustness` is their harmonic mean, and `overall` "
    "that of faithfulness and robustness. 1 is best. `models` is the number of unlearned models "
    f"that kept {100 * KEPT:g} % of the target's utility and that the metric itself calls "
    "unlearned; without any, the ratings that need them are empty. `saw` and `never saw` are the "
    "metric's means over the two pools. `published` is the reliability that Open-MMUnlearning "
    "(arXiv 2610.10358) found on models of 7 billion parameters."
)


def write(
    records: Sequence[ModelRecord],
    failed: Mapping[str, str],
    out: Path,
    table: Path,
    command: str,
) -> list[Rating]:
    """Writes ratings.json and the page.

    Args:
        records: The models.
        failed: Why other models failed, by name.
        out: The folder of the meta-evaluation.
        table: The markdown page.
        command: The command that the page says it was written by.

    Returns:
        The ratings, best first.
    """
    ratings = rate(records)
    text = json.dumps([asdict(rating) for rating in ratings], indent=1)
    write_atomically(out / RATINGS, text + "\n")
    table.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(table, page(ratings, records, failed, command))
    return ratings


def page(
    ratings: Sequence[Rating],
    records: Sequence[ModelRecord],
    failed: Mapping[str, str],
    command: str,
) -> str:
    """Returns ratings and models as markdown.

    Args:
        ratings: The ratings, best first.
        records: The models.
        failed: Why other models failed, by name.
        command: The command that the page says it was written by.
    """
    seconds = sum(record.seconds for record in records)
    counts = {kind: sum(r.kind == kind for r in records) for kind in ("saw", "unseen", "unlearned")}
    title = (
        f"# Metrics judged on {counts['saw']} models that saw, {counts['unseen']} that never saw "
        f"and {counts['unlearned']} unlearned"
    )
    intro = (
        f"Written by `{command}` on {describe_machine(records[0].provenance)}: "
        f"{len(records)} models, "
        f"{seconds / 60:.0f} minutes of processor time."
    )
    tables = [_ratings_table(ratings), _models_table(records)]
    parts = [title, intro, MEANING, *(table.markdown().rstrip() for table in tables)]
    parts += [f"Failed: {name}: {' '.join(why.split())}" for name, why in failed.items()]
    return "\n\n".join(parts) + "\n"


def _ratings_table(ratings: Sequence[Rating]) -> Table:
    head = [
        "metric",
        "overall",
        "faithfulness",
        "robustness",
        "relearning",
        "quantization",
        "models",
        "saw",
        "never saw",
        "published",
    ]
    rows = [
        [
            rating.metric,
            _number(rating.overall),
            f"{rating.faithfulness:.3f} ({rating.low:.3f} to {rating.high:.3f})",
            *(_number(v) for v in (rating.robustness, rating.relearning, rating.quantization)),
            str(rating.models),
            _number(rating.saw),
            _number(rating.unseen),
            _number(PUBLISHED.get(rating.metric)),
        ]
        for rating in ratings
    ]
    return Table(head, rows, "Metrics")


def _models_table(records: Sequence[ModelRecord]) -> Table:
    (target,) = (r for r in records if r.kind == "target")
    head = ["model", "made by", "utility", "accuracy", "probability", "when relearned"]
    rows = []
    for record in records:
        counted = record.kind != "unlearned" or is_useful(record, target)
        rows.append(
            [
                record.name,
                ", ".join(f"{key} {record.made[key]}" for key in SHOWN if key in record.made),
                _number(record.utility) + ("" if counted else " (too low to count)"),
                *(_number(record.before.get(name)) for name in ("accuracy", "probability")),
                _number(record.stage("relearned").get("probability")),
            ]
        )
    return Table(head, rows, "Models")


def _number(value: float | None) -> str:
    return mean_and_range([] if value is None else [value])
