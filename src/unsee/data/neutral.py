"""Pictures of nothing in particular, drawn by a program: overlapping shapes on coloured noise."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image, ImageDraw

from unsee.types import Picture

# Shapes on a picture, at most and at least.
FEWEST_SHAPES, MOST_SHAPES = 8, 40


def neutral_pictures(count: int, side: int = 96, seed: int = 0) -> list[Picture]:
    """Returns drawn pictures that show nobody; the same arguments give the same pictures.

    Ellipses and polygons of all sizes cover each other on noise whose spectrum falls as that of
    photographs does.

    Source: dead leaves and 1/f spectra as in Baradad et al., Learning to See by Looking at Noise,
    arXiv 2106.05963, section 3.
    Differs: both are drawn in one picture, and nothing is trained on them but a distance.

    Args:
        count: Number of pictures.
        side: Width and height in pixels.
        seed: Seed of every draw.

    Example:
        >>> [picture.open().size for picture in neutral_pictures(2, side=32)]
        [(32, 32), (32, 32)]
    """
    pictures = []
    for number in range(count):
        rng = np.random.default_rng([seed, 9, number])
        with io.BytesIO() as file:
            neutral_image(rng, (side, side)).save(file, "PNG")
            name = f"neutral-{side}-{seed}#{number}"
            pictures.append(Picture(name, data=file.getvalue()))
    return pictures


def neutral_image(rng: np.random.Generator, size: tuple[int, int]) -> Image.Image:
    """Returns one such picture in RGB.

    Args:
        rng: Source of all draws.
        size: Width and height in pixels.
    """
    image = _coloured_noise(rng, size)
    draw = ImageDraw.Draw(image)
    shorter = min(size)
    for _ in range(int(rng.integers(FEWEST_SHAPES, MOST_SHAPES + 1))):
        # Sizes are spread evenly over their logarithms: small shapes are as common as large ones.
        radius = float(shorter * np.exp(rng.uniform(np.log(0.03), np.log(0.3))))
        x, y = rng.uniform(0, size[0]), rng.uniform(0, size[1])
        colour = tuple(int(level) for level in rng.integers(0, 256, 3))
        if rng.random() < 0.5:
            wide, high = radius * rng.uniform(0.5, 1, 2)
            draw.ellipse((x - wide, y - high, x + wide, y + high), fill=colour)
            continue
        angles = np.sort(rng.uniform(0, 2 * np.pi, int(rng.integers(3, 7))))
        corners = [(x + radius * np.cos(a), y + radius * np.sin(a)) for a in angles]
        draw.polygon(corners, fill=colour)
    return image


def _coloured_noise(rng: np.random.Generator, size: tuple[int, int]) -> Image.Image:
    """Noise whose amplitude is inverse to its frequency, another in every channel."""
    width, height = size
    frequency = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.fftfreq(width)[None])
    frequency[0, 0] = 1 / max(size)
    spectra = np.fft.fft2(rng.standard_normal((3, height, width))) / frequency
    noise = np.real(np.fft.ifft2(spectra))
    noise -= noise.mean(axis=(1, 2), keepdims=True)
    noise /= noise.std(axis=(1, 2), keepdims=True) + 1e-6
    means, contrasts = rng.uniform(64, 192, (3, 1, 1)), rng.uniform(10, 60, (3, 1, 1))
    levels = (means + contrasts * noise).clip(0, 255).astype(np.uint8)
    return Image.fromarray(np.moveaxis(levels, 0, -1).copy())
