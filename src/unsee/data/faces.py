"""Faces in pictures, found by OpenCV's detector where it is installed."""

from __future__ import annotations

from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from unsee.errors import ConfigError
from unsee.pixels.regions import Box
from unsee.types import Picture

# The detector's file, which the package `opencv-python-headless` brings along up to version 4.
CASCADE = "haarcascade_frontalface_alt2.xml"

# Longer side (pixels) that pictures are brought to before faces are looked for: the cascade knows
# faces of 20 pixels and more, and small pictures are enlarged.
SIDE = 400

# Steps of the search: factor between two sizes, how many hits in a row make a face, and the
# smallest face as a share of the shorter side.
SCALE, NEIGHBOURS, SMALLEST = 1.1, 4, 0.08

INSTALL = "pip install 'unsee[faces]'"

NOT_CHECKED = (
    "whether a photograph shows several people was not checked, as no face detector is installed "
    f"({INSTALL})"
)


def has_detector() -> bool:
    """Returns whether a face detector is installed: OpenCV with its cascades."""
    return find_spec("cv2") is not None and _cascade_path() is not None


def faces(picture: Picture) -> list[Box]:
    """Returns a box in pixels around every face that looks at the camera, the largest first.

    A face from the side, in the dark or partly covered may be missed, and patterns that look like
    a face may be taken for one.

    Source: Viola and Jones, CVPR 2001; OpenCV's `CascadeClassifier`.

    Args:
        picture: The picture; if it has a region, faces are looked for in that alone.

    Raises:
        ConfigError: If no detector is installed.
        DataError: If the picture cannot be opened.
    """
    if not has_detector():
        raise ConfigError(f"faces are found by OpenCV, which is not installed. Type: {INSTALL}.")
    image = picture.open().convert("L")
    factor = SIDE / max(image.size)
    scaled = image.resize([max(1, round(side * factor)) for side in image.size])
    smallest = max(20, round(SMALLEST * min(scaled.size)))
    hits = _cascade().detectMultiScale(
        np.asarray(scaled), SCALE, NEIGHBOURS, minSize=(smallest, smallest)
    )
    boxes = []
    for x, y, width, height in sorted(([int(v) for v in hit] for hit in hits), key=_by_size):
        x1, y1 = min(image.width, (x + width) / factor), min(image.height, (y + height) / factor)
        boxes.append(Box(*(float(round(value)) for value in (x / factor, y / factor, x1, y1))))
    return boxes


def _by_size(hit: list[int]) -> tuple[int, int, int]:
    """Sorts hits by their width, the largest first, and those of one width by their place."""
    return -hit[2], hit[0], hit[1]


def _cascade_path() -> Path | None:
    """The detector's file; None where OpenCV comes without it, as version 5 does."""
    spec = find_spec("cv2")
    if spec is None or spec.origin is None:
        return None
    path = Path(spec.origin).parent / "data" / CASCADE
    return path if path.is_file() else None


@cache
def _cascade() -> Any:
    import cv2

    return cv2.CascadeClassifier(str(_cascade_path()))
