"""Meta-evaluation: makes the pools, scores every metric on each model, and keeps the records.

```
OUT/meta.yaml        what was requested; another meta-evaluation is refused
    models/          every model that was made, as checkpoints
    scores/          one record a model
    logs/            what each process printed
    ratings.json, table.md
```
"""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from unsee.attacks import Attack, Subject
from unsee.attacks.membership import Membership
from unsee.attacks.quantize import Quantize
from unsee.attacks.relearn import Relearn
from unsee.benchmarks.pocket import Pocket
from unsee.data.selection import evenly_spaced
from unsee.errors import ConfigError, RunError, first_line, require_extra, suggestion
from unsee.evaluation.evaluate import Evaluation, evaluate
from unsee.files import read_text, write_atomically
from unsee.metrics import METRICS, reference_metrics
from unsee.models.vlm import VLM
from unsee.recipes.specs import parse_spec
from unsee.recipes.unlearn import Recipe
from unsee.records.folder import jsonable, tidy
from unsee.records.lock import exclusive
from unsee.records.provenance import provenance
from unsee.runs.content import checkpoint_inputs, data_inputs, keep_study_content
from unsee.studies.comparison import (
    ComparisonRequest,
    keep_request,
    make_recipes,
    open_benchmarks,
)
from unsee.studies.model_pools import Member, members
from unsee.studies.processes import OnDone, Task, ignore_done, run_in_processes
from unsee.studies.ratings import Kind, ModelRecord

REQUEST = "meta.yaml"

FORGET = "forget"
UTILITY_QUESTIONS = 120  # of each split, at most

# The attacks, by the stage that scores what they leave.
ATTACKS: Mapping[str, Attack] = {
    "quantized": Quantize(bits=4),
    # Enough for the reference to learn half of what it is shown.
    "relearned": Relearn(share=1.0, steps=20, modules="all"),
}

MEMBERSHIP = Membership(most=60)

# Without a model of each of these kinds, there is nothing to compare.
NEEDED: set[Kind] = {"target", "saw", "unseen"}


@dataclass(frozen=True)
class MetaEvaluationRequest:
    """A meta-evaluation to make: the pools of pocket's models that metrics are scored on.

    Attributes:
        benchmark: "pocket", or "pocket@FOLDER".
        models: Number of pairs of models; one of each pair saw the people to be forgotten.
        methods: The methods that make the unlearned models.
        seeds: The seeds of each method.
        set: Fields of the method or the training, for every method that has them.
    """

    benchmark: str = "pocket"
    models: int = 8
    methods: Sequence[str] = ("grad_diff", "npo", "idk", "undial", "mmunlearner", "vkd")
    seeds: Sequence[int] = (0,)
    set: Mapping[str, Any] = field(default_factory=dict)


def judge_metrics(
    request: MetaEvaluationRequest,
    out: Path,
    command: str = "",
    jobs: int = 1,
    on_done: OnDone = ignore_done,
) -> tuple[list[ModelRecord], dict[str, str]]:
    """Makes and scores the models that are missing.

    Args:
        request: The models to make.
        out: The folder of the meta-evaluation.
        command: The command, for the records of finetuned models.
        jobs: Number of models side by side.
        on_done: Called with the name of every model that is done, and its error or None.

    Returns:
        All records, and why the other models failed, by name.

    Raises:
        UnseeError: If the meta-evaluation itself is not possible, or all of one pool fail.
    """
    require_extra("sacrebleu", "bleu", "the metric bleu, which is rated like all others,")
    pocket, recipes = _pocket(request), _recipes(request)
    with exclusive(out):
        _keep_request(request, out)
        keep_study_content(out, _inputs(pocket))
        tidy(out)
        return _judge(request, out, (pocket, recipes), command, jobs, on_done)


def _inputs(pocket: Pocket) -> dict[str, str]:
    """The hashes of the build's samples and checkpoints, by name."""
    splits = {name: list(pocket.load(name)) for name in pocket.splits}
    inputs = data_inputs(pocket.data(), splits)
    for role in ("target", "visual_retain", "retain_only"):
        inputs |= checkpoint_inputs(role, pocket.checkpoint(role))
    return inputs


def _judge(
    request: MetaEvaluationRequest,
    out: Path,
    opened: tuple[Pocket, dict[str, Recipe]],
    command: str,
    jobs: int,
    on_done: OnDone,
) -> tuple[list[ModelRecord], dict[str, str]]:
    """The part of `judge_metrics` that writes; the folder is locked."""
    pocket, recipes = opened
    pool = members(request.models, recipes, request.seeds)
    failed: dict[str, str] = {}
    # Metrics that compare with the reference need its answers first.
    for first in (True, False):
        tasks = {
            name: Task(_make_and_score, (member, pocket.folder, out, command))
            for name, member in pool.items()
            if (name == "reference") == first and not _record_path(out, name).exists()
        }
        failed |= run_in_processes(tasks, jobs, out / "logs", on_done)
        if first and failed:
            raise RunError(f"the reference cannot be scored: {failed['reference']}")
    records = [_read(out, name) for name in pool if name not in failed]
    for kind in NEEDED - {record.kind for record in records}:
        why = next(why for name, why in failed.items() if pool[name].kind == kind)
        raise RunError(f"no metric can be judged: every model of kind '{kind}' failed ({why})")
    return records, failed


def _keep_request(request: MetaEvaluationRequest, out: Path) -> None:
    """Writes what must not change, so that records can be compared; see `keep_request`."""
    may_grow = ("models", "methods", "seeds")
    fixed = {k: v for k, v in asdict(request).items() if k not in may_grow} | {
        name: repr(attack) for name, attack in (*ATTACKS.items(), ("membership", MEMBERSHIP))
    }
    keep_request(out / REQUEST, fixed, "meta-evaluation", "Models, methods and seeds")


def _pocket(request: MetaEvaluationRequest) -> Pocket:
    spec = parse_spec(request.benchmark)
    if spec is None or spec.name != "pocket" or spec.split or spec.ratio:
        raise ConfigError(
            f"--benchmark {request.benchmark}: pools are made of pocket's models alone."
            f"{suggestion(request.benchmark, ['pocket'])} Type pocket, or pocket@FOLDER of a build "
            "of your own."
        )
    return Pocket.open(spec.location)


def _recipes(request: MetaEvaluationRequest) -> dict[str, Recipe]:
    """The recipe of each method, as in a comparison without trials and attacks."""
    comparison = ComparisonRequest(
        "",
        {name: (name, {}) for name in request.methods},
        (request.benchmark,),
        attacks=(),
        set=request.set,
        device="cpu",
    )
    recipes = make_recipes(comparison, open_benchmarks(comparison))
    return {name: recipe for (name, _), recipe in recipes.items()}


def _record_path(out: Path, name: str) -> Path:
    return out / "scores" / f"{name}.json"


def _read(out: Path, name: str) -> ModelRecord:
    path = _record_path(out, name)
    try:
        return ModelRecord.model_validate_json(read_text(path))
    except ValidationError as error:
        raise RunError(
            f"{path} is damaged ({first_line(error)}). Remove it and type the same command again, "
            "which scores the model again."
        ) from error


def evaluate_metrics(
    vlm: VLM, pocket: Pocket, reference: Sequence[Mapping[str, Any]] | None = None
) -> Evaluation:
    """Evaluates every metric of 0..1 on the pictured questions about the forgotten people.

    Args:
        vlm: The model.
        pocket: The build.
        reference: The reference's rows; None leaves out metrics that compare with it.
    """
    names = [
        name
        for name, metric in METRICS.items()
        if metric.unit == "0..1" and metric.reads != "embeddings"
    ]
    return evaluate(
        vlm,
        {FORGET: [sample for sample in pocket.load(FORGET) if sample.picture is not None]},
        metrics=names if reference is not None else reference_metrics(names),
        # Letters: the published classification accuracy. Whole answers are what cloze looks for.
        tasks={"accuracy": ("classification",)},
        reference=reference,
    )


def score_model(
    vlm: VLM, pocket: Pocket, reference: Sequence[Mapping[str, Any]]
) -> dict[str, float]:
    """Returns every metric that applies, and the AUC of every membership score, by name.

    Args:
        vlm: The model.
        pocket: The build.
        reference: The reference's rows.
    """
    measures = evaluate_metrics(vlm, pocket, reference).measures
    scores = {
        key.rpartition("/")[2]: estimate.value
        for key, estimate in measures.items()
        if estimate.value is not None
    }
    subject = Subject(vlm, attacker_samples=pocket.data().forget, non_members=pocket.non_members())
    readings = {r.name.removesuffix(" AUC"): r.forget for r in MEMBERSHIP.readings(subject)}
    return scores | readings


def measure_utility(vlm: VLM, pocket: Pocket) -> float:
    """Returns the mean accuracy on held-out pictures of other people, and on general questions."""
    splits = {
        name: evenly_spaced(pocket.load(name), UTILITY_QUESTIONS, "ceil")
        for name in ("retain_holdout", "general")
    }
    measures = evaluate(vlm, splits, metrics=["accuracy"]).measures.values()
    return statistics.mean(estimate.value or 0.0 for estimate in measures)


def _make_and_score(member: Member, build: Path, out: Path, command: str) -> None:
    """Makes a model, and scores it before and after each of `ATTACKS`."""
    started = time.process_time()
    pocket = Pocket(build)
    vlm = member.make(pocket, out / "models" / member.name, command)
    utility = measure_utility(vlm, pocket)
    optional: dict[str, Any] = {}
    if member.kind == "reference":
        optional["rows"] = rows = evaluate_metrics(vlm, pocket).rows
    else:
        rows = _read(out, "reference").rows
    before = score_model(vlm, pocket, rows)
    if member.kind in ("reference", "unlearned"):
        subject = Subject(vlm, attacker_samples=pocket.data().forget)
        for stage, attack in ATTACKS.items():
            optional[stage] = score_model(attack.apply(subject).vlm, pocket, rows)
    record = ModelRecord(
        name=member.name,
        kind=member.kind,
        made=jsonable(member.described()),
        utility=utility,
        before=before,
        seconds=time.process_time() - started,
        provenance=provenance(member.seed, str(vlm.device), weights_sha256=vlm.hash()),
        **optional,
    )
    path = _record_path(out, member.name)
    path.parent.mkdir(exist_ok=True)
    write_atomically(path, json.dumps(record.to_dict(), indent=1) + "\n")
