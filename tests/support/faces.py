"""Drawn faces that a face detector finds."""

from __future__ import annotations

from pathlib import Path

from PIL import Image, ImageDraw, ImageFilter

# Width of one person's part of a picture, its height, and the box around the face in it.
WIDE, HIGH, FACE = 160, 200, (20, 25, 140, 180)
SKINS = ((205, 170, 150), (230, 190, 160), (190, 150, 120))


def draw_faces(path: Path, count: int = 1, first: int = 0) -> Path:
    """Draws people side by side into a file.

    Args:
        path: The file, whose suffix says its format.
        count: Number of people.
        first: The first person's number, on which colours depend.
    """
    image = Image.new("RGB", (count * WIDE, HIGH), (110, 120 + 10 * first, 130))
    draw = ImageDraw.Draw(image)
    for number in range(count):
        _draw_face(draw, WIDE * number + WIDE // 2, HIGH // 2, SKINS[(first + number) % 3])
    path.parent.mkdir(parents=True, exist_ok=True)
    image.filter(ImageFilter.GaussianBlur(2)).save(path)
    return path


def _draw_face(draw: ImageDraw.ImageDraw, x: int, y: int, skin: tuple[int, int, int]) -> None:
    r = 55
    draw.ellipse((x - r, y - 1.25 * r, x + r, y + 1.25 * r), fill=skin)
    for side in (-1, 1):
        eye = x + side * 0.42 * r
        draw.ellipse((eye - 0.26 * r, y - 0.38 * r, eye + 0.26 * r, y - 0.12 * r), fill="#46322d")
        draw.rectangle((eye - 0.3 * r, y - 0.58 * r, eye + 0.3 * r, y - 0.46 * r), fill="#50372d")
    nose = (x, y - 0.2 * r, x - 0.14 * r, y + 0.28 * r, x + 0.14 * r, y + 0.28 * r)
    draw.polygon(nose, fill=(225, 190, 170))
    draw.rectangle((x - 0.38 * r, y + 0.55 * r, x + 0.38 * r, y + 0.72 * r), fill="#783232")
