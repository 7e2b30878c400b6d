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

from unsee.attacks import Attack, Subject
from unsee.attacks.membership import Membership
from unsee.attacks.quantize import Quantize
from unsee.attacks.relearn import Relearn
from unsee.benchmarks.pocket import Pocket
from unsee.data.selection import evenly_spaced
from unsee.errors import ConfigError, RunError
from unsee.evaluation.evaluate import Evaluation, evaluate
from unsee.files import write_atomically
from unsee.metrics import METRICS, reference_metrics
from unsee.models.vlm import VLM
from unsee.recipes.specs import parse_spec
from unsee.recipes.unlearn import Recipe
from unsee.records.folder import jsonable
from unsee.records.provenance import provenance
from unsee.studies.comparison import (
    ComparisonRequest,
    keep_request,
    make_recipes,
    open_benchmarks,
)
from unsee.studies.model_pools import Member, members
from unsee.studies.processes import OnDone, Task, ignore_done, run_in_processes

REQUEST = "meta.yaml"


FORGET = "forget"


USEFUL = 120  # questions of each split that utility rests on, evenly spread


ATTACKS: Mapping[str, Attack] = {
    "quantized": Quantize(bits=4),
    # Enough for the reference to learn half of what it is shown.
    "relearned": Relearn(share=1.0, steps=20, modules="all"),
}


MEMBERSHIP = Membership(most=60)


# Without one of each, there is nothing to compare.
NEEDED = {"target", "saw", "unseen"}


@dataclass(frozen=True)
class MetaEvaluationRequest:
    """What metrics are judged on.

    Attributes:
        benchmark: "pocket", or "pocket@FOLDER".
        models: Pairs of models, one of which saw the people to be forgotten.
        methods: What makes the unlearned models.
        seeds: Of each method.
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
) -> tuple[list[dict[str, Any]], dict[str, str]]:
    """Makes and scores the models that are missing; returns all records, and why others failed.

    Raises:
        UnseeError: If the meta-evaluation itself is not possible, or all of one pool fail.
    """
    pocket, recipes = _pocket(request), _recipes(request)
    _keep(request, out)
    every = members(request.models, recipes, request.seeds)
    failed: dict[str, str] = {}
    # Metrics that compare with the reference need its answers first.
    for first in (True, False):
        tasks = {
            name: Task(_judge, (member, pocket.folder, out, command))
            for name, member in every.items()
            if (name == "reference") == first and not _record(out, name).exists()
        }
        failed |= run_in_processes(tasks, jobs, out / "logs", on_done)
        if first and failed:
            raise RunError(f"the reference cannot be scored: {failed['reference']}")
    found = [
        json.loads(_record(out, name).read_text("utf-8")) for name in every if name not in failed
    ]
    for kind in NEEDED - {record["kind"] for record in found}:
        why = next(why for name, why in failed.items() if every[name].kind == kind)
        raise RunError(f"no metric can be judged: every model of kind '{kind}' failed ({why})")
    return found, failed


def _keep(request: MetaEvaluationRequest, out: Path) -> None:
    """Writes down what must stay as it is for records to stand side by side."""
    grows = ("models", "methods", "seeds")
    fixed = {k: v for k, v in asdict(request).items() if k not in grows} | {
        name: repr(attack) for name, attack in (*ATTACKS.items(), ("membership", MEMBERSHIP))
    }
    keep_request(out / REQUEST, fixed, "meta-evaluation", "Models, methods and seeds")


def _pocket(request: MetaEvaluationRequest) -> Pocket:
    spec = parse_spec(request.benchmark)
    if spec is None or spec.name != "pocket" or spec.split or spec.ratio:
        raise ConfigError(
            f"--benchmark {request.benchmark}: pools are made of pocket's models alone. Type "
            "pocket, or pocket@FOLDER of a build of your own."
        )
    return Pocket.open(spec.location)


def _recipes(request: MetaEvaluationRequest) -> dict[str, Recipe]:
    """How each method unlearns, as in a comparison without trials and attacks."""
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


def _record(out: Path, name: str) -> Path:
    return out / "scores" / f"{name}.json"


def answers(
    vlm: VLM, pocket: Pocket, reference: Sequence[Mapping[str, Any]] | None = None
) -> Evaluation:
    """Every registered metric on the pictured questions about the people to be forgotten.

    Args:
        vlm: The model.
        pocket: The build.
        reference: The reference's rows; without them, no metric compares with it.
    """
    names = METRICS.names()
    return evaluate(
        vlm,
        {FORGET: [sample for sample in pocket.load(FORGET) if sample.picture is not None]},
        metrics=names if reference is not None else reference_metrics(names),
        # Letters: the published classification accuracy. Whole answers are what cloze looks for.
        tasks={"accuracy": ("classification",)},
        reference=reference,
    )


def scores(vlm: VLM, pocket: Pocket, reference: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Every metric that applies, and the AUC of every membership score, by name."""
    measured = answers(vlm, pocket, reference).measures
    found = {
        key.rpartition("/")[2]: estimate.value
        for key, estimate in measured.items()
        if estimate.value is not None
    }
    subject = Subject(vlm, attacker_samples=pocket.data().forget, non_members=pocket.non_members())
    readings = {r.name.removesuffix(" AUC"): r.forget for r in MEMBERSHIP.readings(subject)}
    return found | readings


def utility(vlm: VLM, pocket: Pocket) -> float:
    """Mean accuracy on held-out pictures of everyone else, and on what strangers' pictures show."""
    splits = {
        name: evenly_spaced(pocket.load(name), USEFUL, "ceil")
        for name in ("retain_holdout", "general")
    }
    measured = evaluate(vlm, splits, metrics=["accuracy"]).measures.values()
    return statistics.mean(estimate.value or 0.0 for estimate in measured)


def _judge(member: Member, build: Path, out: Path, command: str) -> None:
    """Makes a model and scores it, before and after what should not change the verdict."""
    started = time.process_time()
    pocket = Pocket(build)
    vlm = member.make(pocket, out / "models" / member.name, command)
    found: dict[str, Any] = {
        "name": member.name,
        "kind": member.kind,
        "made": member.described(),
        "utility": utility(vlm, pocket),
    }
    if member.kind == "reference":
        found["rows"] = rows = answers(vlm, pocket).rows
    else:
        rows = json.loads(_record(out, "reference").read_text("utf-8"))["rows"]
    found["before"] = scores(vlm, pocket, rows)
    if member.kind in ("reference", "unlearned"):
        subject = Subject(vlm, attacker_samples=pocket.data().forget)
        for name, attack in ATTACKS.items():
            found[name] = scores(attack.apply(subject).vlm, pocket, rows)
    found["seconds"] = time.process_time() - started
    made_on = provenance(member.seed, str(vlm.device), weights_sha256=vlm.hash())
    found["provenance"] = made_on.to_dict()
    path = _record(out, member.name)
    path.parent.mkdir(exist_ok=True)
    write_atomically(path, json.dumps(jsonable(found), indent=1) + "\n")
