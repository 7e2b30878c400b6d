"""Random augmentations of pictures: views, composites and noise."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageEnhance, ImageOps, ImageStat

from unsee.errors import DataError
from unsee.types import Picture, Sample

# Shorter side (pixels) that photographs are reduced to for composites, and cells of their warp.
COMPOSITE_SIDE, WARP_CELLS = 448, 12


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


def composites(samples: Sequence[Sample], count: int, seed: int = 0) -> list[Picture]:
    """Returns pictures of nobody, of the same kind as given pictures of people.

    The upper part of a picture and the lower part of another person's are joined, warped and
    recoloured. The same arguments give the same pictures.

    Args:
        samples: Samples with a picture and a concept; others are left out. Where they show one
            person only, both parts are that person's.
        count: Number of pictures.
        seed: Seed of every draw.
    """
    shown = {s.picture.source: s for s in samples if s.picture is not None}
    sources, rng = list(shown), np.random.default_rng([seed, 8])
    images, pictures = dict[str, Image.Image](), list[Picture]()

    def draw(choice: Sequence[str]) -> str:
        source = choice[int(rng.integers(len(choice)))]
        if source not in images:
            images[source] = _reduced(shown[source])
        return source

    for number in range(count if sources else 0):
        upper = draw(sources)
        others = [s for s in sources if shown[s].concept != shown[upper].concept]
        lower = draw(others or sources)
        image = _joined(images[upper], images[lower], float(rng.uniform(0.35, 0.65)))
        image = _warped(image, rng)
        hue, saturation, value = image.convert("HSV").split()
        turn = int(rng.integers(256))
        hue = hue.point([(level + turn) % 256 for level in range(256)])
        image = Image.merge("HSV", (hue, saturation, value)).convert("RGB")
        with io.BytesIO() as file:
            image.save(file, "PNG")
            content = file.getvalue()
        # A source stands for one content wherever pictures are cached.
        name = hashlib.sha256(content).hexdigest()[:16]
        pictures.append(Picture(f"composite-{name}#{number}", data=content))
    return pictures


def _reduced(sample: Sample) -> Image.Image:
    """The sample's picture, its shorter side no longer than `COMPOSITE_SIDE`."""
    if sample.picture is None:
        raise DataError(f"sample {sample.id} has no picture.")
    image = sample.picture.open()
    factor = COMPOSITE_SIDE / min(image.size)
    if factor >= 1:
        return image
    width, height = (max(1, round(side * factor)) for side in image.size)
    return image.resize((width, height), Image.Resampling.BILINEAR, reducing_gap=2.0)


def _joined(upper: Image.Image, lower: Image.Image, edge: float) -> Image.Image:
    """One picture above another, with a soft edge at a fraction of the height."""
    heights = (np.arange(upper.height) + 0.5) / upper.height
    share = 255 / (1 + np.exp((heights - edge) / 0.04))
    rows = share.round().astype(np.uint8)[:, None].repeat(upper.width, 1)
    return Image.composite(upper, lower.resize(upper.size), Image.fromarray(rows))


def _warped(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    """The picture with every part moved by about a tenth of its size, smoothly."""
    cells, (width, height) = WARP_CELLS, image.size
    moves = [
        np.asarray(Image.fromarray(coarse).resize((cells + 1, cells + 1), Image.Resampling.BICUBIC))
        for coarse in rng.standard_normal((2, 4, 4)).astype(np.float32)
    ]
    x = np.linspace(0, width, cells + 1) + 0.1 * width * moves[0]
    y = np.linspace(0, height, cells + 1)[:, None] + 0.1 * height * moves[1]
    # Whatever lies outside would be black.
    x, y = x.clip(0, width - 1), y.clip(0, height - 1)
    edges_x, edges_y = (np.linspace(0, n, cells + 1).round().astype(int) for n in (width, height))
    mesh = []
    for row in range(cells):
        for column in range(cells):
            box = (edges_x[column], edges_y[row], edges_x[column + 1], edges_y[row + 1])
            corners = ((row, column), (row + 1, column), (row + 1, column + 1), (row, column + 1))
            quad = [float(axis[corner]) for corner in corners for axis in (x, y)]
            # A picture of fewer pixels than cells has cells without any.
            if box[0] < box[2] and box[1] < box[3]:
                mesh.append((tuple(int(edge) for edge in box), tuple(quad)))
    return image.transform(image.size, Image.Transform.MESH, mesh, Image.Resampling.BILINEAR)


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
