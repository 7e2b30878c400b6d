"""The stages of a run: unlearning, evaluation, attacks, and the summary of all."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict, replace
from datetime import UTC, datetime
from functools import cache as call_once
from functools import partial
from pathlib import Path
from typing import Any

import torch
from pydantic import Field, TypeAdapter

from unsee import report
from unsee.artifacts.guarantees import guarantees, snapshot
from unsee.artifacts.manifest import TENSORS
from unsee.artifacts.patch import write_patch
from unsee.artifacts.redaction import hub_id, redact_setting
from unsee.attacks.relearn import Relearn
from unsee.benchmarks import HELD_OUT, Scoring
from unsee.data.digests import data_hash
from unsee.errors import ConfigError, RunError
from unsee.evaluation.evaluate import evaluate
from unsee.evaluation.generation import answer_limit
from unsee.features.statistics import RepresentationShift
from unsee.files import combine_digests, hash_file, json_digest
from unsee.hub.snapshots import commits
from unsee.methods import Method
from unsee.metrics import reference_metrics
from unsee.metrics.names import People
from unsee.models.vlm import VLM
from unsee.progress import Bar
from unsee.recipes.components import build_method, build_settings
from unsee.recipes.job import Job
from unsee.records.folder import PARTS, REPORT, STATE, TRAIN, RunFolder, jsonable
from unsee.records.provenance import peak_memory, provenance
from unsee.records.schema import (
    SCHEMA,
    AnswerFaults,
    Artifacts,
    AttackOutcome,
    Attacks,
    BenchmarkRecord,
    Choice,
    Cost,
    Guarantees,
    HarnessTask,
    LearnedCheck,
    Measure,
    Measures,
    MethodRecord,
    Provenance,
    RecordPart,
    Representation,
    SampleResult,
    Summary,
)
from unsee.runs.attack_outcomes import attack_outcomes
from unsee.runs.captions import caption_outputs
from unsee.runs.equivalence_tests import equivalence_tests, not_attacked
from unsee.runs.gallery import gallery
from unsee.runs.headroom import learned_check
from unsee.runs.photograph_counts import count_photographs
from unsee.runs.photographs import PhotographResults, model_loaders
from unsee.runs.relearning_curves import (
    RelearningCurves,
    relearning_curves,
    relearning_outcomes,
)
from unsee.runs.stage_cache import StageCache
from unsee.training.distributed import DistributedContext
from unsee.training.settings import TrainingSettings
from unsee.training.trainer import Trainer, TrainingResult
from unsee.training.watching import WatchedProgress, Watcher
from unsee.types import Data


class Unlearned(RecordPart):
    """The record of the unlearning stage; its fields are those of `Summary`."""

    guarantees: Guarantees = Field(description="What was checked about the unlearned model.")
    cost: Cost = Field(description="Cost of unlearning.")
    choices: dict[str, Choice] | None = Field(description="Weights or neurons that were selected.")
    representation: Representation = Field(description="How far the features moved.")
    artifacts: Artifacts = Field(description="What was saved.")


class ModelScores(RecordPart):
    """The record of one model's evaluation."""

    measures: Measures = Field(description="By split/modality/metric.")
    rows: tuple[SampleResult, ...] = Field(description="One per sample.")
    tasks: dict[str, HarnessTask] = Field(
        default={}, description="Tasks of lm-evaluation-harness, by name."
    )


UNLEARNED = TypeAdapter(Unlearned)
MODEL_SCORES = TypeAdapter(ModelScores)


def describe_environment(
    job: Job, vlm: VLM, processes: int, inputs: Mapping[str, str]
) -> Provenance:
    """Returns versions, machine, seed and hashes before anything is done.

    Args:
        job: The job.
        vlm: The model before unlearning, patched if the job says so.
        processes: Number of processes that train together.
        inputs: The hashes of what the job reads, from `job_inputs`.
    """
    digests = [hash_file(patch / TENSORS) for patch in job.patches]
    patch = {"patch_sha256": digests[0] if len(digests) == 1 else json_digest(digests)}
    read = commits((job.model, *job.references.values(), *job.patches), "model")
    return provenance(
        job.settings.seed,
        str(vlm.device),
        inputs=dict(inputs),
        **({"hub": read} if read else {}),
        data_sha256=keyed_hash(job, data_hash(job.data)) if job.data != Data([], []) else None,
        **({"redacted_with": job.redactor.pseudonyms.key_id} if job.redactor else {}),
        **(patch if digests else {}),
        start_weights_sha256=weights_hash(vlm),
        processes=processes,
        quantization=asdict(vlm.quantization) if vlm.quantization else None,
    )


def keyed_hash(job: Job, digest: str) -> str:
    """Returns a hash over pictures; of a redacted job keyed, so that nobody can compute it."""
    return job.redactor.pseudonyms.digest("samples", digest) if job.redactor else digest


def weights_hash(vlm: VLM) -> str:
    """Returns the SHA-256 over all tensors that were loaded."""
    return vlm.hash("visual" if vlm.visual_only else "all")


def unlearn(
    job: Job,
    vlm: VLM,
    folder: RunFolder,
    bar: Bar,
    context: DistributedContext,
    watchers: Sequence[Watcher] = (),
) -> Unlearned | None:
    """Unlearns in place and saves the result; None if the job has no method.

    A resumed run takes the weights from the training state in the folder.

    Args:
        job: The job.
        vlm: The model; its weights change.
        folder: The run folder.
        bar: Shows the progress.
        context: The processes that train together.
        watchers: Told every step.
    """
    method = job.method
    if method is None:
        return None
    before = snapshot(vlm)
    shift = RepresentationShift.before(vlm, job.data)
    trainer = Trainer(
        job.settings,
        folder.path / STATE,
        folder.path / TRAIN,
        WatchedProgress(bar.stage(f"unlearning ({method.name})"), watchers),
        context,
    )
    result = method.unlearn(vlm, job.data, trainer)
    context.shutdown()
    vlm.model.requires_grad_(False)
    history = result.history

    def finish() -> Unlearned:
        saved = folder.path / job.save
        if not saved.exists():
            _save(job, method, vlm, result, saved)
        samples = 2 * job.settings.batch_size * job.settings.accumulate * history.steps
        return Unlearned(
            guarantees=guarantees(before, vlm, saved if job.save == "patch" else None),
            cost=Cost(
                seconds=history.seconds,
                steps=history.steps,
                trainable_parameters=history.trained,
                total_parameters=sum(p.numel() for p in vlm.model.parameters()),
                peak_memory_bytes=peak_memory(),
                samples_per_second=samples / history.seconds if samples else None,
            ),
            choices=dict(result.choices) or None,
            representation=Representation(**shift.after(vlm)),
            artifacts=Artifacts.model_validate({job.save: job.save}),
        )

    unlearned = StageCache(folder).get_or_compute(UNLEARNED, "trained", "", finish)
    _check_saved(folder, folder.path / job.save)
    return unlearned


def _check_saved(folder: RunFolder, saved: Path) -> None:
    """Compares what an interrupted run has saved with its hash.

    Raises:
        RunError: If it is not what was saved.
    """
    part = folder.path / PARTS / "saved.json"
    was_kept = part.exists()

    def digest() -> str:
        # The card is written later.
        weights = [path for path in saved.rglob("*") if path.suffix in (".safetensors", ".json")]
        return combine_digests({str(p.relative_to(saved)): hash_file(p) for p in weights})

    kept = folder.get_or_compute("saved", digest)
    if was_kept and kept != digest():
        raise RunError(
            f"{saved} is damaged: it is not what the run saved. Remove it and {part.parent}, and "
            "type the same command again, which saves it again."
        )


def _save(job: Job, method: Method, vlm: VLM, result: TrainingResult, saved: Path) -> None:
    """Saves the model, its LoRA adapter or its visual patch, as the job says."""
    if job.save == "model":
        vlm.save(saved)
    elif job.save == "adapter":
        if result.adapters is None:
            raise ConfigError(
                f"save=adapter: {method.name} leaves no LoRA adapter. Type --save model."
            )
        result.adapters.save(saved, hub_id(job.model))
    else:
        parameters = jsonable(asdict(method))
        if job.redactor is not None:
            parameters = job.redactor.typed(parameters)
        meta = {
            "method": method.name,
            "parameters": {key: redact_setting(key, value) for key, value in parameters.items()},
            "command": job.command,
            "names": {sample.concept for sample in job.data.forget if sample.concept},
        }
        write_patch(vlm, vlm.source, saved, meta, job.patches)


def ask_target(
    job: Job, vlm: VLM, folder: RunFolder, cache: StageCache, bar: Bar
) -> LearnedCheck | None:
    """Scores a benchmark's target model before anything is unlearned; None if there is no such job.

    Its scores are kept for `evaluate_models`. The reference is not scored yet, so the target is
    compared with chance.

    Args:
        job: The job.
        vlm: The model before unlearning.
        folder: The run folder.
        cache: Keeps the scores.
        bar: Shows the progress.
    """
    if job.method is None or job.benchmark is None or "target" not in job.references:
        return None
    # What is trained afterwards does not depend on what was asked before.
    with torch.random.fork_rng():
        scores = evaluate_models(job, vlm, folder, cache, bar, only=("target",))
    if "target" not in scores:
        return None
    summary = Summary(forgetting=tuple(job.forgetting), target=scores["target"].measures)
    return learned_check(job, summary)


def evaluate_models(
    job: Job,
    vlm: VLM,
    folder: RunFolder,
    cache: StageCache,
    bar: Bar,
    only: Collection[str] = (),
) -> dict[str, ModelScores]:
    """Evaluates the unlearned model, the target and the references; empty if nothing is asked.

    Args:
        job: The job.
        vlm: The unlearned model.
        folder: The run folder, whose `scores.jsonl` grows meanwhile.
        cache: Keeps each model's scores.
        bar: Shows the progress.
        only: Names of the models that are evaluated, and the reference where metrics need it; () is
            all of them.
    """
    if job.open_questions is not None or not (job.splits or job.suite):
        return {}
    sources: dict[str, str | Path | None] = {"unlearned": None, **job.references}
    metrics_of_reference = reference_metrics(job.metrics)
    people = People.of(job.splits, job.forgetting, job.data.retain)
    order = list(sources)
    if metrics_of_reference != list(job.metrics):
        # Metrics that compare with the reference need its rows first.
        order.sort(key=lambda name: name != "reference")
    if only:
        needed = ["reference"] if metrics_of_reference != list(job.metrics) else []
        order = [name for name in order if name in (*only, *needed)]
    scores: dict[str, ModelScores] = {}
    for name in order:
        source = sources[name]
        load = call_once(partial(job.load, source)) if source is not None else lambda: vlm

        def compute(name: str = name, load: Callable[[], VLM] = load) -> ModelScores:
            stage = bar.stage(f"asking the {name.replace('_', '-')} model")
            folder.write_scores({model: result.rows for model, result in scores.items()})
            reference = scores.get("reference")
            model = load()
            evaluation = evaluate(
                model,
                job.splits,
                metrics=metrics_of_reference if name == "reference" else job.metrics,
                better=job.better,
                forgetting=job.forgetting,
                reference=[row.to_dict() for row in reference.rows] if reference else None,
                tasks=job.tasks,
                max_new_tokens=job.max_new_tokens,
                people=people,
                rules=job.rules,
                outputs=caption_outputs(model, job.splits, job.forgetting) if job.encoder else None,
                on_batch=stage.count,
                on_rows=lambda rows: folder.append_scores(name, _results(rows)),
            )
            return ModelScores(
                measures={key: Measure.of(value) for key, value in evaluation.measures.items()},
                rows=_results(evaluation.rows),
            )

        scores[name] = cache.get_or_compute(MODEL_SCORES, "scores", name, compute)
        scores[name] = _with_tasks(job, scores[name], load, name, folder, bar)
    if not only:
        require_reference_values(scores)
    return {name: scores[name] for name in sources if name in scores}


def _results(rows: list[dict[str, Any]]) -> tuple[SampleResult, ...]:
    return tuple(SampleResult(**row) for row in rows)


def _with_tasks(
    job: Job,
    scores: ModelScores,
    load: Callable[[], VLM],
    model: str,
    folder: RunFolder,
    bar: Bar,
) -> ModelScores:
    """Returns the scores with those of the job's lm-evaluation-harness tasks."""
    suite = job.suite
    if suite is None:
        return scores
    for number, name in enumerate(suite.loaded):

        def compute(name: str = name) -> ModelScores:
            stage = bar.stage(f"{name}, {model.replace('_', '-')} model")
            return ModelScores(**suite.run(name, load(), stage.count))

        # The references' answers to tasks are not shared with other runs.
        tasks = StageCache(folder).get_or_compute(
            MODEL_SCORES, f"tasks-{model}-{number}", "", compute
        )
        # A task may be asked for by its own name and by its group's.
        rows = tuple(row for row in tasks.rows if row.split not in scores.tasks)
        scores = ModelScores(
            measures=scores.measures | tasks.measures,
            rows=scores.rows + rows,
            tasks=scores.tasks | tasks.tasks,
        )
    return scores


def scores_of_photographs(results: PhotographResults) -> dict[str, ModelScores]:
    """Returns what was measured on photographs as the scores of each model."""
    return {
        name: ModelScores(measures=measures, rows=results.rows[name])
        for name, measures in results.measures.items()
    }


def require_reference_values(scores: Mapping[str, ModelScores]) -> None:
    """Refuses measures that are judged by their distance to a reference that lacks them.

    Raises:
        ConfigError: If the reference model was evaluated and has no value of the measure.
    """
    if "reference" not in scores:
        return
    reference = scores["reference"].measures
    for key, measure in scores["unlearned"].measures.items():
        known = key in reference and reference[key].value is not None
        if measure.better == "reference" and measure.value is not None and not known:
            raise ConfigError(
                f"'{key}' is judged by its distance to the reference model, which has no value of "
                "it. Give another model with --reference DIR, or leave the metric out."
            )


def attack_models(
    job: Job, vlm: VLM, cache: StageCache, scores: Mapping[str, ModelScores], bar: Bar
) -> Attacks | None:
    """Attacks the unlearned model and the references; None if the job has no attack.

    Args:
        job: The job.
        vlm: The unlearned model.
        cache: Keeps each attack's outcome.
        scores: The models' scores before the attacks.
        bar: Shows the progress.
    """
    if not job.attacks:
        return None
    scoring = _attack_scoring(job, vlm)
    curves, outcomes = _attack(job, scoring, model_loaders(job, vlm), cache, bar)
    target = scores["target"].measures if "target" in scores else {}
    relearning = relearning_outcomes(curves, scoring, target)
    return Attacks.model_validate(({"relearn": relearning} if relearning else {}) | outcomes)


def attack_references(job: Job, vlm: VLM, cache: StageCache, bar: Bar) -> None:
    """Attacks the references alone, whose outcomes the cache then has.

    Args:
        job: The job.
        vlm: The model before unlearning.
        cache: Keeps each attack's outcome.
        bar: Shows the progress.
    """
    loaders = model_loaders(job, vlm)
    references = {name: loaders[name] for name in job.references}
    _attack(job, _attack_scoring(job, vlm), references, cache, bar)


def _attack(
    job: Job,
    scoring: Mapping[str, Scoring],
    loaders: Mapping[str, Callable[[], VLM]],
    cache: StageCache,
    bar: Bar,
) -> tuple[list[RelearningCurves], dict[str, tuple[AttackOutcome, ...]]]:
    """The relearning curves of models, and the other attacks' outcomes."""
    models = {name: load for name, load in loaders.items() if name != "target"}
    # Relearning alone has a curve; within a chain it is an attack like any other.
    budgets = [c[0] for c in job.attacks if len(c) == 1 and isinstance(c[0], Relearn)]
    chains = [c for c in job.attacks if len(c) > 1 or not isinstance(c[0], Relearn)]
    curves = relearning_curves(budgets, models, job.attacker, job.splits, cache, bar, scoring)
    if "target" in loaders:
        models["target"] = loaders["target"]
    outcomes = attack_outcomes(
        chains,
        models,
        job.attacker,
        job.splits,
        cache,
        bar,
        job.max_new_tokens,
        job.rules,
    )
    return curves, outcomes


def _attack_scoring(job: Job, vlm: VLM) -> dict[str, Scoring]:
    """How attacks are scored; where nothing is declared, with room for the longest true answer."""
    # A benchmark's limit is that of its own questions, not of an attack.
    limit = job.max_new_tokens
    given = limit if job.benchmark is None and isinstance(limit, int) else None
    limits = {
        name: given or answer_limit(vlm, job.splits[name])
        for name in HELD_OUT
        if name in job.splits and name not in job.scoring
    }
    found = {**job.scoring, **{n: Scoring(max_new_tokens=number) for n, number in limits.items()}}
    return {n: replace(scoring, rules=job.rules) for n, scoring in found.items()}


def summarize(
    job: Job,
    name: str,
    unlearned: Unlearned | None,
    scores: Mapping[str, ModelScores],
    attacks: Attacks | None,
    environment: Provenance,
    photographs: PhotographResults | None = None,
) -> Summary:
    """Returns the record of the run.

    Args:
        job: The job.
        name: The run's name.
        unlearned: From `unlearn`.
        scores: From `evaluate_models`.
        attacks: From `attack_models`.
        environment: Versions, machine, seed and hashes.
        photographs: From `measure_photographs`; None if the job has samples with answers.
    """
    saved = unlearned.artifacts if unlearned else Artifacts()
    checked = unlearned.guarantees if unlearned else None
    if checked is not None and photographs is not None:
        checked = photographs.with_text(checked)
    measures = {model: result.measures for model, result in scores.items()}
    rows = {model: result.rows for model, result in scores.items()}
    models: dict[str, Any] = {name: measures[name] for name in measures if name != "unlearned"}
    faults = {model: answer_faults(results) for model, results in rows.items()}
    if any(faults.values()):
        models["faults"] = {model: counts for model, counts in faults.items() if counts}
    shown = [*job.data.forget, *job.data.retain, *(s for some in job.splits.values() for s in some)]
    pictures = {os.path.abspath(p.source): p for s in shown for p in s.pictures}
    pictures |= {os.path.abspath(p.source): p for p in job.data.strangers}
    summary = Summary(
        schema=SCHEMA,
        name=name,
        kind=job.kind,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        command=job.command,
        verdict="",
        method=_method_record(job.method, job.settings),
        benchmark=BenchmarkRecord.model_validate(job.benchmark) if job.benchmark else None,
        forgetting=tuple(job.forgetting),
        measures=measures.get("unlearned") or None,
        **models,
        guarantees=checked,
        attacks=attacks,
        cost=unlearned.cost if unlearned else None,
        choices=unlearned.choices if unlearned else None,
        representation=unlearned.representation if unlearned else None,
        gallery=gallery(rows, job.forgetting, pictures=pictures) if job.redactor is None else None,
        harness=job.suite.record(scores["unlearned"].tasks) if job.suite else None,
        provenance=environment,
        artifacts=saved.model_copy(update={"report": REPORT}),
    )
    choices = unlearned.choices if unlearned else None
    judged: dict[str, Any] = {
        "photographs": count_photographs(job.data.forget, choices) if unlearned else None,
        "learned": learned_check(job, summary),
        "equivalence": equivalence_tests(
            job, rows, attacks, photographs.people if photographs is not None else None
        ),
        "not_attacked": not_attacked(job.attacks) if attacks is not None else None,
        "attacks_left_out": dict(job.attacks_left_out) or None,
        "recognition": photographs.record if photographs is not None else None,
    }
    judged = {name: value for name, value in judged.items() if value is not None}
    summary = summary.model_copy(update=judged)
    return summary.model_copy(update={"verdict": report.verdict(summary)})


def answer_faults(rows: Sequence[SampleResult]) -> dict[str, AnswerFaults]:
    """Counts broken answers by "split/modality"; only where there are any.

    Args:
        rows: A model's rows.
    """
    counts: dict[str, Counter[str]] = {}
    for row in rows:
        counter = counts.setdefault(f"{row.split}/{row.modality}", Counter())
        counter.update(["answers", *([row.fault] if row.fault else [])])
    return {key: AnswerFaults(**count) for key, count in counts.items() if len(count) > 1}


def _method_record(method: Method | None, settings: TrainingSettings) -> MethodRecord | None:
    if method is None:
        return None
    parameters = jsonable(asdict(method)) | jsonable(asdict(settings))
    default = build_method(method.name, {}), build_settings(method.name, {})
    usual = jsonable(asdict(default[0])) | jsonable(asdict(default[1]))
    return MethodRecord(
        name=method.name,
        parameters=parameters,
        changed=tuple(key for key, value in parameters.items() if value != usual.get(key)),
        source=method.source,
    )
