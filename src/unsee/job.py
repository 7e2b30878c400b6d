"""The order of things: train, evaluate, attack, record, report; each stage done once."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from datetime import datetime, timezone
from functools import partial
from pathlib import Path
from typing import Any

from unsee import report
from unsee.attacks import Chain
from unsee.attacks.relearn import Relearn
from unsee.card import Kind, card_of_run, hub_id, public
from unsee.checkpoint import hash_tensors
from unsee.data import data_hash
from unsee.errors import ConfigError, UnseeError
from unsee.evaluate import DEFAULT_METRICS, evaluate
from unsee.features import Shift
from unsee.gallery import gallery
from unsee.guarantees import guarantees, snapshot
from unsee.methods import Method, Trainer
from unsee.metrics import chosen_metrics, for_reference
from unsee.model import VLM
from unsee.patch import write_patch
from unsee.progress import Bar
from unsee.record import (
    ENVIRONMENT,
    REPORT,
    STATE,
    TRAIN,
    RunFolder,
    peak_memory,
    provenance,
    write_whole,
)
from unsee.recovery import MEASURE, recover
from unsee.robustness import assess, check
from unsee.train import Settings
from unsee.types import Better, Data, Sample

Score = dict[str, Any]
Rows = list[Score]


@dataclass(frozen=True)
class Job:
    """Everything that a run needs, its inputs already read and checked.

    Attributes:
        kind: Which command it is: demo, run, unlearn, evaluate or audit.
        command: What to type to do it again.
        recipe: Its recipe as text.
        model: The checkpoint to unlearn (or to evaluate or attack).
        data: What the method may see.
        splits: What is scored.
        method: None leaves the model as it is.
        settings: How to train.
        attacks: What to try: attacks, each made on what the one before it leaves.
        references: Models beside it: "target", "reference", "retain_only".
        better: Directions by "split/modality/metric".
        metrics: Registered names of what is scored.
        tasks: The only tasks that a metric is reported on.
        longest: Longest answer that is generated, in tokens.
        benchmark: What the record says of the benchmark.
        save: "patch", "model" or "adapter".
        names: Let the saved folder's card name who was forgotten.
        visual_only: Load the visual part alone.
        trust_remote_code: Allow a checkpoint's own Python code to run.
    """

    kind: str
    command: str
    recipe: str
    model: str | Path
    data: Data
    splits: Mapping[str, Sequence[Sample]]
    method: Method | None = None
    settings: Settings = field(default_factory=Settings)
    attacks: Sequence[Chain] = ()
    references: Mapping[str, str | Path] = field(default_factory=dict)
    better: Mapping[str, Better] = field(default_factory=dict)
    metrics: Sequence[str] = DEFAULT_METRICS
    tasks: Mapping[str, Sequence[str]] = field(default_factory=dict)
    longest: int = 24
    benchmark: Mapping[str, Any] | None = None
    save: Kind = "patch"
    names: bool = False
    visual_only: bool = False
    trust_remote_code: bool = False


def run(job: Job, out: Path, bar: Bar) -> dict[str, Any]:
    """Does the job in a run folder, or goes on with it where it was broken off.

    Returns:
        The content of summary.json.

    Raises:
        UnseeError: If anything is wrong; the folder then resumes with the same command.
    """
    RunFolder.refuse(out, job.recipe)
    for chain in job.attacks:
        check(chain, job.data, job.splits)
    chosen_metrics(job.metrics, "reference" in job.references)
    if job.method is not None:
        job.method.check(job.data)
    vlm = _load(job, job.model)
    with _nothing_left(out):
        return _run(job, vlm, RunFolder.open(out, job.recipe), bar)


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


def _run(job: Job, vlm: VLM, folder: RunFolder, bar: Bar) -> dict[str, Any]:
    out = folder.path
    environment = provenance(
        job.settings.seed,
        str(vlm.device),
        data_sha256=data_hash(job.data),
        start_weights_sha256=hash_tensors(vlm.parameters("visual" if vlm.visual_only else "all")),
    )
    write_whole(out / ENVIRONMENT, json.dumps(environment, indent=1) + "\n")
    trained = _train(job, vlm, folder, bar)
    evaluations = _evaluate(job, vlm, folder, bar)
    attacks = _attack(job, vlm, folder, evaluations, bar)
    folder.write_scores({name: found["rows"] for name, found in evaluations.items()})
    result = hash_tensors(vlm.parameters("visual" if vlm.visual_only else "all"))
    summary: dict[str, Any] = {
        "schema": 1,
        "name": out.name,
        "kind": job.kind,
        "created": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "command": job.command,
        "verdict": "",
        "method": _describe(job.method, job.settings),
        "benchmark": dict(job.benchmark) if job.benchmark else None,
        "measures": evaluations.get("unlearned", {}).get("measures") or None,
        **{n: evaluations[n]["measures"] for n in evaluations if n != "unlearned"},
        "guarantees": trained.get("guarantees"),
        "attacks": attacks or None,
        "cost": trained.get("cost"),
        "representation": trained.get("representation"),
        "gallery": gallery(evaluations),
        "provenance": environment | {"result_weights_sha256": result},
        "artifacts": {**(trained.get("artifacts") or {}), "report": REPORT},
    }
    summary["verdict"] = report.verdict(summary)
    if job.method is not None:
        card_of_run(summary, job.save, str(job.model), job.data.forget, job.names).write(
            out / job.save
        )
    folder.finish(summary)
    report.write([out], out / REPORT)
    folder.tidy()
    return summary


def _load(job: Job, source: str | Path) -> VLM:
    return VLM.load(source, visual_only=job.visual_only, trust_remote_code=job.trust_remote_code)


def _train(job: Job, vlm: VLM, folder: RunFolder, bar: Bar) -> dict[str, Any]:
    """Unlearns in place; a resumed run takes the weights from the state it finds."""
    method = job.method
    if method is None:
        return {}
    before = snapshot(vlm)
    shift = Shift.before(vlm, job.data)
    trainer = Trainer(
        job.settings,
        folder.path / STATE,
        folder.path / TRAIN,
        bar.stage(f"unlearning ({method.name})"),
    )
    method.unlearn(vlm, job.data, trainer)
    vlm.model.requires_grad_(False)
    history = trainer.history

    def finish() -> dict[str, Any]:
        saved = folder.path / job.save
        if not saved.exists():
            if job.save == "model":
                vlm.save(saved)
            elif job.save == "adapter":
                if trainer.adapters is None:
                    raise ConfigError(
                        f"save=adapter: {method.name} trains no LoRA adapters. Type --save model."
                    )
                trainer.adapters.save(saved, hub_id(job.model))
            else:
                meta = {
                    "method": method.name,
                    "parameters": {k: public(k, v) for k, v in _plain(asdict(method)).items()},
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
                "samples_per_second": samples / history.seconds if history.seconds else None,
            },
            "representation": shift.after(vlm),
            "artifacts": {job.save: job.save},
        }

    found: dict[str, Any] = folder.part("trained", finish)
    return found


def _evaluate(job: Job, vlm: VLM, folder: RunFolder, bar: Bar) -> dict[str, dict[str, Any]]:
    """Scores of the model and of those beside it: {"measures", "rows"} by model."""
    if not job.splits or job.visual_only:
        return {}
    found: dict[str, dict[str, Any]] = {}
    subjects: dict[str, str | Path | None] = {"unlearned": None, **job.references}
    theirs = for_reference(job.metrics)
    order = list(subjects)
    if theirs != list(job.metrics):
        # What compares with the reference needs its rows first.
        order.sort(key=lambda name: name != "reference")
    for name in order:
        source = subjects[name]

        def log(rows: Rows, name: str = name) -> None:
            folder.append_scores(name, rows)

        def score(name: str = name, source: str | Path | None = source) -> dict[str, Any]:
            subject = vlm if source is None else _load(job, source)
            stage = bar.stage(f"asking the {name.replace('_', '-')} model")
            folder.write_scores({n: f["rows"] for n, f in found.items()})
            result = evaluate(
                subject,
                job.splits,
                metrics=theirs if name == "reference" else job.metrics,
                better=job.better,
                reference=found["reference"]["rows"] if "reference" in found else None,
                tasks=job.tasks,
                max_new_tokens=job.longest,
                on_batch=stage.count,
                on_rows=log,
            )
            return {
                "measures": {k: asdict(v) for k, v in result.measures.items()},
                "rows": result.rows,
            }

        found[name] = folder.part(f"scores-{name}", score)
    return {name: found[name] for name in subjects}


def _attack(
    job: Job,
    vlm: VLM,
    folder: RunFolder,
    evaluations: Mapping[str, Mapping[str, Any]],
    bar: Bar,
) -> dict[str, list[dict[str, Any]]]:
    """What the attacks bring back, of the model and of those beside it, by attack."""
    subjects: dict[str, Callable[[], VLM]] = {"unlearned": lambda: vlm}
    for name in ("reference", "retain_only"):
        if name in job.references:
            subjects[name] = partial(_load, job, job.references[name])
    # Relearning alone has a curve; what it leaves for another attack is like any other change.
    budgets = [c[0] for c in job.attacks if len(c) == 1 and isinstance(c[0], Relearn)]
    chains = [c for c in job.attacks if len(c) > 1 or not isinstance(c[0], Relearn)]
    target = evaluations.get("target", {}).get("measures", {}).get(MEASURE, {}).get("value")
    curves = recover(budgets, subjects, job.data.forget, job.splits, folder.part, bar, target)
    if "target" in job.references:
        subjects["target"] = partial(_load, job, job.references["target"])
    others = assess(chains, subjects, job.data, job.splits, folder.part, bar, job.longest)
    return ({"relearn": curves} if curves else {}) | others


def _describe(method: Method | None, settings: Settings) -> dict[str, Any] | None:
    if method is None:
        return None
    parameters = _plain(asdict(method)) | _plain(asdict(settings))
    return {"name": method.name, "parameters": parameters, "source": method.source}


def _plain(values: Mapping[str, Any]) -> dict[str, Any]:
    return {k: list(v) if isinstance(v, tuple) else v for k, v in values.items()}
