"""Parts of pictures: the box around a face, and the picture with or without what is in it."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
from PIL import Image, ImageFilter

from unsee.errors import DataError, quoted

# What is added to a box on every side, as a fraction of it: hair and chin for the face alone, and
# what must not remain of them without it.
AROUND, REMOVED = 0.3, 0.25

# Fewest pixels of a box on a side; of a smaller face nothing can be learned.
SMALLEST = 8

FORM = (
    "Write x0,y0,x1,y1, upper left and lower right corner in pixels of the upright picture, such "
    "as 120,40,260,210, or in fractions of its width and height, such as 0.25,0.1,0.5,0.6"
)


class Box(NamedTuple):
    """A box in a picture, in pixels or in fractions of width and height; the origin is upper left.

    Values that are all between 0 and 1 are fractions.

    Attributes:
        x0: Left edge.
        y0: Upper edge.
        x1: Right edge.
        y1: Lower edge.
    """

    x0: float
    y0: float
    x1: float
    y1: float

    def __str__(self) -> str:
        """The four numbers, as they are typed."""
        return ",".join(f"{value:g}" for value in self)

    @property
    def is_fraction(self) -> bool:
        """Whether the values are fractions of width and height."""
        return max(self) <= 1

    def pixels(self, size: tuple[int, int], source: str) -> tuple[int, int, int, int]:
        """Returns the box in whole pixels of a picture.

        Args:
            size: Width and height of the upright picture.
            source: The picture's name in messages.

        Raises:
            DataError: If it reaches beyond the picture, or is too small.
        """
        width, height = size
        across, down = (width, height) if self.is_fraction else (1, 1)
        x0, x1 = round(self.x0 * across), round(self.x1 * across)
        y0, y1 = round(self.y0 * down), round(self.y1 * down)
        if x1 > width or y1 > height:
            raise DataError(
                f"picture {source}: box {self} reaches beyond the picture, which is {width} x "
                f"{height} pixels when upright. {FORM}."
            )
        if min(x1 - x0, y1 - y0) < SMALLEST:
            raise DataError(
                f"picture {source}: box {self} is {x1 - x0} x {y1 - y0} pixels of a picture of "
                f"{width} x {height}; at least {SMALLEST} x {SMALLEST} are needed. {FORM}."
            )
        return x0, y0, x1, y1


def parse_box(value: object) -> Box:
    """Returns a box from text or from four numbers.

    Args:
        value: "x0,y0,x1,y1", or a sequence of four numbers.

    Example:
        >>> parse_box("120, 40, 260, 210"), parse_box([0.25, 0.1, 0.5, 0.6]).is_fraction
        (Box(x0=120.0, y0=40.0, x1=260.0, y1=210.0), True)

    Raises:
        DataError: If it is not four finite numbers of 0 or more, the first two smaller.
    """
    parts: Sequence[object] = ()
    if isinstance(value, str):
        parts = re.split(r"[,;\s]+", value.strip().strip("[]()"))
    elif isinstance(value, list | tuple):
        parts = value
    try:
        numbers = [float(part) for part in parts if not isinstance(part, bool)]  # type: ignore[arg-type]
    except (TypeError, ValueError):
        numbers = []
    if len(numbers) != 4 or len(parts) != 4 or not all(map(math.isfinite, numbers)):
        raise DataError(f"box {quoted(value)} is not four numbers. {FORM}.")
    box = Box(*numbers)
    if min(box) < 0:
        raise DataError(f"box {box} begins before the picture does: a number is negative. {FORM}.")
    if box.x1 <= box.x0 or box.y1 <= box.y0:
        raise DataError(
            f"box {box} is empty or in the wrong order: x1 must be larger than x0, and y1 than y0. "
            f"{FORM}."
        )
    return box


@dataclass(frozen=True)
class Region:
    """The part of a picture that is shown: the face in a box alone, or everything but that face.

    Attributes:
        box: The box around the face.
        shows: "inside" crops to the box and a little around it; "outside" fills the box with what
            surrounds it, blurred.
        further: Boxes around further faces that are not shown: filled in the same way.
    """

    box: Box
    shows: Literal["inside", "outside"] = "inside"
    further: tuple[Box, ...] = ()

    def __str__(self) -> str:
        """The end of the picture's source, which names the boxes."""
        boxes = " ".join(map(str, (self.box, *self.further)))
        return f"[{boxes}]" if self.shows == "inside" else f"[without {boxes}]"

    def size(self, size: tuple[int, int], source: str) -> tuple[int, int]:
        """Returns width and height of what is shown.

        Args:
            size: Width and height of the upright picture.
            source: The picture's name in messages.
        """
        if self.shows == "outside":
            return size
        left, upper, right, lower = _grown(self.box.pixels(size, source), AROUND, size)
        return right - left, lower - upper

    def apply(self, image: Image.Image, source: str) -> Image.Image:
        """Returns what is shown of the upright picture, in RGB.

        Args:
            image: The whole picture.
            source: Its name in messages.

        Raises:
            DataError: If the box reaches beyond the picture, or is too small.
        """
        box = self.box.pixels(image.size, source)
        shown = image
        for other in self.further:
            shown = _without(shown, _grown(other.pixels(image.size, source), REMOVED, image.size))
        if self.shows == "outside":
            return _without(shown, _grown(box, REMOVED, image.size))
        if self.further:
            # A face beside it, and what is removed around that, may reach into the box.
            shown.paste(image.crop(box), box)
        return shown.crop(_grown(box, AROUND, image.size))


def _grown(
    box: tuple[int, int, int, int], share: float, size: tuple[int, int]
) -> tuple[int, int, int, int]:
    """The box with a share of its width and height added on each side, within the picture."""
    x0, y0, x1, y1 = box
    across, down = round(share * (x1 - x0)), round(share * (y1 - y0))
    return (
        max(0, x0 - across),
        max(0, y0 - down),
        min(size[0], x1 + across),
        min(size[1], y1 + down),
    )


def _without(image: Image.Image, box: tuple[int, int, int, int]) -> Image.Image:
    """The picture with a box filled by a blurred average of what is around it."""
    x0, y0, x1, y1 = box
    known = Image.new("L", image.size, 255)
    known.paste(0, box)
    radius = max(x1 - x0, y1 - y0)
    around = (
        max(0, x0 - 2 * radius),
        max(0, y0 - 2 * radius),
        min(image.width, x1 + 2 * radius),
        min(image.height, y1 + 2 * radius),
    )
    part, mask = image.crop(around), known.crop(around)
    black = Image.new("RGB", part.size)
    blur = ImageFilter.GaussianBlur(radius / 2)
    # The average of the known pixels alone, weighted by their distance.
    levels = np.asarray(Image.composite(part, black, mask).filter(blur), dtype=np.float32)
    share = np.asarray(mask.filter(blur), dtype=np.float32)[..., None] / 255
    mean = np.asarray(part, dtype=np.float32)[np.asarray(mask) > 0]
    fallback = mean.mean(0) if len(mean) else np.full(3, 127.5, np.float32)
    filled = np.where(share > 0.02, levels / np.maximum(share, 0.02), fallback)
    patch = Image.fromarray(filled.clip(0, 255).astype(np.uint8))
    result = image.copy()
    inner = (x0 - around[0], y0 - around[1], x1 - around[0], y1 - around[1])
    result.paste(patch.crop(inner), box)
    return result
