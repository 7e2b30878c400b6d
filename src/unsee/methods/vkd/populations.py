"""Populations."""

from __future__ import annotations

from collections.abc import Sequence

from unsee.data.selection import one_sample_per_picture
from unsee.errors import DataError
from unsee.types import Data, Picture, Sample

# Of the people most alike, how many; and of how many pictures each.
NEAREST, EACH = 3, 16


def people(samples: Sequence[Sample]) -> list[list[Picture]]:
    """The pictures of every concept that has two or more, at most `EACH` of it."""
    found: dict[str, list[Picture]] = {}
    for sample in one_sample_per_picture(samples):
        if sample.concept is not None and sample.picture is not None:
            found.setdefault(sample.concept, []).append(sample.picture)
    return [pictures[:EACH] for pictures in found.values() if len(pictures) > 1]


def refuse_population(population: str, data: Data) -> None:
    """Refuses a population that the data has not; see `unsee.methods.vkd.VKD`.

    Raises:
        DataError: If so.
    """
    if population == "forget" and len({s.concept for s in data.forget if s.picture}) < 2:
        raise DataError(
            "population=forget measures people against each other, and only one is to be "
            "forgotten. Type --set population=kept."
        )
    if population == "nearest" and not people(data.retain):
        raise DataError(
            "population=nearest compares with the people to keep who look most alike, and the "
            "retain set has nobody with two pictures. Give a subfolder a person, or a column "
            "concept, with --retain; or type --set population=kept."
        )
