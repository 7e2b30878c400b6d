"""Variants of a method, run by the same code as `unsee ablate`, for the experiments' records."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from unsee.benchmarks.pocket import Pocket
from unsee.recipes.job import Job
from unsee.records.provenance import describe_machine
from unsee.records.reader import read_run
from unsee.records.schema import CurvePoint, Measures, Provenance, Summary
from unsee.studies.comparison import Adapt, Cell, ComparisonRequest, compare

# Pocket's validation splits, by the reported split that each stands in for.
VALIDATION = {
    "forget_holdout": "forget_validation",
    "retain_holdout": "retain_validation",
    "general": "general_validation",
    "general_forget": "general_forget_validation",
}


def run_variants(
    request: ComparisonRequest,
    missing: Iterable[tuple[str, int]],
    out: Path,
    jobs: int,
    adapt: Adapt,
) -> Iterator[tuple[Cell, Summary]]:
    """Runs variants that have no row yet, on one thread each, and yields their records.

    A variant that fails is reported, and the others continue.

    Args:
        request: The comparison, with all entries.
        missing: The entries and seeds that have no row.
        out: The comparison's folder; finished runs in it are not repeated.
        jobs: Number of runs side by side.
        adapt: Changes each job before it runs.
    """
    # A run's result is then the same however many run side by side.
    os.environ["OMP_NUM_THREADS"] = "1"
    by_seed: dict[int, list[str]] = {}
    for entry, seed in missing:
        by_seed.setdefault(seed, []).append(entry)
    for seed, entries in by_seed.items():
        chosen = {entry: request.entries[entry] for entry in entries}
        part = replace(request, entries=chosen, seeds=(seed,), set={"save_every": 0})
        for cell in compare(part, out, jobs, on_done=_print_done, adapt=adapt):
            if cell.error is None:
                yield cell, read_run(cell.folder).summary


def _print_done(name: str, error: str | None) -> None:
    print(f"{name}: {error or 'done'}", flush=True)


def facts(summary: Summary) -> dict[str, Any]:
    """Returns the seconds of training and the machine of a record, as rows hold them."""
    provenance = summary.provenance or Provenance()
    seconds = summary.cost.seconds if summary.cost is not None else None
    return {"seconds": seconds, "machine": describe_machine(provenance)}


def kept_curve(curve: Iterable[CurvePoint]) -> list[dict[str, Any]]:
    """Returns the points of an attack's curve as rows hold them."""
    return [{"step": point.step, "value": point.value} for point in curve]


def mean_seconds(seconds: Sequence[float]) -> str:
    """Returns the mean of seconds as a cell; empty without any."""
    return f"{sum(seconds) / len(seconds):.0f}" if seconds else ""


def accuracies(measures: Measures, keys: Mapping[str, str]) -> dict[str, float]:
    """Returns a record's measures under the keys of rows.

    Args:
        measures: The measures.
        keys: The key of the measure, by the key of the row; missing measures are left out.
    """
    return {row: measures[key].value or 0.0 for row, key in keys.items() if key in measures}


def score_validation(job: Job) -> Job:
    """Scores a job of pocket on its validation splits in place of the reported ones."""
    pocket = Pocket(_location(job))
    splits = {name: pocket.load(split) for name, split in VALIDATION.items()}
    return _score(job, pocket, splits, "validation")


def score_reported(job: Job) -> Job:
    """Scores a job of pocket on its reported splits of held-out pictures."""
    pocket = Pocket(_location(job))
    splits = {name: pocket.load(name) for name in VALIDATION}
    return _score(job, pocket, splits, "reported")


def _score(job: Job, pocket: Pocket, splits: Mapping[str, Any], which: str) -> Job:
    """The job with accuracy alone measured on the splits, and on the forgotten people by name."""
    by_name = [sample for sample in pocket.load("forget") if sample.modality == "text"]
    return replace(
        job,
        splits={**splits, "forget": by_name},
        metrics=("accuracy",),
        benchmark={**(job.benchmark or {}), "splits": which},
    )


def _location(job: Job) -> Path | None:
    location = (job.benchmark or {}).get("location")
    return Path(location) if location is not None else None
