"""The results of a comparison: numbers of every run, means and ranges over seeds, and ranks."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from unsee.evaluation.equivalence import measured_people
from unsee.records.folder import SUMMARY
from unsee.records.provenance import describe_machine
from unsee.records.reader import Run, read_run
from unsee.records.schema import (
    EquivalenceTest,
    LearnedCheck,
    Measures,
    RelearningOutcome,
    SampleScore,
)
from unsee.studies.comparison import Cell
from unsee.studies.scores import AttackScore, ModelName, relearning_name, score
from unsee.studies.tuning import read_tuned

# The columns in order, with the number of decimals that they show.
COLUMNS = {
    "rank": 1,
    "distance": 3,
    "largest gap": 3,
    "distance under attack": 3,
    "FQ": 3,
    "MU": 3,
    "robustness": 3,
    "overall": 3,
    "seconds": 1,
    "memory (MB)": 0,
    "trained parameters": 0,
}

# The models that stand below the entries, and the names of their rows.
MODELS: dict[ModelName, str] = {
    "target": "target",
    "reference": "visual-retain",
    "retain_only": "retain-only",
    "visual_refit": "visual-refit",
}


@dataclass(frozen=True)
class Result:
    """A run of the comparison with the content of its record.

    Attributes:
        cell: The run.
        numbers: By column; empty if there is no record.
        accuracies: By "split/modality".
        profile: What each attack brought back.
        farthest: The measure that is farthest from the reference's.
        lacking: What the record lacks for the published scores.
        chosen: The settings that the trials chose.
        machine: Machine, threads and versions.
        relearning: The recovery curves of relearning attacks.
        equivalence: The tests against the visual-retain reference.
        learned: Whether the target model knew enough to forget; None if it was not asked.
        people: Mean accuracy of every person, by "split/modality", and after the worst point of
            each relearning attack, by its name.
    """

    cell: Cell
    numbers: Mapping[str, float | None] = field(default_factory=dict)
    accuracies: Mapping[str, float] = field(default_factory=dict)
    profile: Sequence[AttackScore] = ()
    farthest: str = ""
    lacking: Sequence[str] = ()
    chosen: Mapping[str, Any] = field(default_factory=dict)
    machine: str = ""
    relearning: Sequence[RelearningOutcome] = ()
    equivalence: Sequence[EquivalenceTest] = ()
    learned: LearnedCheck | None = None
    people: Mapping[str, Mapping[str, float]] = field(default_factory=dict)


@dataclass(frozen=True)
class Row:
    """An entry, or the target or a reference, at one forget ratio, over its seeds.

    Attributes:
        name: The entry.
        results: One a seed.
        is_model: Whether it is the target or a reference rather than an entry.
    """

    name: str
    results: Sequence[Result]
    is_model: bool = False

    def values(self, column: str) -> list[float]:
        """Returns the numbers of the seeds in a column."""
        numbers = [result.numbers.get(column) for result in self.results]
        return [number for number in numbers if number is not None]

    def accuracies(self, key: str) -> list[float]:
        """Returns the accuracies of the seeds on "split/modality"."""
        return [r.accuracies[key] for r in self.results if key in r.accuracies]

    @property
    def errors(self) -> list[str]:
        """Why runs failed, with their seeds."""
        return [f"seed {r.cell.seed}: {r.cell.error}" for r in self.results if r.cell.error]

    @property
    def settings(self) -> str:
        """How its settings were chosen; "" for the target and the references."""
        if self.is_model:
            return ""
        tuned = max(result.cell.tuned for result in self.results)
        return f"best of {tuned} trials" if tuned else "as given"


def collect(cells: Iterable[Cell], out: Path) -> dict[str, list[Row]]:
    """Reads the records of a comparison.

    Args:
        cells: The runs.
        out: The comparison's folder.

    Returns:
        The rows by forget ratio: entries in order of rank, failed ones last, then the target and
        the references.
    """
    by_ratio: dict[str, list[Cell]] = {}
    for cell in cells:
        by_ratio.setdefault(cell.forget_ratio, []).append(cell)
    rows_by_ratio: dict[str, list[Row]] = {}
    for ratio, own in by_ratio.items():
        results = _with_ranks([_read(cell, out) for cell in own])
        names = dict.fromkeys(cell.entry for cell in own)
        rows = [Row(name, [r for r in results if r.cell.entry == name]) for name in names]
        rows.sort(key=lambda row: _mean(row.values("rank"), float("inf")))
        models = next((_model_rows(r.cell) for r in results if r.numbers), [])
        rows_by_ratio[ratio] = [*rows, *models]
    return rows_by_ratio


def _read(cell: Cell, out: Path) -> Result:
    if cell.error is not None or not (cell.folder / SUMMARY).exists():
        return Result(cell)
    run = read_run(cell.folder)
    cost, provenance = run.summary.cost, run.summary.provenance
    samples = list(run.scores())
    scores = score(run.summary, samples)
    peak = cost.peak_memory_bytes if cost is not None else None
    numbers = {
        **scores.numbers,
        "seconds": cost.seconds if cost is not None else None,
        "memory (MB)": peak / 1e6 if peak is not None else None,
        "trained parameters": cost.trainable_parameters if cost is not None else None,
    }
    tuned = out / "tuned" / f"{cell.folder.name.rsplit('-seed', 1)[0]}.json"
    return Result(
        cell,
        numbers,
        _accuracies(run.summary.measures_of("unlearned")),
        scores.profile,
        scores.farthest,
        scores.lacking,
        read_tuned(tuned)["set"] if tuned.exists() else {},
        describe_machine(provenance) if provenance is not None else "",
        run.summary.relearn,
        run.summary.equivalence or (),
        run.summary.learned,
        _people(samples) | _people_under_attack(run.summary.relearn),
    )


def _people(samples: Sequence[SampleScore]) -> dict[str, Mapping[str, float]]:
    """The mean accuracy of every person, by "split/modality"."""
    rows = [sample.model_dump() for sample in samples if sample.model == "unlearned"]
    measured = measured_people(rows, ["accuracy"])
    return {
        key.removesuffix("/accuracy"): scores.by_person
        for key, scores in measured.items()
        if len(scores.by_person) > 1
    }


def _people_under_attack(outcomes: Sequence[RelearningOutcome]) -> dict[str, Mapping[str, float]]:
    """The accuracy of every forgotten person at the end of each relearning attack, by its name."""
    people: dict[str, Mapping[str, float]] = {}
    for outcome in outcomes:
        for end in outcome.curve("unlearned")[-1:]:
            scored = {name: value for name, value in end.by_person.items() if value is not None}
            if scored:
                people[relearning_name(outcome)] = scored
    return people


def _model_rows(cell: Cell) -> list[Row]:
    """The rows of the target and the references, which all records of a forget ratio share."""
    run: Run = read_run(cell.folder)
    samples = list(run.scores())
    rows = []
    for model, name in MODELS.items():
        measures = run.summary.measures_of(model)
        if measures:
            numbers = score(run.summary, samples, model).numbers
            result = Result(cell, numbers, _accuracies(measures))
            rows.append(Row(name, [result], is_model=True))
    return rows


def _accuracies(measures: Measures) -> dict[str, float]:
    return {
        key.rpartition("/")[0]: measure.value
        for key, measure in measures.items()
        if key.endswith("/accuracy") and measure.value is not None
    }


def _with_ranks(results: Sequence[Result]) -> list[Result]:
    """The results with their rank by distance among the entries of the seed; ties share a rank."""
    from scipy.stats import rankdata

    ranks: dict[int, float] = {}
    for seed in dict.fromkeys(r.cell.seed for r in results):
        own = [r for r in results if r.cell.seed == seed and r.numbers.get("distance") is not None]
        order = rankdata([r.numbers["distance"] for r in own])
        ranks |= {id(r): float(rank) for r, rank in zip(own, order, strict=True)}
    return [
        replace(r, numbers={**r.numbers, "rank": ranks[id(r)]}) if id(r) in ranks else r
        for r in results
    ]


def _mean(values: Sequence[float], nothing: float) -> float:
    return sum(values) / len(values) if values else nothing


def mean_and_range(values: Sequence[float], decimals: int = 3) -> str:
    """Returns the mean, and the range in brackets if the values differ as shown; "" of none.

    Example:
        >>> mean_and_range([0.1, 0.2, 0.6], 1)
        '0.3 (0.1 to 0.6)'
    """
    if not values:
        return ""
    mean, *ends = (f"{v:.{decimals}f}" for v in (_mean(values, 0), min(values), max(values)))
    return mean if ends[0] == ends[1] else f"{mean} ({ends[0]} to {ends[1]})"


def places_of(rows: Sequence[Row]) -> dict[str, tuple[float, float]]:
    """Returns mean utility and mean forgetting of every row that has both, by name."""
    return {
        row.name: (_mean(x, 0), _mean(y, 0))
        for row in rows
        if (x := row.values("MU")) and (y := row.values("forgetting"))
    }


# A recovery curve over seeds: step, mean, lowest and highest score.
CurveOverSeeds = list[tuple[float, float, float, float]]


def attack_curves(row: Row) -> dict[str, dict[str, CurveOverSeeds]]:
    """Returns the recovery curves of an entry and its references over seeds.

    Args:
        row: An entry.

    Returns:
        By attack, as named in the tables, and by model: "unlearned", "visual-retain",
        "retain-only".
    """
    names: Mapping[str, str] = {str(model): name for model, name in MODELS.items()}
    points: dict[str, dict[str, dict[float, list[float]]]] = {}
    for outcome in (outcome for result in row.results for outcome in result.relearning):
        models = points.setdefault(relearning_name(outcome), {})
        for model in outcome.curves:
            steps = models.setdefault(names.get(model, model), {})
            for point in outcome.curve(model):
                if point.value is not None:
                    steps.setdefault(point.step, []).append(point.value)
    return {
        attack: {
            model: [(s, _mean(v, 0), min(v), max(v)) for s, v in sorted(steps.items())]
            for model, steps in models.items()
            if steps
        }
        for attack, models in points.items()
    }


def curves_by_attack(rows: Sequence[Row]) -> dict[str, dict[str, CurveOverSeeds]]:
    """Returns the recovery curves of all entries and of the references.

    Args:
        rows: The rows of one forget ratio.

    Returns:
        By attack, as named in the tables, and by name: of the entry, or "visual-retain" and so on.
    """
    by_attack: dict[str, dict[str, CurveOverSeeds]] = {}
    for row in rows:
        for attack, models in attack_curves(row).items():
            curves = by_attack.setdefault(attack, {})
            for model, points in models.items():
                # References are the same in every row.
                curves.setdefault(row.name if model == "unlearned" else model, points)
    return by_attack


def pareto_front(points: Mapping[str, tuple[float, float]]) -> list[str]:
    """Returns the names of the points that no other point dominates; larger is better.

    Example:
        >>> pareto_front({"a": (0.9, 0.2), "b": (0.5, 0.5), "c": (0.4, 0.4)})
        ['a', 'b']
    """
    return [
        name
        for name, (x, y) in points.items()
        if not any(
            (a >= x and b >= y) and (a > x or b > y)
            for other, (a, b) in points.items()
            if other != name
        )
    ]
