"""Coloured frames and badges, added to photographs as the subject of general questions.

Real photographs carry no labels; the frame and the badge in the corner have known ones.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from unsee.benchmarks.pocket.appearance import COLOURS
from unsee.benchmarks.pocket.world import BADGES, FRAMES, Role, Shot


@dataclass(frozen=True)
class Framing:
    """Positions and sizes of frame and badge, in pixels.

    Attributes:
        size: Side of the finished picture.
        border: Width of the frame.
        inset: Distance of the badge from the lower right corner.
        badge: Side of the badge.
        rim: Width of the dark edge around the badge.
    """

    size: int
    border: int
    inset: int
    badge: int
    rim: int

    @property
    def inner(self) -> int:
        """Side of the photograph within the frame."""
        return self.size - 2 * self.border

    def write_shot(
        self,
        folder: Path,
        file: str,
        person: int | None,
        role: Role,
        square: Image.Image,
        shows: dict[str, str],
    ) -> Shot:
        """Adds frame and badge to a photograph and writes the shot.

        Args:
            folder: Folder of the world.
            file: Path of the picture, relative to the folder.
            person: Index of the person; None for a stranger.
            role: Role of the shot.
            square: The photograph, `inner` by `inner` pixels.
            shows: Colours of frame and badge, and the badge's shape.
        """
        image = Image.new("RGB", (self.size, self.size), COLOURS[shows["frame"]])
        image.paste(square, (self.border, self.border))
        self._draw_badge(image, COLOURS[shows["badge"]], shows["shape"])
        path = folder / file
        path.parent.mkdir(parents=True, exist_ok=True)
        image.save(path)
        return Shot(file, person, role, shows)

    def _draw_badge(self, image: Image.Image, colour: tuple[int, int, int], shape: str) -> None:
        pen = ImageDraw.Draw(image)
        last = self.size - self.inset
        first = last - self.badge
        pen.rectangle([first - self.rim] * 2 + [last + self.rim] * 2, fill=(15, 15, 15))
        if shape == "circle":
            pen.ellipse([first, first, last, last], fill=colour)
        elif shape == "square":
            pen.rectangle([first, first, last, last], fill=colour)
        else:
            pen.polygon([(first, last), (last, last), ((first + last) // 2, first)], fill=colour)


def draw_labels(rng: np.random.Generator) -> dict[str, str]:
    """Draws the colours of frame and badge, and the badge's shape."""
    frame, badge = (str(rng.choice(FRAMES)) for _ in range(2))
    return {"frame": frame, "badge": badge, "shape": str(rng.choice(BADGES))}
