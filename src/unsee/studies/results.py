"""What a comparison found: numbers of every cell, means and ranges over seeds, ranks."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from unsee.records.folder import SCORES, SUMMARY
from unsee.records.provenance import describe_machine
from unsee.records.schema import Provenance
from unsee.studies.comparison import Cell, finished
from unsee.studies.scores import Attacked, score

# Columns in order, with how many decimals they show.
COLUMNS = {
    "rank": 1, "distance": 3, "largest gap": 3, "distance under attack": 3,
    "FQ": 3, "MU": 3, "robustness": 3, "overall": 3,
    "seconds": 1, "memory (MB)": 0, "trained parameters": 0,
}  # fmt: skip


BESIDE = {"target": "target", "reference": "visual-retain", "retain_only": "retain-only"}


@dataclass(frozen=True)
class Result:
    """A cell with what its record holds.

    Attributes:
        cell: The run.
        numbers: By column; empty where there is no record.
        accuracies: By "split/modality".
        profile: What each attack brought back.
        farthest: The measure that is farthest from the reference's.
        lacking: What the record has not got for the published scores.
        chosen: The settings that the trials chose.
        made_on: Machine, threads and versions.
    """

    cell: Cell
    numbers: Mapping[str, float | None] = field(default_factory=dict)
    accuracies: Mapping[str, float] = field(default_factory=dict)
    profile: Sequence[Attacked] = ()
    farthest: str = ""
    lacking: Sequence[str] = ()
    chosen: Mapping[str, Any] = field(default_factory=dict)
    made_on: str = ""


@dataclass(frozen=True)
class Row:
    """An entry (or a model beside it) at one share, over its seeds.

    Attributes:
        name: The entry.
        results: One a seed.
        beside: Whether it is no entry but the target or a reference.
    """

    name: str
    results: Sequence[Result]
    beside: bool = False

    def values(self, column: str) -> list[float]:
        """The seeds' numbers in a column."""
        found = [result.numbers.get(column) for result in self.results]
        return [value for value in found if value is not None]

    def accuracies(self, key: str) -> list[float]:
        """The seeds' accuracies on "split/modality"."""
        return [r.accuracies[key] for r in self.results if key in r.accuracies]

    @property
    def errors(self) -> list[str]:
        """Why runs failed, with their seeds."""
        return [f"seed {r.cell.seed}: {r.cell.error}" for r in self.results if r.cell.error]

    @property
    def settings(self) -> str:
        """How its settings came about."""
        if self.beside:
            return ""
        tuned = max(result.cell.tuned for result in self.results)
        return f"best of {tuned} trials" if tuned else "as given"


def collect(cells: Iterable[Cell], out: Path) -> dict[str, list[Row]]:
    """Rows by share: entries in order of rank, those that failed last, then what stands beside."""
    found: dict[str, list[Row]] = {}
    by_share: dict[str, list[Cell]] = {}
    for cell in cells:
        by_share.setdefault(cell.forget_ratio, []).append(cell)
    for share, some in by_share.items():
        read = [_read(cell, out) for cell in some]
        beside = next((_beside(r.cell) for r in read if r.numbers), [])
        ranked = _ranked(read)
        names = dict.fromkeys(cell.entry for cell in some)
        rows = [Row(name, [r for r in ranked if r.cell.entry == name]) for name in names]
        rows.sort(key=lambda row: _mean(row.values("rank"), float("inf")))
        found[share] = [*rows, *beside]
    return found


def _read(cell: Cell, out: Path) -> Result:
    if cell.error is not None or not finished(cell.folder):
        return Result(cell)
    summary, rows = _record(cell.folder)
    scored = score(summary, rows)
    cost = summary.get("cost") or {}
    peak = cost.get("peak_memory_bytes")
    numbers = {
        **scored.numbers,
        "seconds": cost.get("seconds"),
        "memory (MB)": peak / 1e6 if peak is not None else None,
        "trained parameters": cost.get("trainable_parameters"),
    }
    tuned = out / "tuned" / f"{cell.folder.name.rsplit('-seed', 1)[0]}.json"
    chosen = json.loads(tuned.read_text("utf-8"))["set"] if tuned.exists() else {}
    accuracies = _accuracies(summary.get("measures") or {})
    return Result(
        cell, numbers, accuracies, scored.profile, scored.farthest, scored.lacking, chosen,
        describe_machine(Provenance.model_validate(summary["provenance"])),
    )  # fmt: skip


def _beside(cell: Cell) -> list[Row]:
    """The target and the references, from any record: they are the same in all of a share."""
    summary, rows = _record(cell.folder)
    found = []
    for model, name in BESIDE.items():
        if summary.get(model):
            scored = score(summary, rows, model)
            result = Result(cell, scored.numbers, _accuracies(summary[model]))
            found.append(Row(name, [result], beside=True))
    return found


def _record(folder: Path) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    summary = json.loads((folder / SUMMARY).read_text("utf-8"))
    lines = (folder / SCORES).read_text("utf-8").splitlines()
    return summary, [json.loads(line) for line in lines]


def _accuracies(measures: Mapping[str, Mapping[str, Any]]) -> dict[str, float]:
    return {
        key.rpartition("/")[0]: found["value"]
        for key, found in measures.items()
        if key.endswith("/accuracy") and found.get("value") is not None
    }


def _ranked(results: Sequence[Result]) -> list[Result]:
    """With each one's rank by distance among the entries of its seed; equals share a rank."""
    from scipy.stats import rankdata

    ranks: dict[int, float] = {}
    for seed in dict.fromkeys(r.cell.seed for r in results):
        some = [r for r in results if r.cell.seed == seed and r.numbers.get("distance") is not None]
        order = rankdata([r.numbers["distance"] for r in some])
        ranks |= {id(r): float(rank) for r, rank in zip(some, order, strict=True)}
    return [
        replace(r, numbers={**r.numbers, "rank": ranks[id(r)]}) if id(r) in ranks else r
        for r in results
    ]


def _mean(values: Sequence[float], nothing: float) -> float:
    return sum(values) / len(values) if values else nothing


def shown(values: Sequence[float], decimals: int = 3) -> str:
    """The mean, and where the values differ as shown, the range; "" of nothing."""
    if not values:
        return ""
    mean, *ends = (f"{v:.{decimals}f}" for v in (_mean(values, 0), min(values), max(values)))
    return mean if ends[0] == ends[1] else f"{mean} ({ends[0]} to {ends[1]})"


def pareto_front(points: Mapping[str, tuple[float, float]]) -> list[str]:
    """The Pareto front: names that no other one beats in one coordinate without losing in one."""
    return [
        name
        for name, (x, y) in points.items()
        if not any(
            (a >= x and b >= y) and (a > x or b > y)
            for other, (a, b) in points.items()
            if other != name
        )
    ]
