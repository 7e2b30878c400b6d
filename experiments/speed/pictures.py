"""What a picture costs before the model sees it, here and in worker processes.

    python -m experiments.speed.pictures [--count 16]

Prints a line for each size of JPEG: processor milliseconds to decode it, to make a random view of
it (of all its pixels, and reduced first as training does), and to run the image processor; and
milliseconds by the wall for decoding and turning in this process and in two workers, start-up
left out.
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

from unsee.data.augment import augment
from unsee.pocket_builder.tiny_llava import make_processor
from unsee.types import Picture

# Width and height of the picture, and the side of what the model sees.
SIZES = ((48, 48, 48), (336, 336, 336), (1024, 768, 336), (4000, 3000, 336))


T = TypeVar("T")


def turned(image: Image.Image, side: int | None, seed: int) -> Image.Image:
    """A random view of an opened picture."""
    return augment(image, np.random.default_rng(seed), 1.0, side)


def reopened(picture: Picture, _: int) -> Image.Image:
    """The picture, decoded once more."""
    return picture.open()


def view(path: Path, side: int, seed: int) -> Image.Image:
    """A random view of the picture in a file, as training makes it."""
    return turned(Picture.from_path(path).open(), side, seed)


def taken(count: int, make: Callable[[int], T]) -> tuple[float, list[T]]:
    """Processor milliseconds a call, and what the calls gave."""
    before = time.process_time()
    made = [make(number) for number in range(count)]
    return 1e3 * (time.process_time() - before) / count, made


def drawn(width: int, height: int, path: Path) -> Path:
    """A JPEG of soft random colours."""
    small = np.random.default_rng(0).integers(0, 255, (12, 16, 3), dtype=np.uint8)
    Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC).save(path, quality=90)
    return path


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=16)
    count = parser.parse_args().count
    torch.set_num_threads(1)
    print("| picture | decode | view | view, reduced | processor | here | two workers |")
    print("| --- " * 7 + "|")
    with tempfile.TemporaryDirectory() as folder, ProcessPoolExecutor(2) as pool:
        for width, height, side in SIZES:
            path = drawn(width, height, Path(folder) / f"{width}.jpg")
            images = make_processor(["a"], side).image_processor
            picture = Picture.from_path(path)
            decode, opened = taken(count, partial(reopened, picture))
            image = opened[0]
            whole, _ = taken(max(1, count // 8), partial(turned, image, None))
            reduced, views = taken(count, partial(turned, image, side))
            before = time.process_time()
            images(views, return_tensors="pt")
            process = 1e3 * (time.process_time() - before) / count
            list(pool.map(view, [path] * 2, [side] * 2, range(2)))
            started = time.perf_counter()
            for number in range(count):
                view(path, side, number)
            here = time.perf_counter()
            list(pool.map(view, [path] * count, [side] * count, range(count)))
            there = time.perf_counter() - here
            cells = (decode, whole, reduced, process, 1e3 * (here - started) / count)
            told = " | ".join(f"{cell:.1f}" for cell in (*cells, 1e3 * there / count))
            print(f"| {width} x {height} | {told} |", flush=True)


if __name__ == "__main__":
    main()
