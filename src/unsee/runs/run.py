"""Runs a job in a run folder: unlearn, evaluate, attack, record, report; each stage once."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path

from unsee import report
from unsee.artifacts.model_card import card_of_run
from unsee.artifacts.patch import apply_in_memory
from unsee.artifacts.pseudonyms import Salt
from unsee.errors import UnseeError
from unsee.files import RETRY, remove
from unsee.models.devices import pick_device
from unsee.models.vlm import VLM
from unsee.progress import Bar
from unsee.recipes.job import Job
from unsee.recipes.redaction import redacted
from unsee.recipes.resume import same_recipe
from unsee.records.folder import PARTS, REPORT, STATE, TRAIN, RunFolder, tidy
from unsee.records.lock import exclusive, is_empty
from unsee.records.reader import Run, read_run
from unsee.runs.content import check_content, job_inputs, keep_environment
from unsee.runs.photographs import measure_photographs
from unsee.runs.preflight import check_job, check_model, finished_run
from unsee.runs.reference_cache import ReferenceCache, reference_cache
from unsee.runs.references_beside import asked_beside
from unsee.runs.stage_cache import StageCache
from unsee.runs.stages import (
    ask_target,
    attack_models,
    describe_environment,
    evaluate_models,
    scores_of_photographs,
    summarize,
    unlearn,
    weights_hash,
)
from unsee.runs.watched import watching
from unsee.training.distributed import DistributedContext
from unsee.training.launcher import is_main_process
from unsee.training.trainer import Trainer
from unsee.training.watching import Watcher

LOGGER = logging.getLogger("unsee")


def run(
    job: Job, out: Path, bar: Bar, cache: Path | None = None, beside: bool = False
) -> Run | None:
    """Runs a job in a run folder, or resumes it where it was interrupted.

    A folder that holds the same job, finished, is read and left as it is.

    Args:
        job: The job.
        out: The run folder.
        bar: Shows the progress of every stage.
        cache: Folder of results about reference models, which runs of other methods share; None
            computes them for this run alone.
        beside: Whether a second process asks and attacks the references while this one trains,
            instead of `cache`; see `asked_beside`.

    Returns:
        The run, as read from its folder; None on every process but the main one, which alone
        writes.

    Raises:
        UnseeError: If anything is wrong; the same command then resumes the run.
    """
    job = redacted(job, out)
    if not is_main_process():
        return _train_beside(job, out)
    with exclusive(out):
        finished = finished_run(job, out)
        if finished is not None:
            check_content(out, job_inputs(job), job.device, finished=True)
            tidy(out, finished=True)
            return finished
        context = DistributedContext.initialize(job.settings, pick_device(job.device))
        RunFolder.refuse(out, job.recipe, same_recipe)
        check_job(job)
        inputs = job_inputs(job)
        check_content(out, inputs, job.device, finished=False)
        vlm = _load(job)
        with _removed_if_refused(out, job.method is not None, job.key):
            tidy(out)
            if job.key is not None:
                job.key.keep()
            folder = RunFolder.open(out, job.recipe, same_recipe, job.redactor)
            references = _shared_references(job, out, cache, beside)
            with watching(job, folder) as watchers, references as shared:
                _run_stages(job, vlm, folder, bar, context, shared, inputs, watchers)
    return read_run(out)


def _shared_references(
    job: Job, out: Path, cache: Path | None, beside: bool
) -> AbstractContextManager[ReferenceCache | None]:
    """The cache of results about references; see `run`. A redacted run has none: it has answers."""
    if job.redactor is not None:
        return nullcontext()
    if beside:
        return asked_beside(job, out)
    return nullcontext(reference_cache(job, cache) if cache is not None else None)


def _train_beside(job: Job, out: Path) -> Run | None:
    """The part of every process but the main one: it trains with it, and writes nothing."""
    finished = finished_run(job, out)
    if finished is not None:
        return finished
    context = DistributedContext.initialize(job.settings, pick_device(job.device))
    check_job(job)
    vlm = _load(job)
    if job.method is not None:
        job.method.unlearn(vlm, job.data, Trainer(job.settings, out / STATE, context=context))
        context.shutdown()
    return None


def _load(job: Job) -> VLM:
    """The model of a job, patched if the job says so."""
    vlm = job.load(job.model)
    if job.patches and job.method is None:
        apply_in_memory(job.patches, vlm)
    check_model(job, vlm)
    return vlm


@contextmanager
def _removed_if_refused(out: Path, trains: bool, key: Salt | None) -> Iterator[None]:
    """Empties a new run folder if an error comes before the first step or result.

    Args:
        out: The run folder.
        trains: Whether the run trains: then its first training step counts, not its first answers,
            so that the same folder takes other settings after a refusal.
        key: The key of a redacted run; a new one is removed with the run.
    """
    is_new = is_empty(out)
    try:
        yield
    except UnseeError:
        log, parts = out / TRAIN, out / PARTS
        begun = log.exists() and log.stat().st_size if trains else parts.is_dir()
        if is_new and not begun:
            for path in out.iterdir():
                remove(path)
            if key is not None and key.is_new:
                remove(key.path)
        raise


def _run_stages(
    job: Job,
    vlm: VLM,
    folder: RunFolder,
    bar: Bar,
    context: DistributedContext,
    shared: ReferenceCache | None,
    inputs: Mapping[str, str],
    watchers: Sequence[Watcher],
) -> None:
    """Does every stage that is not done yet, and writes the record and the report."""
    out = folder.path
    environment = describe_environment(job, vlm, context.world_size, inputs)
    keep_environment(out, environment)
    stage_cache = StageCache(folder, shared, job.references)
    # Other processes would wait for the first one's answers.
    learned = ask_target(job, vlm, folder, stage_cache, bar) if context.world_size == 1 else None
    if learned is not None and not learned.enough:
        LOGGER.warning(
            f"the target model scores {learned.target or 0.0:.2f} on {learned.measure}, "
            f"{learned.headroom or 0.0:.2f} above {learned.floor_of}: it knows too little of what "
            f"is to be forgotten (min_headroom is {learned.required:g}), so scores of forgetting "
            "mean nothing. Check that the model was trained on the benchmark's people."
        )
    unlearned = unlearn(job, vlm, folder, bar, context, watchers)
    photographs = None
    if job.open_questions is not None:
        photographs = measure_photographs(job, vlm, folder, stage_cache, bar)
    scores = evaluate_models(job, vlm, folder, stage_cache, bar)
    scores |= scores_of_photographs(photographs) if photographs is not None else {}
    for watcher in watchers:
        watcher.evaluated({name: result.measures for name, result in scores.items()})
    attacks = attack_models(job, vlm, stage_cache, scores, bar)
    folder.write_scores({name: result.rows for name, result in scores.items()})
    environment = environment.model_copy(update={"result_weights_sha256": weights_hash(vlm)})
    summary = summarize(job, out.name, unlearned, scores, attacks, environment, photographs)
    if job.redactor is not None:
        summary = job.redactor.summary(summary)
    if job.method is not None:
        pseudonyms = job.redactor.pseudonyms if job.redactor is not None else None
        people = job.data.forget
        card = card_of_run(summary, job.save, str(job.model), people, job.names, pseudonyms)
        card.write(out / job.save)
    for watcher in watchers:
        watcher.finished(summary)
    folder.finish(summary)
    report.write([out], out / REPORT, advice=RETRY)
    folder.remove_temporary_files()
