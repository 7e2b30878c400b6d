"""The order of things: train, evaluate, attack, record, report; each stage done once."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from datetime import UTC, datetime
from functools import cache, partial
from pathlib import Path
from typing import Any

from unsee import report
from unsee.artifacts.guarantees import guarantees, snapshot
from unsee.artifacts.manifest import TENSORS
from unsee.artifacts.model_card import card_of_run
from unsee.artifacts.patch import apply_in_memory, write_patch
from unsee.artifacts.redaction import hub_id, redact_setting
from unsee.attacks.relearn import Relearn
from unsee.data.digests import data_hash
from unsee.errors import ConfigError, UnseeError
from unsee.evaluation.evaluate import evaluate
from unsee.features.statistics import RepresentationShift
from unsee.files import hash_file, write_atomically
from unsee.methods import Method
from unsee.metrics import reference_metrics, select_metrics
from unsee.models.devices import pick_device
from unsee.models.vlm import VLM
from unsee.progress import Bar
from unsee.recipes.job import Job
from unsee.records.folder import ENVIRONMENT, REPORT, STATE, TRAIN, Part, RunFolder, jsonable
from unsee.records.provenance import peak_memory, provenance
from unsee.runs.attack_outcomes import assess, check
from unsee.runs.gallery import gallery
from unsee.runs.reference_cache import reference_cache
from unsee.runs.relearning_curves import recover
from unsee.training.distributed import DistributedContext
from unsee.training.settings import TrainingSettings
from unsee.training.trainer import Trainer
from unsee.types import Data

Score = dict[str, Any]


Rows = list[Score]


def run(job: Job, out: Path, bar: Bar, cache: Path | None = None) -> dict[str, Any] | None:
    """Does the job in a run folder, or goes on with it where it was broken off.

    Args:
        job: What to do.
        out: The run folder.
        bar: Told about every stage.
        cache: Where runs of other methods leave what the references say; None asks them anew.

    Returns:
        The content of summary.json; None on every process but the main one, which alone writes.

    Raises:
        UnseeError: If anything is wrong; the folder then resumes with the same command.
    """
    context = DistributedContext.initialize(job.settings, pick_device(job.device))
    if context.rank == 0:
        RunFolder.refuse(out, job.recipe)
    for chain in job.attacks:
        check(chain, job.data, job.splits)
    select_metrics(job.metrics, "reference" in job.references)
    if job.method is not None:
        job.method.check(job.data)
        job.method.check_settings(job.settings)
    vlm = job.load(job.model)
    if job.patch is not None:
        apply_in_memory(job.patch, vlm)
    if job.suite is not None:
        job.suite.check(vlm)
    if job.method is not None or job.attacks:
        vlm.refuse_training()
    if context.rank and job.method is not None:
        job.method.unlearn(vlm, job.data, Trainer(job.settings, out / STATE, context=context))
        context.shutdown()
        return None
    with _nothing_left(out):
        return _run(job, vlm, RunFolder.open(out, job.recipe), bar, context, cache)


@contextmanager
def _nothing_left(out: Path) -> Iterator[None]:
    """Takes a new run folder away again if its very first step was refused."""
    missing = [p for p in (out, *out.parents) if not p.exists()]
    try:
        yield
    except UnseeError:
        log = out / TRAIN
        if missing and not (log.exists() and log.stat().st_size):
            shutil.rmtree(missing[-1], ignore_errors=True)
        raise


def _run(
    job: Job, vlm: VLM, folder: RunFolder, bar: Bar, context: DistributedContext, cache: Path | None
) -> dict[str, Any]:
    out = folder.path
    environment = provenance(
        job.settings.seed,
        str(vlm.device),
        data_sha256=data_hash(job.data) if job.data != Data([], []) else None,
        **({"patch_sha256": hash_file(job.patch / TENSORS)} if job.patch is not None else {}),
        start_weights_sha256=vlm.hash("visual" if vlm.visual_only else "all"),
    )
    environment["processes"] = context.world_size
    environment["quantization"] = asdict(vlm.quantization) if vlm.quantization else None
    write_atomically(out / ENVIRONMENT, json.dumps(environment, indent=1) + "\n")
    trained = _train(job, vlm, folder, bar, context)
    part = _parts(job, folder, cache)
    evaluations = _evaluate(job, vlm, folder, part, bar)
    attacks = _attack(job, vlm, part, evaluations, bar)
    folder.write_scores({name: found["rows"] for name, found in evaluations.items()})
    result = vlm.hash("visual" if vlm.visual_only else "all")
    summary: dict[str, Any] = {
        "schema": 1,
        "name": out.name,
        "kind": job.kind,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": job.command,
        "verdict": "",
        "method": _describe(job.method, job.settings),
        "benchmark": dict(job.benchmark) if job.benchmark else None,
        "forgetting": list(job.forgetting),
        "measures": evaluations.get("unlearned", {}).get("measures") or None,
        **{n: evaluations[n]["measures"] for n in evaluations if n != "unlearned"},
        "guarantees": trained.get("guarantees"),
        "attacks": attacks or None,
        "cost": trained.get("cost"),
        "choices": trained.get("choices"),
        "representation": trained.get("representation"),
        "gallery": gallery(evaluations, job.forgetting),
        "harness": job.suite.facts(evaluations["unlearned"]["tasks"]) if job.suite else None,
        "provenance": environment | {"result_weights_sha256": result},
        "artifacts": {**(trained.get("artifacts") or {}), "report": REPORT},
    }
    summary["verdict"] = report.verdict(report.parse_summary(summary))
    if job.method is not None:
        card_of_run(summary, job.save, str(job.model), job.data.forget, job.names).write(
            out / job.save
        )
    folder.finish(summary)
    report.write([out], out / REPORT)
    folder.remove_temporary_files()
    return summary


def _train(
    job: Job, vlm: VLM, folder: RunFolder, bar: Bar, context: DistributedContext
) -> dict[str, Any]:
    """Unlearns in place; a resumed run takes the weights from the state it finds."""
    method = job.method
    if method is None:
        return {}
    before = snapshot(vlm)
    shift = RepresentationShift.before(vlm, job.data)
    trainer = Trainer(
        job.settings,
        folder.path / STATE,
        folder.path / TRAIN,
        bar.stage(f"unlearning ({method.name})"),
        context,
    )
    result = method.unlearn(vlm, job.data, trainer)
    context.shutdown()
    vlm.model.requires_grad_(False)
    history = result.history

    def finish() -> dict[str, Any]:
        saved = folder.path / job.save
        if not saved.exists():
            if job.save == "model":
                vlm.save(saved)
            elif job.save == "adapter":
                if result.adapters is None:
                    raise ConfigError(
                        f"save=adapter: {method.name} leaves no LoRA adapter. Type --save model."
                    )
                result.adapters.save(saved, hub_id(job.model))
            else:
                meta = {
                    "method": method.name,
                    "parameters": {
                        k: redact_setting(k, v) for k, v in jsonable(asdict(method)).items()
                    },
                    "command": job.command,
                    "names": {s.concept for s in job.data.forget if s.concept},
                }
                write_patch(vlm, vlm.source, saved, meta)
        proof = guarantees(before, vlm, saved if job.save == "patch" else None)
        samples = 2 * job.settings.batch_size * job.settings.accumulate * history.steps
        return {
            "guarantees": asdict(proof),
            "cost": {
                "seconds": history.seconds,
                "steps": history.steps,
                "trainable_parameters": history.trained,
                "total_parameters": sum(p.numel() for p in vlm.model.parameters()),
                "peak_memory_bytes": peak_memory(),
                "samples_per_second": samples / history.seconds if samples else None,
            },
            "choices": result.choices or None,
            "representation": shift.after(vlm),
            "artifacts": {job.save: job.save},
        }

    found: dict[str, Any] = folder.get_or_compute("trained", finish)
    return found


def _parts(job: Job, folder: RunFolder, cache: Path | None) -> Part:
    """Keeps what is found of each model; of those beside it, for runs of other methods too."""
    shared = reference_cache(job, cache) if cache is not None else None

    def part(what: str, model: str, make: Callable[[], Any], by: Any = None) -> Any:
        name = f"{what}-{model}"
        if shared is None or model not in job.references:
            return folder.get_or_compute(name, make)
        return folder.get_or_compute(
            name, lambda: shared.get_or_compute(f"{name} {by or ''}", make)
        )

    return part


def _evaluate(
    job: Job, vlm: VLM, folder: RunFolder, part: Part, bar: Bar
) -> dict[str, dict[str, Any]]:
    """Scores of the model and of those beside it: {"measures", "rows"} by model."""
    if job.visual_only or not (job.splits or job.suite):
        return {}
    found: dict[str, dict[str, Any]] = {}
    subjects: dict[str, str | Path | None] = {"unlearned": None, **job.references}
    theirs = reference_metrics(job.metrics)
    order = list(subjects)
    if theirs != list(job.metrics):
        # What compares with the reference needs its rows first.
        order.sort(key=lambda name: name != "reference")
    for name in order:
        source = subjects[name]
        subject = cache(partial(job.load, source)) if source is not None else lambda: vlm

        def log(rows: Rows, name: str = name) -> None:
            folder.append_scores(name, rows)

        def score(name: str = name, subject: Callable[[], VLM] = subject) -> dict[str, Any]:
            stage = bar.stage(f"asking the {name.replace('_', '-')} model")
            folder.write_scores({n: f["rows"] for n, f in found.items()})
            result = evaluate(
                subject(),
                job.splits,
                metrics=theirs if name == "reference" else job.metrics,
                better=job.better,
                forgetting=job.forgetting,
                reference=found["reference"]["rows"] if "reference" in found else None,
                tasks=job.tasks,
                max_new_tokens=job.max_new_tokens,
                on_batch=stage.count,
                on_rows=log,
            )
            return {
                "measures": {k: asdict(v) for k, v in result.measures.items()},
                "rows": result.rows,
            }

        found[name] = part("scores", name, score)
        if job.suite is not None:
            job.suite.add(found[name], subject, name, folder.get_or_compute, bar)
    return {name: found[name] for name in subjects}


def _attack(
    job: Job,
    vlm: VLM,
    part: Part,
    evaluations: Mapping[str, Mapping[str, Any]],
    bar: Bar,
) -> dict[str, list[dict[str, Any]]]:
    """What the attacks bring back, of the model and of those beside it, by attack."""
    subjects: dict[str, Callable[[], VLM]] = {"unlearned": lambda: vlm}
    for name in ("reference", "retain_only"):
        if name in job.references:
            subjects[name] = partial(job.load, job.references[name])
    # Relearning alone has a curve; what it leaves for another attack is like any other change.
    budgets = [c[0] for c in job.attacks if len(c) == 1 and isinstance(c[0], Relearn)]
    chains = [c for c in job.attacks if len(c) > 1 or not isinstance(c[0], Relearn)]
    target = evaluations.get("target", {}).get("measures", {})
    known = job.data.forget
    curves = recover(budgets, subjects, known, job.splits, part, bar, job.scoring, target)
    if "target" in job.references:
        subjects["target"] = partial(job.load, job.references["target"])
    others = assess(chains, subjects, job.data, job.splits, part, bar, job.max_new_tokens)
    return ({"relearn": curves} if curves else {}) | others


def _describe(method: Method | None, settings: TrainingSettings) -> dict[str, Any] | None:
    if method is None:
        return None
    parameters = jsonable(asdict(method)) | jsonable(asdict(settings))
    return {"name": method.name, "parameters": parameters, "source": method.source}
