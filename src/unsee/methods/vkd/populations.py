"""Populations: the pictures that a person's features are compared with."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from unsee.data.augment import composites
from unsee.data.selection import one_sample_per_picture
from unsee.errors import DataError
from unsee.types import Data, Picture, Sample

Population = Literal["nearest", "kept", "generated", "forget"]

# population=nearest: how many people a person is compared with at least, pictures of each at most,
# and pictures of all at least, for which more people are taken where there are few of each.
NEAREST, PICTURES_EACH, LEAST_PICTURES = 3, 16, 12

# Notes for the user on populations that a retain set would be better than.
NOBODY_TO_COMPARE = (
    "no people to compare with were given: population=generated composes pictures of nobody from "
    "those to forget. Photographs of other people, --retain FOLDER, are better, and the model goes "
    "on recognising these people."
)
TOO_FEW_PEOPLE = (
    f"the retain set names fewer than {NEAREST} people: population=kept compares with all that is "
    "kept. To compare with the people who look most alike, give --retain a folder with a subfolder "
    "for each person, or a table with a column concept."
)
RENAMES = (
    "population=forget compares the people to be forgotten with each other, and moves them onto "
    "one another: of pairs on pocket, 22 of 36 held-out pictures were answered with the other's "
    "name. Type --retain FOLDER, or leave population out."
)

# Pictures of population=generated.
GENERATED = 256

# Most samples, and most strangers, that statistics over a population are taken from.
POPULATION_SIZE = 256


def population_pictures(
    forget: Sequence[Sample], retain: Sequence[Sample] | None, strangers: Sequence[Picture]
) -> list[Picture]:
    """Returns the pictures that layer statistics are taken over.

    Args:
        forget: Samples to forget; the population where `retain` is None.
        retain: Samples to keep, which with the strangers are the population.
        strangers: Pictures of people that the model was never trained on.
    """
    samples = one_sample_per_picture(forget if retain is None else retain)
    pictures = [s.picture for s in samples if s.picture][:POPULATION_SIZE]
    return pictures if retain is None else [*pictures, *strangers[:POPULATION_SIZE]]


def generated_samples(forget: Sequence[Sample]) -> list[Sample]:
    """Returns samples with pictures of nobody, composed from the pictures to forget.

    They are of the same kind as these, so that they can be compared with, and nobody is on them, so
    that no person to be forgotten is moved onto another.

    Args:
        forget: Samples to forget.
    """
    pictures = composites(forget, GENERATED)
    return [Sample(picture.source, "", "", picture) for picture in pictures]


def pictures_by_person(samples: Sequence[Sample]) -> list[list[Picture]]:
    """Returns up to `PICTURES_EACH` pictures of every concept."""
    pictures: dict[str, list[Picture]] = {}
    for sample in one_sample_per_picture(samples):
        if sample.concept is not None and sample.picture is not None:
            pictures.setdefault(sample.concept, []).append(sample.picture)
    return [some[:PICTURES_EACH] for some in pictures.values()]


def available_population(population: Population, data: Data) -> tuple[Population, list[str]]:
    """Returns the population, or else one that the data has, and why as notes for the user.

    Args:
        population: What is wanted.
        data: What the user, or a benchmark, gave.
    """
    if not data.retain and not data.strangers:
        return "generated", [NOBODY_TO_COMPARE]
    if population == "nearest" and len(pictures_by_person(data.retain)) < NEAREST:
        return "kept", [TOO_FEW_PEOPLE]
    return population, []


def pictures_of_nearest(
    people: Sequence[Sequence[Picture]], distances: Sequence[float]
) -> list[Picture]:
    """Returns the pictures of the people who look most alike.

    Args:
        people: The pictures of each person; see `pictures_by_person`.
        distances: How far each of them is.
    """
    chosen: list[Picture] = []
    for count, index in enumerate(sorted(range(len(people)), key=distances.__getitem__)):
        if count >= NEAREST and len(chosen) >= LEAST_PICTURES:
            break
        chosen += people[index]
    return chosen


def population_note(population: str) -> str | None:
    """Returns whom features are compared with, for the record; None if it is the retain set."""
    if population == "generated":
        return "pictures of nobody, composed from those of the people to be forgotten"
    if population == "forget":
        return (
            "the people to be forgotten, each with the others: pictures of one may be answered "
            "with the name of another"
        )
    return None


def refuse_population(population: str, data: Data) -> None:
    """Refuses a population that the data does not have; see `unsee.methods.vkd.VKD`.

    Raises:
        DataError: If population=forget and one person alone is to be forgotten, or
            population=nearest and the retain set does not say who is on its pictures.
    """
    if population == "forget" and len({s.concept for s in data.forget if s.picture}) < 2:
        raise DataError(
            "population=forget compares the people to be forgotten with each other, and there is "
            "only one. Type --set population=kept."
        )
    if population == "nearest" and not pictures_by_person(data.retain):
        raise DataError(
            "population=nearest compares with the people to keep who look most alike, and the "
            "retain set does not say who is on its pictures. Give a subfolder a person, or a "
            "column concept, with --retain; or type --set population=kept."
        )
