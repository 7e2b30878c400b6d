"""Plan evaluation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from unsee.attacks import Chain, label, required_data
from unsee.benchmarks import Benchmark
from unsee.data.selection import split_holdout
from unsee.errors import ConfigError
from unsee.evaluation.evaluate import DEFAULT_METRICS
from unsee.evaluation.lm_eval import LmEvalSuite
from unsee.metrics import needs_reference, select_metrics
from unsee.models.devices import Device
from unsee.models.quantization import LoadIn
from unsee.recipes.benchmark_defaults import (
    benchmark_fields,
    forgotten,
    measure_directions,
    one_benchmark,
    scoring,
)
from unsee.recipes.job import Job
from unsee.recipes.plan import HELD_FORGET
from unsee.recipes.sources import read_samples, shipped_checkpoint
from unsee.recipes.specs import Spec, parse_spec
from unsee.types import Data


def evaluation(
    model: str,
    paths: Mapping[str, str],
    references: Mapping[str, str],
    command: str,
    attacks: Sequence[Chain] = (),
    trust_remote_code: bool = False,
    metrics: Sequence[str] | None = None,
    attacker: Mapping[str, str | None] | None = None,
    suite: LmEvalSuite | None = None,
    patch: Path | None = None,
    device: Device = "auto",
    load_in: LoadIn | None = None,
    max_new_tokens: int | None = None,
) -> Job:
    """A job that leaves the model as it is: what it scores, and what attacks bring back.

    Args:
        model: The checkpoint.
        paths: Where each split's samples are.
        references: Models beside it, by "target", "reference", "retain_only".
        command: What to type to do it again.
        attacks: What to try; the split "forget" is what the attacker has.
        trust_remote_code: Allow a checkpoint's own Python code to run.
        metrics: Registered names; None is the four that every run scores.
        attacker: Where else the attacker has samples: "retain" of everyone else, "non_members" of
            people whom no model was ever taught; from the benchmark if it is a split of one.
        suite: Tasks of lm-evaluation-harness.
        patch: A visual patch to put on the model.
        device: Where every model is put.
        load_in: Bits that every model's weights are held in; None leaves them as they are.
        max_new_tokens: Longest answer that is generated (tokens); None is the benchmark's.
    """
    model = shipped_checkpoint(model)
    references = {name: shipped_checkpoint(at) for name, at in references.items()}
    opened: dict[Spec, Benchmark] = {}
    splits = {name: read_samples(path, name, opened) for name, path in paths.items()}
    held_by = {
        name: read_samples(path, name, opened) for name, path in (attacker or {}).items() if path
    }
    benchmark, names = one_benchmark(paths, opened) if paths else (None, {})
    rules: dict[str, Any] = benchmark_fields(benchmark, splits)
    chosen = tuple(metrics or rules.get("metrics", DEFAULT_METRICS))
    if attacks and "reference" not in references:
        # What is asked of an attack is told without one; the report says that there is none.
        chosen = tuple(m for m in chosen if not needs_reference(m))
    select_metrics(chosen, "reference" in references)
    unanswered = [name for name, some in splits.items() if not any(s.answer for s in some)]
    if unanswered:
        raise ConfigError(
            f"the {unanswered[0]} set {paths[unanswered[0]]} has no answers to score. Give a table "
            "with columns image, question, answer, concept, or NAME:SPLIT of a benchmark."
        )
    forget = splits.get("forget", [])
    taught = parse_spec(paths.get("forget", ""))
    if attacks and "forget_holdout" not in splits and taught is not None:
        whole = benchmark or taught.open(opened)
        held = whole.held_out() if taught.split == whole.attacked else {}
        splits |= {name: list(some) for name, some in held.items() if name not in splits}
        needs = required_data(attacks)
        if "retain" in needs and "retain" not in held_by:
            held_by["retain"] = list(whole.data().retain)
        if "non_members" in needs and "non_members" not in held_by:
            held_by["non_members"] = list(whole.non_members())
    if attacks and "forget_holdout" not in splits:
        forget, splits["forget_holdout"] = split_holdout(forget)
        splits["forget"] = forget
    away = [*forgotten(paths), *(name for name in HELD_FORGET if name not in paths)]
    asked: dict[str, Any] = {
        "model": model,
        "paths": dict(paths),
        "references": dict(references),
        "attacks": [
            {label(chain): [asdict(attack) for attack in chain]}  # type: ignore[call-overload]
            for chain in attacks
        ],
    }
    if metrics is not None:
        asked["metrics"] = list(metrics)
    if patch is not None:
        asked["patch"] = str(patch)
    if suite is not None:
        asked["tasks"] = suite.settings()
    if load_in is not None:
        asked["load_in"] = load_in
    if max_new_tokens is not None:
        rules["max_new_tokens"] = asked["max_new_tokens"] = max_new_tokens
    text = f"# {command}\n" + "".join(f"{key}: {value!r}\n" for key, value in asked.items())
    return Job(
        kind="audit" if attacks else "evaluate",
        command=command,
        recipe=text,
        model=model,
        data=Data(
            forget,
            held_by.get("retain", splits.get("retain", [])),
            outside=held_by.get("non_members", ()),
        ),
        splits={name: some for name, some in splits.items() if some},
        attacks=attacks,
        references=dict(references),
        better=measure_directions(splits, away, benchmark, names),
        forgetting=[name for name in splits if name in away],
        suite=suite,
        patch=patch,
        **rules | {"metrics": chosen, "scoring": scoring(paths)},
        trust_remote_code=trust_remote_code,
        device=device,
        load_in=load_in,
    )
