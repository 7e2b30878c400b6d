"""Tunes settings on validation splits: a number of trials, in an Optuna study that resumes.

Minimised is the distance to the visual-retain reference over all measures, so that neither a broken
model nor one that forgot nothing is chosen. The test splits are not used.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unsee.benchmarks import Benchmark
from unsee.data.digests import content_hash
from unsee.errors import ConfigError, RunError, UnseeError, first_line, require_extra
from unsee.evaluation.evaluate import evaluate
from unsee.files import json_digest, make_folder, read_text, write_atomically
from unsee.methods import Search
from unsee.metrics import needs_reference
from unsee.models.vlm import VLM
from unsee.recipes.job import Job
from unsee.recipes.plan import plan
from unsee.recipes.specs import Spec
from unsee.recipes.unlearn import Recipe
from unsee.records.schema import Measure, Measures
from unsee.runs.content import job_inputs
from unsee.runs.reference_cache import reference_cache
from unsee.studies.scores import distance
from unsee.training.settings import TrainingSettings
from unsee.training.trainer import Trainer
from unsee.types import Sample

if TYPE_CHECKING:
    from optuna import Study, Trial
    from optuna.storages import BaseStorage


STUDIES, REFERENCE_CACHE = "studies.journal", "beside"


def search_ranges(recipe: Recipe, benchmark: Benchmark) -> Search:
    """Returns the values to try for a recipe's method, by field.

    They are the method's `search`, with learning rates scaled to the benchmark, and without the
    fields that the recipe sets.

    Raises:
        ConfigError: If a searched name is a field of neither the method nor the training.
    """
    method = recipe.method
    known = {f.name for f in (*fields(method), *fields(TrainingSettings))}
    for name in method.search:
        if name not in known:
            raise ConfigError(
                f"{method.name}.search names '{name}', which is not a field of the "
                "method or the training."
            )
    # Rounded, so that a rate does not read 9.999999999999999e-05.
    scaled = {
        name: tuple(float(f"{v * benchmark.rate_scale:.6g}") for v in values)
        if name == "lr"
        else values
        for name, values in method.search.items()
    }
    return {name: values for name, values in scaled.items() if name not in recipe.fixed}


def first_trial(recipe: Recipe, search: Search) -> dict[str, Any]:
    """Returns the settings of the first trial: each default if it is searched, else the middle."""
    defaults = {**asdict(recipe.training), **asdict(recipe.method)}
    return {
        name: defaults[name] if defaults[name] in values else values[len(values) // 2]
        for name, values in search.items()
    }


def open_storage(out: Path, url: str | None) -> BaseStorage:
    """Opens the storage of studies: a journal in the output folder, or a database to share.

    Raises:
        ConfigError: If the database cannot be opened, or Optuna is not installed.
    """
    require_extra("optuna", "compare", "choosing settings by trials")
    import optuna
    from optuna.storages import JournalStorage, get_storage

    from unsee.studies.journal import CheckedJournal

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    if url is None:
        return JournalStorage(CheckedJournal(out / STUDIES))
    try:
        return get_storage(url)
    except Exception as error:  # sqlalchemy and each driver have errors of their own
        raise ConfigError(
            f"--storage {url}: cannot be opened ({first_line(error)}). Give a database URL whose "
            "driver is installed, such as postgresql://USER@HOST/NAME, or leave it out for a file "
            "in --out."
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
    """Makes the trials that are missing, and returns the best settings.

    The n-th trial is the same whether or not the search was stopped in between. A trial that fails
    counts, and the others continue; settings that were tried before are not trained again.

    Args:
        search: The values to try, by field.
        first: The settings of the first trial.
        value: The function of the settings to minimise.
        trials: Number of trials, those of earlier calls included.
        study: The study that stores them.
        seed: The seed of the sampler.
        shared: Whether other machines work on the study; their running trials are then left alone.

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
        for stopped in study.get_trials(states=(TrialState.RUNNING,)):
            study.tell(stopped.number, state=TrialState.FAIL)
            study.enqueue_trial(stopped.params)
    if not study.trials:
        study.enqueue_trial(dict(first))
    budget = min(trials, math.prod(len(values) for values in search.values()))
    while len(_ended(study)) < budget:
        study.sampler = TPESampler(seed=1000 * seed + len(_ended(study)))
        trial = study.ask(fixed_distributions=grid)
        known = [t for t in _ended(study) if t.params == trial.params]
        try:
            earlier = known[0].value if known and known[0].value is not None else None
            study.tell(trial, value(trial.params) if earlier is None else earlier)
        except UnseeError as error:
            _record_failure(study, trial, str(error))
    best = [t for t in _ended(study) if t.value is not None]
    if not best:
        errors = [t.user_attrs["error"] for t in _ended(study)]
        raise ConfigError(f"all {len(errors)} trials failed; the first: {errors[0]}")
    return dict(min(best, key=lambda t: (t.value, t.number)).params)


def _ended(study: Study) -> list[Any]:
    """The trials that ended with a value, or with an error of their own."""
    return [t for t in study.trials if t.value is not None or "error" in t.user_attrs]


def _record_failure(study: Study, trial: Trial, error: str) -> None:
    from optuna.trial import TrialState

    trial.set_user_attr("error", error)
    study.tell(trial, state=TrialState.FAIL)


def tune(
    recipe: Recipe, name: str, out: Path, search: Search, trials: int, storage: str | None
) -> None:
    """Tunes a recipe's settings, and writes them to out/tuned/NAME.json.

    Args:
        recipe: The recipe, without attacks.
        name: The name of the file.
        out: The comparison's folder.
        search: The values to try, by field.
        trials: Number of trials.
        storage: The database of the trials; None is a file in `out`.

    Raises:
        UnseeError: If there is no reference to compare with, or every trial failed.
    """
    opened = open_storage(out, storage)
    from optuna import create_study

    splits, reference = _reference(recipe, out)

    def value(params: Mapping[str, Any]) -> float:
        job, _ = plan(recipe.override(params), "run", "")
        vlm = job.load(job.model)
        if job.method is None:
            raise ConfigError("nothing to tune: the recipe has no method.")
        job.method.unlearn(vlm, job.data, Trainer(job.settings))
        return distance(_measures(vlm, job, splits), reference)[0]

    # The study's name depends on everything that a value depends on.
    job, _ = plan(recipe, "run", "")
    validation = {split: content_hash(samples) for split, samples in splits.items()}
    content = [recipe.identity(), search, job_inputs(job), validation]
    identity = json.dumps(content, sort_keys=True, default=list)
    digest = hashlib.sha256(identity.encode()).hexdigest()[:8]
    study = create_study(study_name=f"{name}-{digest}", storage=opened, load_if_exists=True)
    best = choose(
        search, first_trial(recipe, search), value, trials, study, recipe.seed, storage is not None
    )
    ended = [
        {"set": t.params, "distance": t.value, "error": t.user_attrs.get("error")}
        for t in _ended(study)
    ]
    make_folder(out / "tuned")
    result = json.loads(json.dumps({"set": best, "search": search, "trials": ended}))
    text = json.dumps({**result, "sha256": json_digest(result)}, indent=1)
    write_atomically(out / "tuned" / f"{name}.json", text + "\n")


def read_tuned(path: Path) -> dict[str, Any]:
    """Returns the chosen settings and the trials in a file of `tune`.

    Raises:
        RunError: If it is not what was written.
    """
    text = read_text(path)
    try:
        tuned = json.loads(text)
        # Files of 0.1 have no hash.
        sha256 = tuned.pop("sha256", None)
        if {"set", "trials"} <= tuned.keys() and sha256 in (None, json_digest(tuned)):
            chosen: dict[str, Any] = tuned
            return chosen
    except (ValueError, AttributeError, TypeError, RecursionError):
        pass
    raise RunError(
        f"{path} is damaged: it is not what was written. Remove it and type the same command "
        "again, which reads the choice from the trials."
    )


def _reference(recipe: Recipe, out: Path) -> tuple[dict[str, list[Sample]], Measures]:
    """The validation splits, and the reference's measures on them, computed once.

    Raises:
        ConfigError: If there is no reference.
    """
    job, _ = plan(recipe, "run", "")
    if "reference" not in job.references:
        raise ConfigError(
            "settings are chosen by the distance to the visual-retain reference, and there is "
            "none. Give it with --reference DIR, or type --trials 0."
        )
    benchmark = Spec(
        recipe.benchmark, "", recipe.data, recipe.forget_ratio, recipe.shots, skew=recipe.skew
    ).open()
    splits = {split: list(samples) for split, samples in benchmark.validation().items()}

    def score() -> dict[str, Any]:
        measures = _measures(job.load(job.references["reference"]), job, splits)
        return {key: measure.to_dict() for key, measure in measures.items()}

    cache = reference_cache(replace(job, splits=splits), out / REFERENCE_CACHE)
    stored = cache.get_or_compute("validation", score)
    return splits, {key: Measure.model_validate(measure) for key, measure in stored.items()}


def _measures(vlm: VLM, job: Job, splits: Mapping[str, Any]) -> Measures:
    """The measures that need no other model's outputs."""
    evaluation = evaluate(
        vlm,
        splits,
        metrics=[name for name in job.metrics if not needs_reference(name)],
        tasks=job.tasks,
        max_new_tokens=job.max_new_tokens,
        rules=job.rules,
    )
    return {key: Measure(value=estimate.value) for key, estimate in evaluation.measures.items()}
