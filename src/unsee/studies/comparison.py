"""A comparison: every entry tuned alike, then run on every share and seed, in a folder.

```
OUT/comparison.yaml   what was asked; another comparison is refused
    tuned/            the trials and the chosen settings of each entry
    recipes/          one recipe a run: `unsee run` finishes or repeats it
    runs/             one run folder each
    logs/             what each process printed
    beside/           what the target and the references say, asked once for all runs
    table.md, table.csv, report.html
```
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import yaml

from unsee.benchmarks import BENCHMARKS, Benchmark
from unsee.errors import ConfigError, RunError
from unsee.files import write_atomically
from unsee.methods import METHODS
from unsee.progress import Bar
from unsee.recipes.plan import plan
from unsee.recipes.specs import Spec, parse_spec
from unsee.recipes.unlearn import Recipe
from unsee.records.folder import REPORT, SUMMARY, jsonable
from unsee.runs.run import run
from unsee.studies.processes import Task, run_in_processes
from unsee.studies.tuning import BESIDE, open_storage, ranges, tune
from unsee.training.settings import TrainingSettings

ASKED = "comparison.yaml"


# Two attackers with a fifth of the forget samples: one who tunes what VKD tunes, one everything.
ATTACKS: tuple[dict[str, Any], ...] = (
    {"share": 0.2, "modules": "visual"},
    {"share": 0.2, "modules": "all"},
)


# Where the data of each share is, and the benchmark opened there.
Places = dict[str, tuple[Spec, Benchmark]]


Told = Callable[[str, "str | None"], None]


@dataclass(frozen=True)
class ComparisonRequest:
    """What is compared with what.

    Attributes:
        title: What the page is called.
        entries: A method and its settings, by the name of the row.
        benchmark: NAME or NAME@LOCATION, one or more: builds of pocket differ in what they forget.
        forget: Shares to forget (%); () takes each benchmark's own.
        seeds: Of every run; the first one is the trials'.
        attacks: As in a recipe.
        trials: Settings to try for each entry; 0 tunes nothing.
        set: Fields of the method or the training, for every entry that has them.
        model: The checkpoint to unlearn, where the benchmark brings none.
        reference: Its visual-retain reference.
        retain_only: Its retain-only reference.
        device: Where every model is put.
    """

    title: str
    entries: Mapping[str, tuple[str, Mapping[str, Any]]]
    benchmark: Sequence[str] = ("pocket",)
    forget: Sequence[str] = ()
    seeds: Sequence[int] = (0,)
    attacks: Sequence[Mapping[str, Any]] = ATTACKS
    trials: int = 0
    set: Mapping[str, Any] = field(default_factory=dict)
    model: str | None = None
    reference: str | None = None
    retain_only: str | None = None
    device: str = "auto"


@dataclass(frozen=True)
class Cell:
    """One run of the comparison.

    Attributes:
        entry: Its row.
        forget: The share it forgets (%).
        seed: Its seed.
        folder: Its run folder.
        error: Why there is no record; None where there is one.
        tuned: Trials that chose its settings; 0 where none did.
    """

    entry: str
    forget: str
    seed: int
    folder: Path
    error: str | None = None
    tuned: int = 0


def compare(
    asked: ComparisonRequest,
    out: Path,
    jobs: int = 1,
    storage: str | None = None,
    told: Told = lambda name, error: None,
) -> list[Cell]:
    """Tunes and runs what is missing, and returns every cell, failed ones included.

    Raises:
        UnseeError: If the comparison itself is not possible; no run has begun then.
    """
    places = places_of(asked)
    recipes = recipes_of(asked, places)
    for recipe in {forget: recipe for (_, forget), recipe in recipes.items()}.values():
        # What is wrong with the data or the models is wrong for every method.
        plan(recipe, "run", "")
    grows = ("title", "entries", "forget", "seeds", "benchmark")
    fixed = {k: v for k, v in asdict(asked).items() if k not in grows}
    keep(out / ASKED, fixed, "comparison", "Methods, shares and seeds")
    if asked.trials:
        open_storage(out, storage)
    tunings = _tunings(asked, recipes, places)
    failed = _tune(asked, tunings, out, jobs, storage, told)
    cells: list[Cell] = []
    tasks: dict[str, Task] = {}
    for (entry, forget), recipe in recipes.items():
        name = slug(entry, forget)
        chosen, made = _chosen(out, name) if (entry, forget) in tunings else ({}, 0)
        for seed in asked.seeds:
            label = f"{name}-seed{seed}"
            cell = Cell(entry, forget, seed, out / "runs" / label, failed.get(name), made)
            cells.append(cell)
            if not finished(cell.folder) and cell.error is None:
                final = replace(recipe, set=recipe.set | chosen, seed=seed)
                tasks[label] = Task(_run, (final, out, label))
    broken = run_in_processes(tasks, jobs, out / "logs", told)
    return [replace(cell, error=cell.error or broken.get(cell.folder.name)) for cell in cells]


def finished(folder: Path) -> bool:
    """Whether a run folder holds a whole record."""
    return (folder / SUMMARY).exists() and (folder / REPORT).exists()


def slug(entry: str, forget: str) -> str:
    """The name of an entry and its share in files."""
    plain = "".join(c if c.isalnum() or c in "_.=" else "-" for c in entry)
    return f"{plain}-forget{forget or 'all'}"


def _run(recipe: Recipe, out: Path, label: str) -> None:
    """One run, just as `unsee run` makes it."""
    path, folder = out / "recipes" / f"{label}.yaml", out / "runs" / label
    command = f"unsee run {path} --out {folder}"
    path.parent.mkdir(exist_ok=True)
    write_atomically(path, recipe.text(command))
    job, _ = plan(recipe, "run", command)
    run(job, folder, Bar(None), out / BESIDE)


def recipes_of(asked: ComparisonRequest, places: Places) -> dict[tuple[str, str], Recipe]:
    """A recipe for each entry and share, every mistake in them found before anything runs."""
    found = {}
    for forget, (spec, benchmark) in places.items():
        for entry, (method, changes) in asked.entries.items():
            kind = METHODS.get(method)
            mine = {f.name for f in fields(kind)}
            fits = {key: value for key, value in benchmark.field_defaults.items() if key in mine}
            training = {f.name for f in fields(TrainingSettings)}
            given = {k: v for k, v in asked.set.items() if k in mine | training}
            recipe = Recipe(
                method=method,
                set=jsonable({**fits, **changes, **given}),
                benchmark=spec.name,
                data=spec.location,
                ratio=spec.ratio,
                model=asked.model,
                reference=asked.reference,
                retain_only=asked.retain_only,
                attacks=tuple(dict(attack) for attack in asked.attacks),
                device=asked.device,  # type: ignore[arg-type]
            )
            recipe.build()
            found[entry, forget] = recipe
    unused = [key for key in asked.set if not any(key in recipe.set for recipe in found.values())]
    if unused:
        raise ConfigError(
            f"--set {unused[0]}: neither the training nor any of the methods has such a field. "
            "`unsee show METHOD` lists what there is."
        )
    return found


def places_of(asked: ComparisonRequest) -> Places:
    """Where the data of each share is.

    Raises:
        ConfigError: If no benchmark that was given forgets that share.
    """
    found: Places = {}
    offered: list[str] = []
    for text in asked.benchmark:
        spec = parse_spec(text)
        if spec is None or spec.split:
            names = ", ".join(BENCHMARKS.names())
            raise ConfigError(
                f"--benchmark {text}: type NAME or NAME@FOLDER, where NAME is one of {names}."
            )
        kind = BENCHMARKS.get(spec.name)
        if kind.ratios:
            for ratio in asked.forget or kind.ratios[:1]:
                found[ratio] = (replace(spec, ratio=ratio), replace(spec, ratio=ratio).open())
            continue
        benchmark = spec.open()
        share = benchmark.forget_ratio
        offered.append(f"{text} forgets {share} %")
        if share in asked.forget or not asked.forget:
            found[share] = (spec, benchmark)
    missing = [share for share in asked.forget if share not in found]
    if missing:
        raise ConfigError(
            f"--forget-ratio {missing[0]}: {'; '.join(offered)}, and a share comes with references "
            "of its own: models that know all that another share keeps. Build one with `unsee "
            "pocket build --forget-people N --out DIR` (N people, of 40), and add --benchmark "
            "pocket@DIR."
        )
    if asked.trials and not all(benchmark.validation() for _, benchmark in found.values()):
        raise ConfigError(
            f"{', '.join(asked.benchmark)} has no validation splits to choose settings on. Type "
            "--trials 0 to run every method at its defaults, changed by --set."
        )
    return found


def _tunings(
    asked: ComparisonRequest, recipes: Mapping[tuple[str, str], Recipe], places: Places
) -> dict[tuple[str, str], tuple[Recipe, Mapping[str, Any]]]:
    """What is to be tuned, with its ranges; nothing for methods that have none."""
    found = {}
    if asked.trials:
        for key, recipe in recipes.items():
            search = ranges(recipe, places[key[1]][1])
            if search:
                quiet = replace(recipe, attacks=(), seed=asked.seeds[0])
                found[key] = (quiet, search)
    return found


def _tune(
    asked: ComparisonRequest,
    tunings: Mapping[tuple[str, str], tuple[Recipe, Mapping[str, Any]]],
    out: Path,
    jobs: int,
    storage: str | None,
    told: Told,
) -> dict[str, str]:
    """Makes the trials that are missing; returns why those that failed did, by name."""
    missing = {
        slug(entry, forget): made
        for (entry, forget), made in tunings.items()
        if not (out / "tuned" / f"{slug(entry, forget)}.json").exists()
    }
    tasks = {
        f"tune-{name}": Task(tune, (recipe, name, out, search, asked.trials, storage))
        for name, (recipe, search) in missing.items()
    }
    failed = run_in_processes(tasks, jobs, out / "logs", told)
    return {name.removeprefix("tune-"): f"tuning: {why}" for name, why in failed.items()}


def _chosen(out: Path, name: str) -> tuple[dict[str, Any], int]:
    path = out / "tuned" / f"{name}.json"
    if not path.exists():
        return {}, 0
    found = json.loads(path.read_text("utf-8"))
    return found["set"], len(found["trials"])


def keep(path: Path, asked: Mapping[str, Any], what: str, grows: str) -> None:
    """Writes down what was asked of a new folder, and is not to change in it.

    Args:
        path: The file, in the folder itself.
        asked: What was asked.
        what: What the folder holds.
        grows: What may be asked for later.

    Raises:
        RunError: If the folder holds something else.
    """
    out, text = path.parent, yaml.safe_dump(jsonable(asked), sort_keys=True)
    if path.exists():
        if path.read_text("utf-8") != text:
            raise RunError(
                f"{out} holds a {what} with other settings (see {path}). Name another folder "
                f"with --out. {grows} alone may be added to it."
            )
        return
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise RunError(f"{out} is not empty, and no {what}. Name another folder with --out.")
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RunError(f"{out} cannot be written ({error}). Name another with --out.") from error
    write_atomically(path, text)
