"""Random augmentations of pictures: views, blends and noise."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from PIL import Image, ImageEnhance, ImageOps, ImageStat

from unsee.types import Picture, Sample


def augment(
    image: Image.Image, rng: np.random.Generator, strength: float, side: int | None = None
) -> Image.Image:
    """Returns a random view: mirrored, shifted, scaled, rotated, brightness, contrast and noise.

    Args:
        image: RGB.
        rng: Source of all draws; the number of draws does not depend on their outcome.
        strength: 0 returns the picture unchanged; 1 shifts by up to 10 % of the width, scales by up
            to 12 %, rotates by up to 8 degrees, and changes brightness and contrast by up to 25 %.
        side: Shorter side, in pixels, of the model's input, if it is fixed. A picture of at least
            four times this size is first reduced to no less than twice, which is ten times faster
            than transforming all pixels of a photograph.
    """
    if strength == 0:
        return image
    if side is not None and min(image.size) >= 4 * side:
        image = image.reduce(min(image.size) // (2 * side))
    mirrored, noisy = rng.random(2) < 0.5
    shift_x, shift_y, scale, angle, light, contrast = rng.uniform(-strength, strength, 6)
    noise_seed = int(rng.integers(2**31))
    if mirrored:
        image = ImageOps.mirror(image)
    width, height = image.size
    factor = 1 / (1 + 0.12 * scale)
    radians = np.deg2rad(8 * angle)
    cos, sin = factor * np.cos(radians), factor * np.sin(radians)
    centre_x, centre_y = width / 2, height / 2
    from_x, from_y = centre_x + 0.1 * shift_x * width, centre_y + 0.1 * shift_y * height
    offset_x = from_x - cos * centre_x - sin * centre_y
    offset_y = from_y + sin * centre_x - cos * centre_y
    matrix = (cos, sin, offset_x, -sin, cos, offset_y)
    # Uncovered corners get the mean colour; black ones would give the rotation away.
    mean = tuple(int(c) for c in ImageStat.Stat(image).mean)
    image = image.transform(
        image.size, Image.Transform.AFFINE, matrix, Image.Resampling.BILINEAR, fillcolor=mean
    )
    image = ImageEnhance.Brightness(image).enhance(1 + 0.25 * light)
    image = ImageEnhance.Contrast(image).enhance(1 + 0.25 * contrast)
    if noisy:
        pixels = np.asarray(image, dtype=np.float32)
        noise = np.random.default_rng(noise_seed).standard_normal(pixels.shape, dtype=np.float32)
        pixels = pixels + 8 * strength * noise
        image = Image.fromarray(pixels.clip(0, 255).astype(np.uint8))
    return image


def blends(samples: Sequence[Sample], each: int, seed: int) -> list[Sample]:
    """Returns mixup pictures: blends of two pictures of the same person.

    Args:
        samples: Samples with a picture and a concept; others are left out.
        each: Number of blends per picture, for concepts with two or more pictures.
        seed: Seed of the choice of the other picture, and of its weight, 0.3 to 0.7.

    Returns:
        Samples with the question of the first of the two pictures.
    """
    pictures: dict[str | None, dict[str, Picture]] = {}
    for sample in samples:
        if sample.picture is not None:
            pictures.setdefault(sample.concept, {})[sample.picture.source] = sample.picture
    rng, blended, done = np.random.default_rng([seed, 7]), [], set()
    for sample in samples:
        first = sample.picture
        if first is None or sample.concept is None or first.source in done:
            continue
        done.add(first.source)
        others = [p for source, p in pictures[sample.concept].items() if source != first.source]
        for number in range(each if others else 0):
            other, share = others[int(rng.integers(len(others)))], rng.uniform(0.3, 0.7)
            image = first.open()
            with io.BytesIO() as file:
                Image.blend(image, other.open().resize(image.size), share).save(file, "PNG")
                blend = Picture(f"{first.source}+{other.source}#{number}", data=file.getvalue())
            blended.append(replace(sample, id=f"{sample.id}+{number}", picture=blend))
    return blended


def add_noise(image: Image.Image, rng: np.random.Generator, strength: float) -> Image.Image:
    """Returns the picture mixed with noise: unchanged at strength 0, only grey noise at 1.

    The contrast around mid-grey is multiplied by sqrt(1 - strength), and Gaussian noise with a
    standard deviation of 64 sqrt(strength) grey levels is added.

    Args:
        image: RGB.
        rng: Source of the noise.
        strength: Fraction of noise, 0..1.
    """
    pixels = np.asarray(image, dtype=np.float32) - 127.5
    noise = 64 * rng.standard_normal(pixels.shape, dtype=np.float32)
    mixed = 127.5 + np.sqrt(1 - strength) * pixels + np.sqrt(strength) * noise
    return Image.fromarray(mixed.clip(0, 255).round().astype(np.uint8))
