"""A comparison: every entry tuned alike, then run on every share and seed, in a folder.

```
OUT/comparison.yaml   what was requested; another comparison is refused
    entries.yaml      the entry that each name in files stands for
    tuned/            the trials and the chosen settings of each entry
    recipes/          one recipe a run: `unsee run` resumes or repeats it
    runs/             one run folder each
    logs/             what each process printed
    beside/           outputs of the target and the references, computed once for all runs
    table.md, table.csv, report.html
```
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import yaml

from unsee.benchmarks import BENCHMARKS, Benchmark
from unsee.data.digests import content_hash
from unsee.errors import ConfigError, RunError, suggestion
from unsee.files import make_folder, read_text, write_atomically
from unsee.methods import METHODS, Method
from unsee.progress import Bar
from unsee.recipes.job import Job
from unsee.recipes.plan import plan
from unsee.recipes.specs import Spec, parse_spec
from unsee.recipes.unlearn import Recipe, make_recipe
from unsee.records.folder import REPORT, SUMMARY, jsonable, tidy
from unsee.records.lock import exclusive, is_empty
from unsee.runs.content import job_inputs, keep_study_content
from unsee.runs.run import run
from unsee.studies.processes import OnDone, Task, ignore_done, run_in_processes
from unsee.studies.tuning import REFERENCE_CACHE, open_storage, read_tuned, search_ranges, tune
from unsee.training.settings import TrainingSettings

REQUEST, ENTRIES = "comparison.yaml", "entries.yaml"

# Two attackers with a fifth of the forget samples: one tunes what VKD tunes, one everything.
ATTACKS: tuple[dict[str, Any], ...] = (
    {"share": 0.2, "modules": "visual"},
    {"share": 0.2, "modules": "all"},
)

# The data of each forget ratio: where it is, and the benchmark opened there.
Benchmarks = dict[str, tuple[Spec, Benchmark]]

# Recipes, or what is made for each of them, by entry and forget ratio.
Key = tuple[str, str]

# Changes a job before it runs, such as the splits that it is scored on. It must be a function of a
# module, since each run is a process; `unsee run` of the recipe alone does not apply it.
Adapt = Callable[[Job], Job]


@dataclass(frozen=True)
class ComparisonRequest:
    """A comparison to make: methods and settings, on benchmarks and with seeds.

    Attributes:
        title: The title of the page.
        entries: A method and its settings, by the name of the row.
        benchmark: NAME or NAME@LOCATION, one or more: builds of pocket differ in what they forget.
        forget_ratios: Shares to forget (%); () takes each benchmark's own.
        seeds: The seeds of the runs; trials use the first one.
        attacks: The attacks, as in a recipe.
        trials: Number of settings to try for each entry; 0 tunes nothing.
        set: Fields of the method or the training, for every entry that has them, and `JUDGED`.
        model: The checkpoint to unlearn, if the benchmark ships none.
        reference: The checkpoint's visual-retain reference.
        retain_only: The checkpoint's retain-only reference.
        visual_refit: The checkpoint's visual-refit reference.
        device: The device of all models.
    """

    title: str
    entries: Mapping[str, tuple[str, Mapping[str, Any]]]
    benchmark: Sequence[str] = ("pocket",)
    forget_ratios: Sequence[str] = ()
    seeds: Sequence[int] = (0,)
    attacks: Sequence[Mapping[str, Any]] = ATTACKS
    trials: int = 0
    set: Mapping[str, Any] = field(default_factory=dict)
    model: str | None = None
    reference: str | None = None
    retain_only: str | None = None
    visual_refit: str | None = None
    device: str = "auto"


# Fields of a recipe, not of its method, that `set` may hold: how the results are judged.
JUDGED = ("equivalence_margin", "attack_margin", "min_headroom")

# What may be added to a comparison later.
MAY_GROW = ("title", "entries", "forget_ratios", "seeds", "benchmark")


@dataclass(frozen=True)
class Cell:
    """One run of the comparison.

    Attributes:
        entry: The name of the row.
        forget_ratio: The share that the run forgets (%).
        seed: The seed of the run.
        folder: The run folder.
        error: Why there is no record; None if there is one.
        tuned: Number of trials that the settings were chosen from; 0 if they were not tuned.
    """

    entry: str
    forget_ratio: str
    seed: int
    folder: Path
    error: str | None = None
    tuned: int = 0


def compare(
    request: ComparisonRequest,
    out: Path,
    jobs: int = 1,
    storage: str | None = None,
    on_done: OnDone = ignore_done,
    adapt: Adapt | None = None,
) -> list[Cell]:
    """Tunes and runs what is missing.

    Args:
        request: What to compare.
        out: The comparison's folder.
        jobs: Number of runs side by side.
        storage: The database of the trials; None is a file in `out`.
        on_done: Called with the name of every trial or run that ended, and its error or None.
        adapt: Changes each job before it runs; a function that a new process can import.

    Returns:
        Every run, failed ones included.

    Raises:
        UnseeError: If the comparison itself is not possible; nothing is run then.
    """
    benchmarks = open_benchmarks(request)
    slugs = unique_slugs(request.entries)
    recipes = make_recipes(request, benchmarks)
    inputs = study_inputs(recipes, benchmarks, request.trials > 0)
    with exclusive(out):
        return _compare(
            request, out, (benchmarks, slugs, recipes, inputs), jobs, storage, on_done, adapt
        )


def study_inputs(
    recipes: Mapping[Key, Recipe], benchmarks: Benchmarks, tuned: bool
) -> dict[str, str]:
    """Returns the SHA-256 of everything that the runs and trials read, by name.

    Args:
        recipes: The recipes by entry and forget ratio.
        benchmarks: The data by forget ratio.
        tuned: Whether settings are chosen on the validation splits.

    Raises:
        UnseeError: If the data or the models cannot be used.
    """
    inputs: dict[str, str] = {}
    for ratio, recipe in {ratio: recipe for (_, ratio), recipe in recipes.items()}.items():
        # A mistake in the data or the models is the same for all methods.
        job, _ = plan(recipe, "run", "")
        inputs |= {f"forget {ratio}: {k}": v for k, v in job_inputs(job).items()}
        if tuned:
            for split, samples in benchmarks[ratio][1].validation().items():
                inputs[f"forget {ratio}: validation {split}"] = content_hash(samples)
    return inputs


def _compare(
    request: ComparisonRequest,
    out: Path,
    planned: tuple[Benchmarks, Mapping[str, str], Mapping[Key, Recipe], Mapping[str, str]],
    jobs: int,
    storage: str | None,
    on_done: OnDone,
    adapt: Adapt | None,
) -> list[Cell]:
    """The part of `compare` that writes; the folder is locked."""
    benchmarks, slugs, recipes, inputs = planned
    fixed = {k: v for k, v in asdict(request).items() if k not in MAY_GROW}
    if fixed["visual_refit"] is None:
        # Comparisons of earlier versions go on.
        del fixed["visual_refit"]
    if adapt is not None:
        fixed["adapt"] = f"{adapt.__module__}.{adapt.__qualname__}"
    keep_request(out / REQUEST, fixed, "comparison", "Methods, shares and seeds")
    keep_study_content(out, inputs)
    _keep_slugs(out / ENTRIES, slugs)
    for folder in (out, out / "tuned", out / "recipes", out / REFERENCE_CACHE):
        tidy(folder)
    if request.trials:
        open_storage(out, storage)
    searches = _searches(request, recipes, benchmarks)
    failed = _tune(request, searches, out, jobs, storage, on_done)
    cells: list[Cell] = []
    tasks: dict[str, Task] = {}
    for (entry, ratio), recipe in recipes.items():
        name = slug(entry, ratio)
        chosen, trials = _chosen(out, name) if (entry, ratio) in searches else ({}, 0)
        for seed in request.seeds:
            label = f"{name}-seed{seed}"
            cell = Cell(entry, ratio, seed, out / "runs" / label, failed.get(name), trials)
            cells.append(cell)
            if finished(cell.folder):
                _tidy_finished(cell.folder)
            elif cell.error is None:
                final = recipe.override({**chosen, "seed": seed})
                tasks[label] = Task(_run, (final, out, label, adapt))
    broken = run_in_processes(tasks, jobs, out / "logs", on_done)
    return [replace(cell, error=cell.error or broken.get(cell.folder.name)) for cell in cells]


def finished(folder: Path) -> bool:
    """Whether a run folder holds a complete record."""
    return (folder / SUMMARY).exists() and (folder / REPORT).exists()


def _tidy_finished(folder: Path) -> None:
    """Removes what a killed process left in a finished run folder, unless one writes it now."""
    with suppress(RunError), exclusive(folder):
        tidy(folder, finished=True)


def slug(entry: str, forget_ratio: str) -> str:
    """Returns the name of an entry at one forget ratio in files."""
    return f"{_plain(entry)}-forget{forget_ratio or 'all'}"


def _plain(entry: str) -> str:
    return "".join(c if c.isalnum() or c in "_.=" else "-" for c in entry)


def unique_slugs(entries: Mapping[str, object]) -> dict[str, str]:
    """Returns the entry by its name in files.

    Raises:
        ConfigError: If two entries have the same name in files, and would share run folders.
    """
    slugs: dict[str, str] = {}
    for entry in entries:
        # Some file systems do not tell upper from lower case.
        other = slugs.setdefault(_plain(entry).lower(), entry)
        if other != entry:
            raise ConfigError(
                f"'{other}' and '{entry}' are both '{_plain(entry)}' in file names, so their runs "
                "would share a folder. Rename one of them."
            )
    return slugs


def _keep_slugs(path: Path, slugs: Mapping[str, str]) -> None:
    """Records which entries the folder's names stand for, those of earlier calls included.

    Raises:
        RunError: If a name stands for another entry.
    """
    kept = _read_slugs(path) if path.exists() else {}
    for name, entry in slugs.items():
        if kept.get(name, entry) != entry:
            raise RunError(
                f"{path.parent} holds runs of '{kept[name]}', whose folders '{entry}' would share. "
                "Rename the entry, or name another folder with --out."
            )
    write_atomically(path, yaml.safe_dump(kept | dict(slugs), allow_unicode=True))


def _read_slugs(path: Path) -> dict[str, str]:
    try:
        kept = yaml.safe_load(read_text(path))
        if isinstance(kept, dict) and all(isinstance(v, str) for kv in kept.items() for v in kv):
            return kept
    except (yaml.YAMLError, ValueError, RecursionError):
        pass
    raise RunError(
        f"{path} is damaged: it does not say what the names of the run folders stand for. Restore "
        "it, or name another folder with --out."
    )


def _run(recipe: Recipe, out: Path, label: str, adapt: Adapt | None) -> None:
    """Makes one run by the same code as `unsee run`."""
    path, folder = out / "recipes" / f"{label}.yaml", out / "runs" / label
    command = f"unsee run {path} --out {folder}"
    make_folder(path.parent)
    write_atomically(path, recipe.text(command))
    job, _ = plan(recipe, "run", command)
    run(job if adapt is None else adapt(job), folder, Bar(None), out / REFERENCE_CACHE)


def _override(
    values: Mapping[str, Any], changes: Mapping[str, Any], kind: type[Method]
) -> dict[str, Any]:
    """Returns `values` with `changes`; these also replace a field under another of its names."""
    changed = {kind.aliases.get(name, name) for name in changes}
    left = {
        k: v for k, v in values.items() if k in changes or kind.aliases.get(k, k) not in changed
    }
    return left | dict(changes)


def make_recipes(request: ComparisonRequest, benchmarks: Benchmarks) -> dict[Key, Recipe]:
    """Returns a recipe for each entry and forget ratio.

    Raises:
        ConfigError: If a method, a field or an attack is not allowed, for any of them.
    """
    recipes: dict[Key, Recipe] = {}
    used, fields_known = set(JUDGED), set(JUDGED)
    judged = {key: value for key, value in request.set.items() if key in JUDGED}
    training = {f.name for f in fields(TrainingSettings)}
    for ratio, (spec, benchmark) in benchmarks.items():
        for entry, (method, changes) in request.entries.items():
            kind = METHODS.get(method)
            own = {f.name for f in fields(kind)}
            defaults = {k: v for k, v in benchmark.field_defaults.items() if k in own}
            known = own | training | set(kind.aliases)
            fields_known |= known
            given = {k: v for k, v in request.set.items() if k in known}
            used |= given.keys()
            content = {
                "method": method,
                "set": jsonable(_override(_override(defaults, changes, kind), given, kind)),
                "benchmark": spec.name,
                "data": spec.location,
                "forget_ratio": spec.ratio,
                **({"skew": spec.skew} if spec.skew else {}),
                "model": request.model,
                "reference": request.reference,
                "retain_only": request.retain_only,
                "visual_refit": request.visual_refit,
                "attacks": list(request.attacks),
                "device": request.device,
                **judged,
            }
            recipes[entry, ratio] = make_recipe(content)
    unused = [key for key in request.set if key not in used]
    if unused:
        hint = suggestion(unused[0], sorted(fields_known))
        raise ConfigError(
            f"--set {unused[0]}: neither the training nor any of the methods has such a field."
            f"{hint} `unsee show METHOD` lists what there is."
        )
    return recipes


def open_benchmarks(request: ComparisonRequest) -> Benchmarks:
    """Opens the benchmark of each forget ratio.

    Raises:
        ConfigError: If no benchmark of the request forgets that share, or trials are requested
            and there are no validation splits.
    """
    benchmarks: Benchmarks = {}
    offered: list[str] = []
    for text in request.benchmark:
        spec = parse_spec(text)
        if spec is None or spec.split:
            names = BENCHMARKS.names()
            hint = suggestion(re.split("[:@]", text)[0], names)
            raise ConfigError(
                f"--benchmark {text}:{hint} Type NAME or NAME@FOLDER, where NAME is one of "
                f"{', '.join(names)}."
            )
        kind = BENCHMARKS.get(spec.name)
        if kind.ratios:
            for ratio in request.forget_ratios or kind.ratios[:1]:
                benchmarks[ratio] = (replace(spec, ratio=ratio), replace(spec, ratio=ratio).open())
            continue
        benchmark = spec.open()
        share = benchmark.forget_ratio
        offered.append(f"{text} forgets {share} %")
        if share in request.forget_ratios or not request.forget_ratios:
            benchmarks[share] = (spec, benchmark)
    missing = [ratio for ratio in request.forget_ratios if ratio not in benchmarks]
    if missing:
        raise ConfigError(
            f"--forget-ratio {missing[0]}: {'; '.join(offered)}, and a share comes with references "
            "of its own: models that know all that another share keeps. Build one with `unsee "
            "pocket build --forget-people N --out DIR` (N people, of 40), and add --benchmark "
            "pocket@DIR."
        )
    if request.trials and not all(benchmark.validation() for _, benchmark in benchmarks.values()):
        raise ConfigError(
            f"{', '.join(request.benchmark)} has no validation splits to choose settings on. Type "
            "--trials 0 to run every method at its defaults, changed by --set."
        )
    return benchmarks


def _searches(
    request: ComparisonRequest, recipes: Mapping[Key, Recipe], benchmarks: Benchmarks
) -> dict[Key, tuple[Recipe, Mapping[str, Any]]]:
    """The recipes to tune, with the values to try; entries without such values are left out."""
    searches: dict[Key, tuple[Recipe, Mapping[str, Any]]] = {}
    if request.trials:
        for key, recipe in recipes.items():
            search = search_ranges(recipe, benchmarks[key[1]][1])
            if search:
                searches[key] = (
                    recipe.override({"attacks": [], "seed": request.seeds[0]}),
                    search,
                )
    return searches


def _tune(
    request: ComparisonRequest,
    searches: Mapping[Key, tuple[Recipe, Mapping[str, Any]]],
    out: Path,
    jobs: int,
    storage: str | None,
    on_done: OnDone,
) -> dict[str, str]:
    """Makes the trials that are missing; returns why those that failed did, by name."""
    tasks = {}
    for key, (recipe, search) in searches.items():
        name = slug(*key)
        if not (out / "tuned" / f"{name}.json").exists():
            arguments = (recipe, name, out, search, request.trials, storage)
            tasks[f"tune-{name}"] = Task(tune, arguments)
    failed = run_in_processes(tasks, jobs, out / "logs", on_done)
    return {name.removeprefix("tune-"): f"tuning: {why}" for name, why in failed.items()}


def _chosen(out: Path, name: str) -> tuple[dict[str, Any], int]:
    """The settings that trials chose, and the number of trials."""
    path = out / "tuned" / f"{name}.json"
    if not path.exists():
        return {}, 0
    tuned = read_tuned(path)
    return tuned["set"], len(tuned["trials"])


def keep_request(path: Path, request: Mapping[str, Any], kind: str, may_grow: str) -> None:
    """Writes the request of a new folder, and refuses another request in a folder that has one.

    Args:
        path: The file, in the folder itself.
        request: What must not change.
        kind: What the folder holds, such as "comparison".
        may_grow: What may be added to it later.

    Raises:
        RunError: If the folder holds something else.
    """
    out, text = path.parent, yaml.safe_dump(jsonable(request), sort_keys=True)
    if path.exists():
        if read_text(path) != text:
            raise RunError(
                f"{out} holds a {kind} with other settings (see {path}). Name another folder "
                f"with --out. {may_grow} alone may be added to it."
            )
        return
    if out.exists() and (not out.is_dir() or not is_empty(out)):
        raise RunError(f"{out} is not empty, and no {kind}. Name another folder with --out.")
    make_folder(out, "Name another with --out.")
    write_atomically(path, text)
