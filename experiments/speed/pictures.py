"""What a picture costs before the model sees it, in this process and in worker processes.

    python -m experiments.speed.pictures [--count 16]

Prints a row for each size of JPEG: processor milliseconds to decode it, to make a random view of
it (of all its pixels, and reduced first as training does), and to run the image processor; and
wall-clock milliseconds to decode and augment it in this process and in two workers, without
their start-up.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from PIL import Image

from experiments.pages import table
from unsee.data.augment import augment
from unsee.pocket_builder.tiny_llava import make_processor
from unsee.types import Picture

# Width and height of the picture, and the side of what the model sees, in pixels.
SIZES = ((48, 48, 48), (336, 336, 336), (1024, 768, 336), (4000, 3000, 336))

T = TypeVar("T")


def random_view(image: Image.Image, side: int | None, seed: int) -> Image.Image:
    """Returns a random view of an opened picture; `side` reduces it first."""
    return augment(image, np.random.default_rng(seed), 1.0, side)


def decode(picture: Picture, _: int) -> Image.Image:
    """Decodes a picture."""
    return picture.open()


def decode_and_augment(path: Path, side: int, seed: int) -> Image.Image:
    """Returns a random view of the picture in a file, as training makes it."""
    return random_view(Picture.from_path(path).open(), side, seed)


def timed(count: int, make: Callable[[int], T]) -> tuple[float, list[T]]:
    """Returns processor milliseconds a call, and the results of the calls."""
    before = time.process_time()
    results = [make(number) for number in range(count)]
    return 1e3 * (time.process_time() - before) / count, results


def write_jpeg(width: int, height: int, path: Path) -> Path:
    """Writes a JPEG of smooth random colours, and returns its path."""
    small = np.random.default_rng(0).integers(0, 255, (12, 16, 3), dtype=np.uint8)
    Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC).save(path, quality=90)
    return path


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=16)
    count = parser.parse_args().count
    torch.set_num_threads(1)
    rows = []
    with tempfile.TemporaryDirectory() as folder, ProcessPoolExecutor(2) as pool:
        for width, height, side in SIZES:
            path = write_jpeg(width, height, Path(folder) / f"{width}.jpg")
            processor = make_processor(["a"], side).image_processor
            decoding, images = timed(count, partial(decode, Picture.from_path(path)))
            full, _ = timed(max(1, count // 8), partial(random_view, images[0], None))
            reduced, views = timed(count, partial(random_view, images[0], side))
            before = time.process_time()
            processor(views, return_tensors="pt")
            processing = 1e3 * (time.process_time() - before) / count
            # The workers' first task imports modules, which is not to be timed.
            list(pool.map(decode_and_augment, [path] * 2, [side] * 2, range(2)))
            started = time.perf_counter()
            for number in range(count):
                decode_and_augment(path, side, number)
            middle = time.perf_counter()
            list(pool.map(decode_and_augment, [path] * count, [side] * count, range(count)))
            ended = time.perf_counter()
            here, workers = 1e3 * (middle - started) / count, 1e3 * (ended - middle) / count
            values = (decoding, full, reduced, processing, here, workers)
            rows.append([f"{width} x {height}", *(f"{value:.1f}" for value in values)])
    head = ["picture", "decode", "view", "view, reduced", "processor", "here", "two workers"]
    print(table(head, rows))


if __name__ == "__main__":
    main()
