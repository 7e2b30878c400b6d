"""Settings chosen on validation splits: a number of trials, in a study that resumes.

What is minimised is the distance to the visual-retain reference over every measure, so that
neither a broken model nor one that forgot nothing is chosen. The test splits are not looked at.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unsee.benchmarks import BENCHMARKS, Benchmark
from unsee.errors import ConfigError, UnseeError
from unsee.evaluation.evaluate import evaluate
from unsee.files import write_atomically
from unsee.methods import METHODS, Search
from unsee.metrics import needs_reference
from unsee.models.vlm import VLM
from unsee.recipes.job import Job
from unsee.recipes.plan import plan
from unsee.recipes.unlearn import Recipe
from unsee.runs.reference_cache import reference_cache
from unsee.studies.scores import distance
from unsee.training.settings import TrainingSettings
from unsee.training.trainer import Trainer
from unsee.types import Sample

if TYPE_CHECKING:
    from optuna import Study, Trial
    from optuna.storages import BaseStorage


STUDIES, BESIDE = "studies.journal", "beside"


def ranges(recipe: Recipe, benchmark: Benchmark) -> Search:
    """What to try for a recipe's method: its `search`, rates scaled, less what the recipe sets.

    Raises:
        ConfigError: If a searched name is no field of the method or of the training.
    """
    method = METHODS.get(recipe.method)
    known = {f.name for f in (*fields(method), *fields(TrainingSettings))}
    for name in method.search:
        if name not in known:
            raise ConfigError(f"{recipe.method}.search names '{name}', which is no field of it.")
    # Rounded, or a rate would read 9.999999999999999e-05.
    scaled = {
        name: tuple(float(f"{v * benchmark.rate_scale:.6g}") for v in values)
        if name == "lr"
        else values
        for name, values in method.search.items()
    }
    fixed = set(recipe.set).union(
        *(meant for name, meant in method.presets.items() if recipe.set.get(name) is True)
    )
    return {name: values for name, values in scaled.items() if name not in fixed}


def start(recipe: Recipe, search: Search) -> dict[str, Any]:
    """The first trial: the defaults where they are in the range, else its middle."""
    method, settings, _ = recipe.build()
    defaults = {**asdict(settings), **asdict(method)}
    return {
        name: defaults[name] if defaults[name] in values else values[len(values) // 2]
        for name, values in search.items()
    }


def open_storage(out: Path, url: str | None) -> BaseStorage:
    """Where studies are kept: a journal in the output folder, or a database that many share.

    Raises:
        ConfigError: If the database cannot be opened.
    """
    import optuna
    from optuna.storages import JournalStorage, get_storage
    from optuna.storages.journal import JournalFileBackend

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    if url is None:
        return JournalStorage(JournalFileBackend(str(out / STUDIES)))
    try:
        return get_storage(url)
    except Exception as error:  # sqlalchemy and each driver have errors of their own
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ConfigError(
            f"--storage {url}: cannot be opened ({reason}). Give a database URL whose driver is "
            "installed, such as postgresql://USER@HOST/NAME, or leave it out for a file in --out."
        ) from error


def choose(
    search: Search,
    first: Mapping[str, Any],
    value: Callable[[Mapping[str, Any]], float],
    trials: int,
    study: Study,
    seed: int,
    shared: bool = False,
) -> dict[str, Any]:
    """Makes what is missing of the trials, and returns the best settings.

    The n-th trial is the same whether or not the search was broken off before. A trial that fails
    counts, and the others go on; settings that were tried already are not trained again.

    Args:
        search: Values by field.
        first: The first trial's settings.
        value: What settings are worth; the least is best.
        trials: How many to make, those of an earlier sitting included.
        study: Holds them.
        seed: Decides which are tried.
        shared: Whether other machines work on the study, whose trials are then left alone.

    Raises:
        ConfigError: If every trial failed.
    """
    from optuna.distributions import BaseDistribution, CategoricalDistribution
    from optuna.samplers import TPESampler
    from optuna.trial import TrialState

    grid: dict[str, BaseDistribution] = {
        name: CategoricalDistribution(values) for name, values in search.items()
    }
    if not shared:
        for broken in study.get_trials(states=(TrialState.RUNNING,)):
            study.tell(broken.number, state=TrialState.FAIL)
            study.enqueue_trial(broken.params)
    if not study.trials:
        study.enqueue_trial(dict(first))
    budget = min(trials, math.prod(len(values) for values in search.values()))
    while len(_made(study)) < budget:
        study.sampler = TPESampler(seed=1000 * seed + len(_made(study)))
        trial = study.ask(fixed_distributions=grid)
        known = [t for t in _made(study) if t.params == trial.params]
        try:
            found = known[0].value if known and known[0].value is not None else None
            study.tell(trial, value(trial.params) if found is None else found)
        except UnseeError as error:
            _failed(study, trial, str(error))
    best = [t for t in _made(study) if t.value is not None]
    if not best:
        errors = [t.user_attrs["error"] for t in _made(study)]
        raise ConfigError(f"all {len(errors)} trials failed; the first: {errors[0]}")
    return dict(min(best, key=lambda t: (t.value, t.number)).params)


def _made(study: Study) -> list[Any]:
    """Trials that came to an end: with a value, or with an error of their own."""
    return [t for t in study.trials if t.value is not None or "error" in t.user_attrs]


def _failed(study: Study, trial: Trial, error: str) -> None:
    from optuna.trial import TrialState

    trial.set_user_attr("error", error)
    study.tell(trial, state=TrialState.FAIL)


def tune(
    recipe: Recipe, name: str, out: Path, search: Search, trials: int, storage: str | None
) -> None:
    """Chooses a recipe's settings and writes them to out/tuned/NAME.json.

    Raises:
        UnseeError: If there is nothing to compare with, or every trial failed.
    """
    from optuna import create_study

    splits, told = _reference(recipe, out)

    def value(params: Mapping[str, Any]) -> float:
        tried, _ = plan(replace(recipe, set=recipe.set | dict(params)), "run", "")
        vlm = tried.load(tried.model)
        if tried.method is None:
            raise ConfigError("nothing to tune: the recipe has no method.")
        tried.method.unlearn(vlm, tried.data, Trainer(tried.settings))
        return distance(_measures(vlm, tried, splits), told)[0]

    # The name says all that a value depends on: a study of other settings is another study.
    asked = json.dumps([recipe.text("").split("\n", 1)[1], search], sort_keys=True, default=list)
    digest = hashlib.sha256(asked.encode()).hexdigest()[:8]
    study = create_study(
        study_name=f"{name}-{digest}", storage=open_storage(out, storage), load_if_exists=True
    )
    best = choose(
        search, start(recipe, search), value, trials, study, recipe.seed, storage is not None
    )
    made = [
        {"set": t.params, "distance": t.value, "error": t.user_attrs.get("error")}
        for t in _made(study)
    ]
    (out / "tuned").mkdir(exist_ok=True)
    found = {"set": best, "search": search, "trials": made}
    write_atomically(out / "tuned" / f"{name}.json", json.dumps(found, indent=1) + "\n")


def _reference(
    recipe: Recipe, out: Path
) -> tuple[dict[str, list[Sample]], dict[str, dict[str, Any]]]:
    """The validation splits and what the reference scores on them, asked once.

    Raises:
        ConfigError: If there is no reference.
    """
    job, _ = plan(recipe, "run", "")
    if "reference" not in job.references:
        raise ConfigError(
            "settings are chosen by the distance to the visual-retain reference, and there is "
            "none. Give it with --reference DIR, or type --trials 0."
        )
    benchmark = BENCHMARKS.get(recipe.benchmark).open(recipe.data, recipe.ratio, recipe.shots)
    splits = {split: list(samples) for split, samples in benchmark.validation().items()}
    shared = reference_cache(replace(job, splits=splits), out / BESIDE)
    told = shared.get_or_compute(
        "validation", lambda: _measures(job.load(job.references["reference"]), job, splits)
    )
    return splits, told


def _measures(vlm: VLM, job: Job, splits: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    found = evaluate(
        vlm,
        splits,
        metrics=[name for name in job.metrics if not needs_reference(name)],
        tasks=job.tasks,
        max_new_tokens=job.max_new_tokens,
    )
    return {key: {"value": estimate.value} for key, estimate in found.measures.items()}
