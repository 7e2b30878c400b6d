"""The fields of a job that come from its benchmark: held-out splits, measures, record."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace
from typing import Any

from unsee.benchmarks import BENCHMARKS, HELD_OUT, Benchmark, Rules, Scoring
from unsee.data.selection import split_holdout
from unsee.errors import ConfigError
from unsee.evaluation.captions import CAPTION_METRICS
from unsee.evaluation.evaluate import DEFAULT_METRICS
from unsee.recipes.specs import Spec, parse_spec
from unsee.types import Better, Data, Sample


def held_out(
    benchmark: Benchmark,
    data: Data,
    splits: Mapping[str, list[Sample]],
    seed: int,
    notes: list[str],
) -> tuple[Data, dict[str, list[Sample]]]:
    """The splits that score a relearning attack: the benchmark's, else some of its pictures.

    Args:
        benchmark: The benchmark.
        data: What the method is trained on.
        splits: The benchmark's splits by name.
        seed: Seed of the selection of pictures.
        notes: Receives notes for the user.

    Returns:
        The data without the pictures that are held out, and the held-out splits.
    """
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


def one_benchmark(
    paths: Mapping[str, str], opened: dict[Spec, Benchmark]
) -> tuple[Benchmark | None, dict[str, str]]:
    """The benchmark that all splits are of, if it is one, and its names of the splits.

    The splits of a benchmark that is `scored_as_table` are taken for a user's own.
    """
    specs = {name: parse_spec(path) for name, path in paths.items()}
    places = {spec and replace(spec, split="") for spec in specs.values()}
    (spec, *others) = places
    if others or spec is None or BENCHMARKS.get(spec.name).scored_as_table:
        return None, {}
    return spec.open(opened), {name: s.split for name, s in specs.items() if s is not None}


def forgotten(paths: Mapping[str, str]) -> list[str]:
    """The splits about what is to be forgotten: as the benchmark declares, else by their names."""
    forget_splits = []
    for name, path in paths.items():
        spec = parse_spec(path)
        known = BENCHMARKS.get(spec.name).forgetting if spec is not None else ()
        if spec.split in known if spec is not None else name.startswith("forget"):
            forget_splits.append(name)
    return forget_splits


def scoring(paths: Mapping[str, str]) -> dict[str, Scoring]:
    """How attacks are scored on held-out splits, as the benchmark of these splits declares."""
    scoring_of = {}
    for name in HELD_OUT:
        spec = parse_spec(paths.get(name, paths.get("forget", "")))
        declared = BENCHMARKS.get(spec.name).relearning if spec is not None else {}
        if name in declared:
            scoring_of[name] = declared[name]
    return scoring_of


def measure_directions(
    splits: Iterable[str],
    forgetting: Collection[str],
    benchmark: Benchmark | None = None,
    names: Mapping[str, str] | None = None,
) -> dict[str, Better]:
    """Which direction is good, by "split/modality/metric".

    Args:
        splits: Names of splits.
        forgetting: Those about what is to be forgotten.
        benchmark: Its measures of one split also hold for its other splits of that kind, such as
            those held out for an attack.
        names: The benchmark's names of the splits, where they differ.
    """
    directions: dict[str, Better] = {}
    measures = benchmark.measures if benchmark is not None else ()
    kinds = benchmark.forgetting if benchmark is not None else ()
    for split in splits:
        is_forget = split in forgetting
        for metric in (*DEFAULT_METRICS, *CAPTION_METRICS):
            directions[f"{split}/vqa/{metric}"] = "lower" if is_forget else "higher"
        related = [m for m in measures if (m.split in kinds) == is_forget]
        own = [m for m in measures if m.split == (names or {}).get(split, split)]
        for m in (*reversed(related), *own):
            directions[f"{split}/{m.modality}/{m.metric}"] = m.better
    return directions


def benchmark_fields(
    benchmark: Benchmark | None,
    splits: Mapping[str, list[Sample]],
    rules: Rules | None = None,
) -> dict[str, Any]:
    """The fields of a `Job` that a benchmark sets; {} without one.

    Args:
        benchmark: The benchmark, if there is one.
        splits: Its splits by name.
        rules: Whose rules score the answers; None is "published".

    Raises:
        ConfigError: If the rules are "published" and there is no benchmark.
    """
    if benchmark is None:
        if rules == "published":
            raise ConfigError(
                "rules=published scores a benchmark's own questions, and the samples are of no "
                "benchmark: the metrics' own rules score them. Leave rules out."
            )
        return {}
    used = {} if rules == "own" else dict(benchmark.rules)
    counts = {}
    if benchmark.record_counts:
        counts = {"samples": {name: len(samples) for name, samples in splits.items()}}
    return {
        "metrics": list(dict.fromkeys(m.metric for m in benchmark.measures)),
        "tasks": benchmark.tasks,
        "max_new_tokens": benchmark.max_new_tokens,
        "rules": used,
        "scoring": benchmark.relearning,
        "benchmark": benchmark.metadata() | counts | ({"rules": used} if used else {}),
    }
