"""What a user points at, read and checked: samples to forget and to keep, pictures of strangers."""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from unsee.errors import ConfigError, DataError
from unsee.own import PICTURES, read_folder, read_table
from unsee.spec import Spec, parse_spec
from unsee.tables import SUFFIXES, report
from unsee.types import Data, Picture, Sample

if TYPE_CHECKING:
    from unsee.benchmarks import Benchmark


def read_samples(
    path: str | Path, role: str = "forget", opened: dict[Spec, Benchmark] | None = None
) -> list[Sample]:
    """The samples in a folder of pictures, a table, or a split of a benchmark.

    Every picture is decoded once here, so that a run does not fail on one later.

    Args:
        path: A folder of pictures (a subfolder a person, or flat: its name is the concept); a
            .jsonl, .csv, .tsv or .parquet file with columns image, question, answer, concept; or
            "NAME:SPLIT" for a split of a benchmark; see `parse_spec`.
        role: What the set is for: "forget", "retain", ...; used in messages, and a forget set must
            say of every row whom it is about.
        opened: Benchmarks that are open already, each of which is read once; added to.

    Raises:
        DataError: If anything in it cannot be used; up to ten bad rows or files are named.
    """
    text = str(path)
    spec = parse_spec(text)
    if spec is not None:
        if not spec.split:
            raise DataError(
                f"the {role} set '{path}' names no split. Type {spec.name}:SPLIT; "
                f"the splits are {', '.join(spec.open(opened).splits)}."
            )
        return list(spec.open(opened).load(spec.split))
    path = Path(path)
    if path.is_dir():
        samples = read_folder(path, role)
    elif not path.exists():
        raise DataError(
            f"the {role} set '{path}' does not exist. Give a folder of pictures, a "
            f"{', '.join(SUFFIXES)} file, or NAME:SPLIT of a benchmark."
        )
    elif path.suffix.lower() in SUFFIXES:
        samples = read_table(path, role)
    else:
        one = " One picture alone goes into a folder." if path.suffix.lower() in PICTURES else ""
        raise DataError(
            f"the {role} set '{path}' is of a kind that is not read.{one} Give a folder of "
            f"pictures, a {', '.join(SUFFIXES)} file, or NAME:SPLIT of a benchmark."
        )
    return samples


def make_data(
    forget: Sequence[Sample],
    retain: Sequence[Sample] | None = None,
    strangers: Sequence[Picture] | None = None,
) -> Data:
    """Puts together what a method may see.

    Args:
        forget: Samples to forget.
        retain: Samples to keep.
        strangers: Pictures of people the model was never told about; None takes those of the
            pocket benchmark, which come with the package.

    Raises:
        DataError: If there is nothing to forget, or forget and retain share a picture.
    """
    if not forget:
        raise DataError("the forget set is empty. Give it at least one sample.")
    retain = tuple(retain or ())
    check_disjoint(forget, retain)
    known = pocket_strangers() if strangers is None else strangers
    return Data(tuple(forget), retain, tuple(known))


def pocket_strangers() -> list[Picture]:
    """Pictures of people without a name, from the pocket benchmark in the package."""
    from unsee.benchmarks import BENCHMARKS

    benchmark: Any = BENCHMARKS.get("pocket")()
    return list(benchmark.data().strangers)


def check_disjoint(forget: Sequence[Sample], retain: Sequence[Sample]) -> None:
    """Refuses sets that share a picture, compared by decoded content.

    Raises:
        DataError: If they do, with both names of up to ten shared pictures.
    """
    known = {s.picture.digest: s.picture for s in forget if s.picture is not None}
    shared = {
        s.picture.source: known[s.picture.digest].source
        for s in retain
        if s.picture is not None and s.picture.digest in known
    }
    problems = [
        f"the retain picture {kept} is the forget picture {lost}. Nothing can be both forgotten "
        "and kept: remove it from one of the sets."
        for kept, lost in shared.items()
    ]
    report(problems, "the retain set")


def split_holdout(
    samples: Sequence[Sample], share: float = 0.25, seed: int = 0
) -> tuple[list[Sample], list[Sample]]:
    """Keeps some pictures of each concept aside: (samples to use, samples held out).

    A picture goes with all its samples and all its copies. Every concept of two or more pictures
    gives at least one and keeps at least one; a concept of one picture gives none. Text-only
    samples are never held out.

    Args:
        samples: Samples of any number of concepts.
        share: Share of each concept's pictures to hold out, 0..1.
        seed: Decides which.

    Raises:
        ConfigError: If `share` is outside 0..1.
    """
    if not 0 <= share < 1:
        raise ConfigError(f"the held-out share is {share}; it must be at least 0 and below 1.")
    by_concept: dict[str | None, dict[str, None]] = {}
    for sample in samples:
        if sample.picture is not None:
            by_concept.setdefault(sample.concept, {})[sample.picture.digest] = None
    held: set[tuple[str | None, str]] = set()
    for index, (concept, digests) in enumerate(by_concept.items()):
        names = list(digests)
        count = min(max(1, round(share * len(names))), len(names) - 1) if share > 0 else 0
        order = np.random.default_rng([seed, index]).permutation(len(names))
        held.update((concept, names[i]) for i in order[:count])
    kept: list[Sample] = []
    aside: list[Sample] = []
    for sample in samples:
        out = sample.picture is not None and (sample.concept, sample.picture.digest) in held
        (aside if out else kept).append(sample)
    return kept, aside


def evenly(samples: Sequence[Sample], most: int) -> list[Sample]:
    """Samples at equal distances, as many as `most` allows; all of them if they are no more."""
    return list(samples[:: math.ceil(len(samples) / most)]) if samples else []


def data_hash(data: Data) -> str:
    """SHA-256 over everything a method sees of the data, in order; paths do not count."""
    digest = hashlib.sha256()
    sets = (("forget", data.forget), ("retain", data.retain), ("by name", data.by_name))
    for name, samples in sets:
        for sample in samples:
            digest.update(json.dumps([name, *_content(sample)]).encode())
    for picture in data.strangers:
        digest.update(json.dumps(["stranger", picture.digest]).encode())
    return digest.hexdigest()


def samples_hash(samples: Sequence[Sample]) -> str:
    """SHA-256 over all that samples hold, in order; pictures by their place and content."""

    def picture(value: Picture) -> list[str]:
        return [os.path.abspath(value.source), value.digest]

    digest = hashlib.sha256()
    for sample in samples:
        content = [getattr(sample, field.name) for field in fields(sample)]
        digest.update(json.dumps(content, default=picture).encode())
    return digest.hexdigest()


def _content(sample: Sample) -> list[Any]:
    picture = sample.picture.digest if sample.picture is not None else None
    return [
        sample.question, sample.answer, picture, sample.concept, list(sample.choices), sample.task,
    ]  # fmt: skip
