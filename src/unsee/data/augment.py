"""Random views of a picture: what the camera could as well have taken of the same face."""

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
    """A random view: mirrored, shifted, scaled, turned, in other light, with sensor noise.

    Args:
        image: RGB.
        rng: Every draw comes from here; the number of draws does not depend on their outcome.
        strength: 0 returns the picture as it is; 1 shifts by up to 10 % of the width, scales by up
            to 12 %, turns by up to 8 degrees, and changes light and contrast by up to 25 %.
        side: Shorter side (pixels) of what the model sees, if that is always the same: a picture
            of four times that is first reduced to no less than twice, which is ten times faster
            than turning all pixels of a photograph.
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
    matrix = (
        cos, sin, from_x - cos * centre_x - sin * centre_y,
        -sin, cos, from_y + sin * centre_x - cos * centre_y,
    )  # fmt: skip
    # What the turned frame uncovers takes the picture's mean colour: black corners would tell.
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
    """Pictures between two of a person's: what a picture of them may show that nobody took.

    Args:
        samples: With one picture each, and a concept.
        each: How many for every picture of a concept that has others.
        seed: Draws the other picture, and how much of each is seen (.3 to .7).

    Returns:
        Samples with the questions of the first of the two pictures.
    """
    pictures: dict[str | None, dict[str, Picture]] = {}
    for sample in samples:
        if sample.picture is not None:
            pictures.setdefault(sample.concept, {})[sample.picture.source] = sample.picture
    rng, found, done = np.random.default_rng([seed, 7]), [], set()
    for sample in samples:
        one = sample.picture
        if one is None or sample.concept is None or one.source in done:
            continue
        done.add(one.source)
        others = [p for source, p in pictures[sample.concept].items() if source != one.source]
        for number in range(each if others else 0):
            other, share = others[int(rng.integers(len(others)))], rng.uniform(0.3, 0.7)
            image = one.open()
            with io.BytesIO() as file:
                Image.blend(image, other.open().resize(image.size), share).save(file, "PNG")
                blend = Picture(f"{one.source}+{other.source}#{number}", data=file.getvalue())
            found.append(replace(sample, id=f"{sample.id}+{number}", picture=blend))
    return found


def noised(image: Image.Image, rng: np.random.Generator, strength: float) -> Image.Image:
    """The picture drowned in noise: at 0 as it is, at 1 grey noise alone.

    Around mid-grey, its contrast is multiplied by sqrt(1 - strength), and Gaussian noise of a
    standard deviation of 64 sqrt(strength) grey levels is added.

    Args:
        image: RGB.
        rng: Draws the noise.
        strength: 0 to 1.
    """
    pixels = np.asarray(image, dtype=np.float32) - 127.5
    noise = 64 * rng.standard_normal(pixels.shape, dtype=np.float32)
    mixed = 127.5 + np.sqrt(1 - strength) * pixels + np.sqrt(strength) * noise
    return Image.fromarray(mixed.clip(0, 255).round().astype(np.uint8))
