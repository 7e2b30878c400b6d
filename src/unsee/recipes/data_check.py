"""Inspection of a data set: what is in it and what is unusable, before any model is loaded."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from itertools import combinations
from typing import Any

from unsee.errors import DataError
from unsee.recipes.sources import read_samples
from unsee.recipes.specs import parse_spec
from unsee.types import Picture, Sample

TRAINING = ("train_forget", "train_retain")


def inspect(text: str) -> dict[str, Any]:
    """Counts, overlaps and problems of a data set.

    Args:
        text: A folder, a table, or NAME[:SPLIT][@LOCATION][?ratio=R&shots=N]. Without a split
            every split of the benchmark is read, and what is trained on.

    Returns:
        "splits" (counts by split), "overlaps" (pictures shared by two splits, by decoded content)
        and "problems" (whatever is unusable, in words).

    Raises:
        UnseeError: If nothing of that name can be opened at all.
    """
    readers = _readers(text)
    read: dict[str, list[Sample]] = {}
    problems: list[str] = []
    for name, reader in readers.items():
        try:
            read[name] = list(reader())
        except DataError as error:
            problems += [f"{name}: {line}" for line in str(error).splitlines()]
    digests = {name: _pictures(some, name, problems) for name, some in read.items()}
    overlaps = []
    for one, other in combinations(digests, 2):
        shared = digests[one].keys() & digests[other].keys()
        if not shared:
            continue
        first = digests[one][sorted(shared)[0]].source
        overlaps.append({"splits": [one, other], "pictures": len(shared), "first": first})
        # A harmless question may well be asked about a picture that an unsafe one shows.
        apart = all(s.task not in ("unsafe", "harmless") for s in (*read[one], *read[other]))
        if apart and {one, other} in ({"train_forget", "train_retain"}, {"forget", "test"}):
            problems.append(
                f"{one} and {other} share {len(shared)} pictures, first {first}. Nothing can be in "
                "both: remove it from one of them."
            )
    return {
        "data": text,
        "splits": {name: _counts(some, digests[name]) for name, some in read.items()},
        "overlaps": overlaps,
        "problems": list(dict.fromkeys(problems)),
    }


def _readers(text: str) -> dict[str, Callable[[], Sequence[Sample]]]:
    from unsee.benchmarks.published import Published

    spec = parse_spec(text)
    if spec is None:
        return {"data": lambda: read_samples(text, "data")}
    benchmark = spec.open()
    if spec.split:
        return {spec.split: lambda: benchmark.load(spec.split)}
    readers: dict[str, Callable[[], Sequence[Sample]]] = {
        name: lambda name=name: benchmark.load(name)  # type: ignore[misc]
        for name in benchmark.splits
    }
    if isinstance(benchmark, Published):
        readers |= {
            name: lambda name=name: benchmark.load(name)  # type: ignore[misc]
            for name in TRAINING
        }
    return readers


def _pictures(samples: Sequence[Sample], name: str, problems: list[str]) -> dict[str, Picture]:
    found: dict[str, Picture] = {}
    broken: set[str] = set()
    for picture in {p.source: p for s in samples for p in s.pictures[:1]}.values():
        try:
            found.setdefault(picture.digest, picture)
        except DataError as error:
            if picture.source not in broken:
                problems.append(f"{name}: {error}")
            broken.add(picture.source)
    return found


def _content(sample: Sample) -> tuple[object, ...]:
    """The content of a sample without its id: samples of equal content are repeated."""
    shown = tuple(picture.source for picture in sample.pictures)
    return sample.question, sample.answer, shown, sample.concept, sample.task


def _counts(samples: Sequence[Sample], pictures: dict[str, Picture]) -> dict[str, Any]:
    return {
        "samples": len(samples),
        "people": len({s.concept for s in samples if s.concept}),
        "pictures": len(pictures),
        "tasks": dict(sorted(Counter(f"{s.modality}/{s.task}" for s in samples).items())),
        "empty_answers": sum(not s.answer.strip() for s in samples),
        "repeated": len(samples) - len({_content(sample) for sample in samples}),
    }
