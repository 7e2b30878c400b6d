"""Choosing among samples: one per picture, evenly spaced ones, and a held-out part."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

import numpy as np

from unsee.data.tables import raise_problems
from unsee.errors import ConfigError
from unsee.types import Sample


def one_sample_per_picture(samples: Sequence[Sample]) -> list[Sample]:
    """Returns one sample per picture: the first that shows it, with that picture alone.

    Args:
        samples: The samples; those without a picture are left out.
    """
    first: dict[str, Sample] = {}
    for sample in samples:
        for picture in sample.pictures:
            if picture.source not in first:
                first[picture.source] = replace(sample, picture=picture, further=())
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
    """Checks that two sets share no picture, compared by decoded content.

    Raises:
        DataError: If they share one; names up to ten shared pictures.
    """
    forget_pictures = {s.picture.digest: s.picture for s in forget if s.picture is not None}
    shared = {
        s.picture.source: forget_pictures[s.picture.digest].source
        for s in retain
        if s.picture is not None and s.picture.digest in forget_pictures
    }
    problems = [
        f"the retain picture {kept} is the forget picture {lost}. Nothing can be both forgotten "
        "and kept: remove it from one of the sets."
        for kept, lost in shared.items()
    ]
    raise_problems(problems, "the retain set")


def split_holdout(
    samples: Sequence[Sample], share: float = 0.25, seed: int = 0, min_pictures: int = 2
) -> tuple[list[Sample], list[Sample]]:
    """Holds out some pictures of each concept.

    All samples and copies of a picture are on the same side. A concept with enough pictures has at
    least one on each side; a single picture is not held out. Text-only samples are never held out.

    Args:
        samples: Samples of any number of concepts.
        share: Fraction of each concept's pictures to hold out: at least 0, below 1.
        seed: Seed of the choice of pictures.
        min_pictures: Concepts with fewer pictures have none held out.

    Returns:
        The samples to use, and the samples held out.

    Raises:
        ConfigError: If `share` is outside its range.
    """
    if not 0 <= share < 1:
        raise ConfigError(f"the held-out share is {share}; it must be at least 0 and below 1.")
    by_concept: dict[str | None, dict[str, None]] = {}
    for sample in samples:
        if sample.picture is not None:
            by_concept.setdefault(sample.concept, {})[sample.picture.digest] = None
    held_out: set[tuple[str | None, str]] = set()
    for index, (concept, digests) in enumerate(by_concept.items()):
        names = list(digests)
        enough = share > 0 and len(names) >= min_pictures
        count = min(max(1, round(share * len(names))), len(names) - 1) if enough else 0
        order = np.random.default_rng([seed, index]).permutation(len(names))
        held_out.update((concept, names[i]) for i in order[:count])
    used: list[Sample] = []
    aside: list[Sample] = []
    for sample in samples:
        picture = sample.picture
        out = picture is not None and (sample.concept, picture.digest) in held_out
        (aside if out else used).append(sample)
    return used, aside
