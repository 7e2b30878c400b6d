"""The samples that a relearning attacker has: forgotten people, others, or other pictures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

import numpy as np
from PIL import Image, ImageFilter, ImageOps

from unsee.attacks import derived_picture
from unsee.errors import DataError
from unsee.types import Picture, Sample

RelearningData = Literal["forget", "retain", "held_out_people", "other_pictures"]


def share_of_pictures(samples: Sequence[Sample], share: float, seed: int) -> list[Sample]:
    """Returns the samples of equally many whole pictures of every person.

    Args:
        samples: The samples to choose from; those without a picture are left out.
        share: Fraction of each person's pictures, at least one picture unless it is 0.
        seed: Seed of the choice.
    """
    rng = np.random.default_rng([seed, 77])
    pictures_by_concept: dict[str, list[str]] = {}
    for sample in samples:
        if sample.picture is not None:
            pictures = pictures_by_concept.setdefault(sample.concept or "", [])
            if sample.picture.source not in pictures:
                pictures.append(sample.picture.source)
    chosen: set[str] = set()
    for pictures in pictures_by_concept.values():
        count = round(share * len(pictures))
        if share > 0:
            count = max(1, count)
        chosen.update(pictures[i] for i in rng.permutation(len(pictures))[:count])
    return [s for s in samples if s.picture is not None and s.picture.source in chosen]


def share_of_people(samples: Sequence[Sample], share: float, seed: int) -> list[str]:
    """Returns the people whose pictures an attacker has; at least one is left out.

    Args:
        samples: Samples of the forgotten people.
        share: Fraction of the people, at least one unless it is 0.
        seed: Seed of the choice.

    Raises:
        DataError: If there are fewer than two people.
    """
    people = list(dict.fromkeys(s.concept for s in samples if s.picture is not None and s.concept))
    if len(people) < 2:
        raise DataError(
            f"data=held_out_people gives some of the forgotten people and asks about the others; "
            f"the forget set names {len(people)}. Name two or more in the column 'concept', or "
            "type data=forget."
        )
    count = min(len(people) - 1, max(1, round(share * len(people)))) if share > 0 else 0
    order = np.random.default_rng([seed, 78]).permutation(len(people))
    return [people[i] for i in sorted(order[:count])]


def without_forgotten(retain: Sequence[Sample], forget: Sequence[Sample]) -> list[Sample]:
    """Returns the retain samples that show no forgotten person and no forget picture.

    Args:
        retain: Samples of other people.
        forget: Samples of the forgotten people.
    """
    people = {s.concept for s in forget if s.concept}
    sources = {picture.source for s in forget for picture in s.pictures}
    return [
        s
        for s in retain
        if s.concept not in people and not any(p.source in sources for p in s.pictures)
    ]


def as_drawings(samples: Sequence[Sample]) -> list[Sample]:
    """Returns the samples with every picture turned into a pencil drawing of it.

    Args:
        samples: Samples with pictures.
    """
    drawn: dict[str, Picture] = {}
    for sample in samples:
        for picture in sample.pictures:
            if picture.source not in drawn:
                image = pencil_drawing(picture.open())
                drawn[picture.source] = derived_picture(picture, image, "drawing")
    return [
        replace(
            s,
            picture=drawn[s.picture.source] if s.picture else None,
            further=tuple(drawn[picture.source] for picture in s.further),
        )
        for s in samples
    ]


def pencil_drawing(image: Image.Image) -> Image.Image:
    """Returns a drawing of a picture: dark edges on white, without colour.

    Args:
        image: The picture, in RGB.
    """
    edges = ImageOps.invert(image.convert("L").filter(ImageFilter.FIND_EDGES))
    # The filter copies the outermost pixels as they are.
    framed = ImageOps.expand(ImageOps.crop(edges, 1), 1, 255) if min(image.size) > 4 else edges
    return ImageOps.autocontrast(framed).convert("RGB")
