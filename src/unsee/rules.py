"""What a job takes over from a benchmark: what is held out, measured and recorded."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from unsee.benchmarks import Benchmark, Measure
from unsee.benchmarks.pocket import Pocket
from unsee.data import split_holdout
from unsee.spec import parse_spec
from unsee.types import Data, Sample


def held_out(
    benchmark: Benchmark,
    data: Data,
    splits: Mapping[str, list[Sample]],
    seed: int,
    notes: list[str],
) -> tuple[Data, dict[str, list[Sample]]]:
    """What a relearning attack is scored on: the benchmark's choice, else some of its pictures."""
    held = {name: list(some) for name, some in benchmark.held_out().items()}
    if held:
        return data, held
    kept, aside = split_holdout(data.forget, seed=seed)
    pictures = {s.picture.digest for s in aside if s.picture is not None}
    asked = [s for s in splits["forget"] if s.picture and s.picture.digest in pictures]
    choices = [s for s in asked if s.task == "classification"] or asked
    if not choices:
        return data, {}
    notes.append(
        f"{benchmark.name} holds no pictures out: {len(pictures)} of the forgotten people's are "
        "kept from method and attacker, to score the attack on."
    )
    return replace(data, forget=kept), {"forget_holdout": choices}


def one_benchmark(paths: Mapping[str, str]) -> tuple[Benchmark | None, list[Measure]]:
    """The published benchmark all splits are of, if it is one, and the splits' measures.

    Pocket's splits are scored as anybody's tables are.
    """
    specs = {name: parse_spec(path) for name, path in paths.items()}
    places = {spec and replace(spec, split="") for spec in specs.values()}
    (spec, *others) = places
    if others or spec is None or spec.name == "pocket":
        return None, []
    benchmark = spec.open()
    given = {s.split: name for name, s in specs.items() if s is not None}
    named = [m for m in benchmark.measures if m.split in given]
    return benchmark, [replace(m, split=given[m.split]) for m in named]


def rules_of(benchmark: Benchmark | None, splits: Mapping[str, list[Sample]]) -> dict[str, Any]:
    """What a job takes over from a benchmark."""
    if benchmark is None:
        return {}
    # Pocket's splits are as many in every run of a build.
    own = isinstance(benchmark, Pocket)
    counts = {} if own else {"samples": {name: len(some) for name, some in splits.items()}}
    return {
        "metrics": list(dict.fromkeys(m.metric for m in benchmark.measures)),
        "tasks": benchmark.tasks,
        "longest": benchmark.longest,
        "benchmark": benchmark.facts() | counts,
    }
