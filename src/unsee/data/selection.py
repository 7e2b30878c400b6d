"""What a user points at, read and checked: samples to forget and to keep, pictures of strangers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

import numpy as np

from unsee.data.tables import report
from unsee.errors import ConfigError
from unsee.types import Sample


def one_sample_per_picture(samples: Sequence[Sample]) -> list[Sample]:
    """The first sample of every picture, with that picture alone; text-only ones are left out."""
    first: dict[str, Sample] = {}
    for sample in samples:
        for picture in sample.pictures:
            alone = replace(sample, picture=picture, further=()) if sample.further else sample
            first.setdefault(picture.source, alone)
    return list(first.values())


def evenly_spaced(
    samples: Sequence[Sample], most: int, spacing: Literal["ends", "floor", "ceil"] = "ends"
) -> list[Sample]:
    """Returns at most `most` samples at even distances, in order; all if there are no more.

    Args:
        samples: The samples to choose from.
        most: Maximum number of samples, at least 1.
        spacing: How a distance that is not a whole number is handled. "ends" rounds each position
            and returns exactly `most` samples, the first and the last among them. "floor" rounds
            the distance down and returns exactly `most`, which may leave out the end. "ceil" rounds
            it up and may return fewer. Records made with one of them are only reproduced with the
            same one.

    Example:
        >>> [evenly_spaced(list("abcdefg"), 4, how) for how in ("ends", "floor", "ceil")]
        [['a', 'c', 'e', 'g'], ['a', 'b', 'c', 'd'], ['a', 'c', 'e', 'g']]
    """
    if spacing == "ends":
        positions = np.linspace(0, len(samples) - 1, min(most, len(samples)))
        return [samples[int(position)] for position in positions]
    if spacing == "floor":
        return list(samples[:: max(1, len(samples) // most)][:most])
    return list(samples[:: max(1, math.ceil(len(samples) / most))])


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
