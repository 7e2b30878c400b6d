"""Inspection of a data set: what is in it and what is unusable, before any model is loaded."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from itertools import combinations
from typing import Any

from unsee.data.overlaps import near_duplicates, overlap_notes, photograph_groups
from unsee.data.photographs import copy_notes, group_notes
from unsee.errors import DataError, counted, shorten
from unsee.recipes.sources import read_samples
from unsee.recipes.specs import parse_spec
from unsee.types import Picture, Sample

TRAINING = ("train_forget", "train_retain")


def inspect(text: str, retain: str | None = None, strangers: str | None = None) -> dict[str, Any]:
    """Counts, overlaps and problems of a data set.

    Args:
        text: A folder, a table, or NAME[:SPLIT][@LOCATION][?ratio=R&shots=N&skew=S]. Without a
            split every split of the benchmark is read, and what is trained on.
        retain: A set to keep, with which the data is compared as a set to forget.
        strangers: Pictures of strangers, with which it is compared too.

    Returns:
        "splits" (counts by split), "overlaps" (pictures shared by two splits, by decoded content),
        "problems" (whatever is unusable, in words) and "notes" (what was read and what was not,
        and near-duplicates, concepts and texts that are in two sets).

    Raises:
        UnseeError: If nothing of that name can be opened at all.
    """
    notes: list[str] = []
    readers = _readers(text, notes)
    for name, path in {"retain": retain, "strangers": strangers}.items():
        if path is not None:
            readers[name] = _reader(path, name, notes)
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
        if apart and (
            {one, other} in ({"train_forget", "train_retain"}, {"forget", "test"})
            or {one, other} in ({"data", "retain"}, {"data", "strangers"})
        ):
            problems.append(
                f"{one} and {other} share {counted(len(shared), 'picture')}, first {first}. "
                "Nothing can be in both: remove it from one of them."
            )
    notes += [*_overlap_notes(read, digests), *_attribute_notes(text, problems)]
    return {
        "data": text,
        "splits": {name: _counts(some, _distinct(name, digests)) for name, some in read.items()},
        "overlaps": overlaps,
        "problems": list(dict.fromkeys(problems)),
        "notes": notes,
    }


def _overlap_notes(
    read: dict[str, list[Sample]], pictures: dict[str, dict[str, Picture]]
) -> list[str]:
    """Near-duplicates inside a user's own set, and its overlaps with the other sets."""
    if "data" in read:
        forget, retain = _readable(read["data"], pictures), read.get("retain", [])
        strangers = list(pictures.get("strangers", {}).values())
        return [
            *_two_names(forget),
            *copy_notes(forget),
            *group_notes(forget),
            *overlap_notes(forget, _readable(retain, pictures), strangers),
        ]
    if {"train_forget", "train_retain"} <= read.keys():
        pairs = near_duplicates(
            list(pictures["train_forget"].values()), list(pictures["train_retain"].values())
        )
        exact = pictures["train_forget"].keys() & pictures["train_retain"].keys()
        names = [f"{b.source} is like {a.source}" for a, b in pairs if b.digest not in exact]
        if names:
            return [
                (
                    "train_retain has near-duplicates of train_forget, "
                    f"{counted(len(names), 'picture')}: "
                    f"{'; '.join(names[:5])}{' ...' if len(names) > 5 else ''}."
                )
            ]
    return []


def _attribute_notes(text: str, problems: list[str]) -> list[str]:
    """The attributes by which a benchmark's requests can be drawn, and who was drawn by one.

    Args:
        text: The data set as it is typed.
        problems: A message is added to it if the attributes cannot be read.
    """
    spec = parse_spec(text)
    if spec is None or spec.split:
        return []
    benchmark = spec.open()
    try:
        people = benchmark.attributes()
        drawn = benchmark.metadata().get("skew")
    except DataError as error:
        problems += [f"attributes: {line}" for line in str(error).splitlines()]
        return []
    values: dict[str, Counter[str]] = {}
    for fields in people.values():
        for name, value in fields.items():
            values.setdefault(name, Counter())[value] += 1
    notes = []
    if values:
        shown = [f"{name} ({_most_common(found)})" for name, found in sorted(values.items())]
        notes.append(f"Requests can be drawn by (skew=): {'; '.join(shown)}.")
    if drawn is not None:
        groups = ", ".join(f"{number} {group}" for group, number in drawn["drawn"].items())
        notes.append(f"Asks to be forgotten, by {drawn['attribute']}: {groups}.")
    return notes


def _most_common(values: Counter[str], shown: int = 3) -> str:
    """The most common values with their numbers, and how many more there are."""
    some = [f"{shorten(value, 30)}: {number}" for value, number in values.most_common(shown)]
    more = len(values) - len(some)
    return ", ".join([*some, f"{more} more"] if more else some)


def _readable(samples: Sequence[Sample], pictures: dict[str, dict[str, Picture]]) -> list[Sample]:
    """The samples whose pictures can be decoded; the others are named as problems already."""
    known = {picture.source for some in pictures.values() for picture in some.values()}
    return [s for s in samples if all(p.source in known or "digest" in vars(p) for p in s.pictures)]


def _two_names(samples: Sequence[Sample]) -> list[str]:
    """A note on pictures that show the same under two names."""
    names: dict[str, set[str]] = {}
    for sample in samples:
        if sample.picture is not None and sample.concept:
            names.setdefault(sample.picture.digest, set()).add(sample.concept)
    shared = [" and ".join(sorted(some)) for some in names.values() if len(some) > 1]
    if not shared:
        return []
    have = "picture has" if len(shared) == 1 else "pictures have"
    return [f"{len(shared)} {have} two names: {'; '.join(sorted(set(shared))[:5])}."]


def _reader(path: str, role: str, notes: list[str]) -> Callable[[], Sequence[Sample]]:
    return lambda: read_samples(path, role, notes=notes)


def _readers(text: str, notes: list[str]) -> dict[str, Callable[[], Sequence[Sample]]]:
    spec = parse_spec(text)
    if spec is None:
        return {"data": _reader(text, "data", notes)}
    benchmark = spec.open()
    if spec.split:
        return {spec.split: lambda: benchmark.load(spec.split)}
    readers: dict[str, Callable[[], Sequence[Sample]]] = {
        name: lambda name=name: benchmark.load(name)  # type: ignore[misc]
        for name in benchmark.splits
    }
    if benchmark.attacked in TRAINING:
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


def _distinct(name: str, pictures: dict[str, dict[str, Picture]]) -> int:
    """The number of distinct pictures; of a user's own, near-duplicates count as one."""
    if name != "data":
        return len(pictures[name])
    return len(photograph_groups(pictures[name].values()))


def _counts(samples: Sequence[Sample], pictures: int) -> dict[str, Any]:
    return {
        "samples": len(samples),
        "people": len({s.concept for s in samples if s.concept}),
        "pictures": pictures,
        "tasks": dict(sorted(Counter(f"{s.modality}/{s.task}" for s in samples).items())),
        "empty_answers": sum(not s.answer.strip() for s in samples),
        "repeated": len(samples) - len({_content(sample) for sample in samples}),
    }
