"""Runs a recipe or a job, as every function of the API that writes a run folder does."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from unsee.api.inputs import Progress, command_line
from unsee.errors import WorkerFinished
from unsee.files import refuse_nested
from unsee.progress import Bar, as_bar
from unsee.recipes.data_counts import data_counts
from unsee.recipes.evaluate import EvaluationRequest
from unsee.recipes.job import Job
from unsee.recipes.masking import masked
from unsee.recipes.plan import plan
from unsee.recipes.plan_evaluation import evaluation
from unsee.recipes.redaction import redacted
from unsee.recipes.unlearn import Recipe
from unsee.records.folder import RECIPE
from unsee.records.reader import Run
from unsee.runs import run as running
from unsee.runs.preflight import finished_run
from unsee.training.launcher import is_main_process
from unsee.training.watching import check_callbacks

LOGGER = logging.getLogger("unsee")

# Keys of recipes and requests that name what is read.
READ = (
    *("model", "patch", "forget", "retain", "strangers", "data", "holdout"),
    *("retain_holdout", "non_members", "target", "reference", "retain_only", "visual_refit"),
    *("splits", "references"),
)


def run_recipe(
    recipe: Recipe,
    kind: str,
    out: Path,
    progress: Progress,
    command: str | None,
    callbacks: Sequence[object] = (),
    beside: bool = False,
) -> Run:
    """Plans and runs a recipe.

    Args:
        recipe: The recipe.
        kind: What the record calls it: "demo", "unlearn" or "run".
        out: Run folder to write.
        progress: As for `unlearn`.
        command: How to repeat it; None is `unsee run` on the recipe in the run folder.
        callbacks: As for `unlearn`.
        beside: Whether references are asked while the model trains; see `unsee.runs.run.run`.
    """
    bar = as_bar(progress).stage("reading data")
    told = check_callbacks(callbacks)
    trust = {"trust_remote_code": recipe.trust_remote_code}
    command = command or command_line("run", {**trust, "out": out}, [out / "recipe.yaml"])
    with masked(recipe.redact, {**recipe.values(), "out": out}):
        refuse_in_inputs(recipe.values(), out)
        job, notes = plan(recipe, kind, command)
        if is_main_process():
            for note in (*notes, *job.advice()):
                LOGGER.warning(note)
        return run_job(replace(job, callbacks=told), out, bar, beside)


def run_request(request: EvaluationRequest, out: Path, bar: Bar, command: str) -> Run:
    """Plans and runs an evaluation or an audit.

    Args:
        request: The request.
        out: The run folder.
        bar: Shows the progress of every stage.
        command: How to repeat it.
    """
    with masked(request.redact, {**request.values(), "out": out}):
        refuse_in_inputs(request.values(), out)
        return run_job(evaluation(request, command), out, bar)


def refuse_in_inputs(values: Mapping[str, Any], out: Path) -> None:
    """Refuses a new run folder in a folder that the run reads.

    A run that was begun there goes on: earlier versions allowed it.

    Args:
        values: Plain values of the recipe or request, by key.
        out: The run folder.

    Raises:
        ConfigError: If it is one of these folders, or lies in one.
    """
    if (out / RECIPE).exists():
        return
    for key in READ:
        value = values.get(key)
        named = value if isinstance(value, Mapping) else {key: value}
        for name, given in named.items():
            several = given if isinstance(given, list | tuple) else [given]
            refuse_nested(out, [(name.replace("_", " "), one) for one in several])


def run_job(job: Job, out: Path, bar: Bar, beside: bool = False) -> Run:
    """Runs a job in its folder, and reads the record.

    Args:
        job: The job.
        out: The run folder.
        bar: Shows the progress of every stage.
        beside: As for `run_recipe`.

    Raises:
        WorkerFinished: In every process but the first, which writes the record.
    """
    if is_main_process():
        for line in data_counts(job):
            LOGGER.info(line)
    job = redacted(job, out)
    was_finished = is_main_process() and finished_run(job, out) is not None
    result = running.run(job, out, bar, beside=beside)
    if was_finished:
        LOGGER.warning(
            f"{out} holds this run, finished before. To run it again, name another folder with "
            "--out, or remove this one."
        )
    if result is None:
        raise WorkerFinished("the training is done; process 0 writes the record.")
    return result
