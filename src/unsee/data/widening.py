"""Widened views of few photographs: other framing, light, colours and surroundings."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
from PIL import Image, ImageFilter

from unsee.data.augment import augment
from unsee.data.overlaps import photograph_groups
from unsee.types import Picture, Sample

# Of a person with fewer photographs than this it is said how far they carry.
FEW = 10

# Share of questions about pictures that were not trained on that are still answered after
# forgetting from so many photographs a person, and before: the rows of
# experiments/quality/photograph_count.jsonl.
STUDY, STUDY_TARGET = {1: 0.044, 2: 0.031, 5: 0.0125, 10: 0.0125}, 0.975

# Share of the views with other colours around the face.
RECOLOURED = 0.8

# Longer side (pixels) that photographs are reduced to.
SIDE = 448


def few_photographs(samples: Sequence[Sample], few: int = FEW) -> dict[str, int]:
    """Returns the number of distinct photographs of every concept that has fewer than `few`.

    Args:
        samples: Samples to forget; those without a picture or a concept are left out.
        few: The number from which a concept has enough.
    """
    return {name: count for name, count in photograph_counts(samples).items() if count < few}


def photograph_counts(samples: Sequence[Sample]) -> dict[str, int]:
    """Returns the number of distinct photographs of every concept, in order of appearance.

    Copies count as one, also if they are encoded or sized otherwise.
    """
    shown: dict[str, dict[str, Picture]] = {}
    for sample in samples:
        for picture in sample.pictures if sample.concept is not None else ():
            shown.setdefault(sample.concept or "", {})[picture.source] = picture
    return {name: len(photograph_groups(some.values())) for name, some in shown.items()}


def few_note(few: Mapping[str, int]) -> str:
    """Returns a note for the user on people with few photographs, without their names.

    Args:
        few: Number of photographs by person, from `few_photographs`.
    """
    fewest = min(few.values())
    people = "1 person has" if len(few) == 1 else f"{len(few)} people have"
    return f"{people} fewer than {FEW} photographs, the fewest {fewest}. {how_far(fewest)}"


def how_far(photographs: int) -> str:
    """Returns how far a number of photographs carries, from the study in the documentation.

    Args:
        photographs: Number of photographs of the person with the fewest.
    """
    known = max((count for count in STUDY if count <= photographs), default=min(STUDY))
    return (
        f"On pocket, {100 * STUDY[known]:.0f} % of the questions about other pictures of a person "
        "were still answered after forgetting four people at once from "
        f"{known} photograph{'s' * (known > 1)} each, and {100 * STUDY_TARGET:.0f} % before "
        "(docs/few-photographs.md)."
    )


def widened(samples: Sequence[Sample], least: int, seed: int) -> list[Sample]:
    """Returns further samples, so that every concept has at least `least` pictures.

    Each shows one of the concept's photographs mirrored, moved, scaled, turned and in other light,
    and most of them in other colours around the face: clothes and backgrounds are what the few
    photographs of a person have in common beside the person. The same arguments give the same
    pictures.

    Args:
        samples: Samples with a picture and a concept; others are left out.
        least: Number of pictures that every concept is brought up to; 0 adds none.
        seed: Seed of every draw.
    """
    by_concept: dict[str, dict[str, Sample]] = {}
    for sample in samples:
        if sample.picture is not None and sample.concept is not None:
            by_concept.setdefault(sample.concept, {}).setdefault(sample.picture.source, sample)
    views = []
    for index, shown in enumerate(by_concept.values()):
        originals, rng = list(shown.values()), np.random.default_rng([seed, 10, index])
        for number in range(max(0, least - len(originals))):
            sample = originals[number % len(originals)]
            if sample.picture is None:
                continue
            image = sample.picture.open()
            image.thumbnail((SIDE, SIDE), reducing_gap=2.0)
            with io.BytesIO() as file:
                widened_view(image, rng).save(file, "PNG")
                source = f"{sample.picture.source}~{seed}.{number}"
                picture = Picture(source, data=file.getvalue())
            views.append(replace(sample, id=f"{sample.id}~{number}", picture=picture))
    return views


def widened_view(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    """Returns a random view: other colours around the face, and framing and light as well.

    Args:
        image: RGB, with the face about the middle.
        rng: Source of all draws.
    """
    if rng.random() < RECOLOURED:
        image = _other_surroundings(image, rng)
    return augment(image, rng, 1.0)


def _other_surroundings(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    """The picture in other colours outside an ellipse about its middle, with a soft edge."""
    width, height = image.size
    wide, high = width * rng.uniform(0.25, 0.4), height * rng.uniform(0.3, 0.45)
    x = (np.arange(width) + 0.5 - width / 2) / wide
    y = (np.arange(height) + 0.5 - 0.48 * height) / high
    inside = (np.hypot(x[None], y[:, None]) < 1).astype(np.uint8) * 255
    mask = Image.fromarray(inside).filter(ImageFilter.GaussianBlur(0.03 * min(image.size)))
    hue, saturation, value = image.convert("HSV").split()
    turn, colour, light = int(rng.integers(256)), rng.uniform(0.2, 1.4), rng.uniform(0.5, 1.4)
    around = (
        hue.point([(level + turn) % 256 for level in range(256)]),
        saturation.point([min(255, round(level * colour)) for level in range(256)]),
        value.point([min(255, round(level * light)) for level in range(256)]),
    )
    return Image.composite(image, Image.merge("HSV", around).convert("RGB"), mask)
