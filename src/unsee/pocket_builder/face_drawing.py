"""Draws a picture of a face from its traits and a scene."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageEnhance

from unsee.benchmarks.pocket.appearance import BACKGROUNDS, COLOURS, HAIR, HAIRS, SHIRTS, Colour
from unsee.pocket_builder.face_traits import IRISES, SIZE, Scene, Traits

CANVAS = 192  # pixels, drawn on and then scaled down


class _Canvas:
    """A drawing surface; the origin is its centre and the unit is the width of the picture."""

    def __init__(self, background: Colour) -> None:
        self.image = Image.new("RGB", (CANVAS, CANVAS), background)
        self.pen = ImageDraw.Draw(self.image)

    def at(self, x: float, y: float) -> tuple[float, float]:
        """A point in pixels."""
        return (0.5 + x) * CANVAS, (0.5 + y) * CANVAS

    def ellipse(self, x: float, y: float, rx: float, ry: float, fill: Colour) -> None:
        self.pen.ellipse([*self.at(x - rx, y - ry), *self.at(x + rx, y + ry)], fill=fill)

    def box(self, left: float, top: float, right: float, bottom: float, fill: Colour) -> None:
        self.pen.rectangle([*self.at(left, top), *self.at(right, bottom)], fill=fill)

    def shape(self, points: Sequence[tuple[float, float]], fill: Colour) -> None:
        self.pen.polygon([self.at(x, y) for x, y in points], fill=fill)

    def line(self, points: Sequence[tuple[float, float]], fill: Colour, width: int) -> None:
        self.pen.line([self.at(x, y) for x, y in points], fill=fill, width=width)


def _oval(
    width: float, height: float, power: float = 2.0, start: float = 0.0, end: float = 2 * np.pi
) -> list[tuple[float, float]]:
    """Points of an oval; a higher `power` makes its lower half, the jaw, squarer."""
    points = []
    for angle in np.linspace(start, end, 60):
        cos, sin = float(np.cos(angle)), float(np.sin(angle))
        exponent = 2 / power if sin > 0 else 1.0
        points.append(
            (
                width * float(np.sign(cos)) * abs(cos) ** exponent,
                height * float(np.sign(sin)) * abs(sin) ** exponent,
            )
        )
    return points


def _shade(colour: Colour, factor: float) -> Colour:
    red, green, blue = (int(c * factor) for c in colour)
    return red, green, blue


def draw(person: Traits, scene: Scene) -> Image.Image:
    """A picture of a person in a scene: RGB, `SIZE` by `SIZE` pixels."""
    background = COLOURS[BACKGROUNDS[scene.background]]
    canvas = _Canvas(background)
    half_width, half_height = person.face_width / 2, person.face_height / 2
    light, dark = (250, 218, 190), (95, 60, 40)
    red, green, blue = (int(a + (b - a) * person.skin) for a, b in zip(light, dark, strict=True))
    skin = (red, green, blue)
    shade, hair = _shade(skin, 0.75), HAIR[HAIRS[person.hair]]
    canvas.box(-0.10, 0.25, 0.10, 0.5, shade)
    canvas.ellipse(0, 0.56, 0.46, 0.25, COLOURS[SHIRTS[scene.shirt]])
    _hair_behind(canvas, person.style, half_width, half_height, hair)
    for side in (-1, 1):
        canvas.ellipse(side * half_width, 0, person.ear, 0.06, shade)
    canvas.shape(_oval(half_width, half_height, person.jaw), skin)
    _hair_in_front(canvas, person.style, half_width, half_height, hair)
    if person.freckles:
        for i in range(8):
            x = (i * 37 % 17 / 17 - 0.5) * half_width * 1.4
            canvas.ellipse(x, 0.05 + (i * 53 % 13 / 13) * 0.06, 0.008, 0.008, shade)
    _eyes(canvas, person, scene, hair)
    nose = person.eye_height + person.nose_length
    canvas.shape(
        [(0, person.eye_height + 0.02), (person.nose_width, nose), (-person.nose_width, nose)],
        shade,
    )
    _mouth_and_beard(canvas, person, scene, skin, hair)
    if person.mole:
        canvas.ellipse(*person.mole, 0.018, 0.018, (50, 25, 20))
    _accessories(canvas, person, scene)
    image = canvas.image.rotate(
        scene.turn,
        Image.Resampling.BICUBIC,
        translate=(round(scene.shift_x * CANVAS), round(scene.shift_y * CANVAS)),
        fillcolor=background,
    )
    side = round(CANVAS / scene.scale)
    edge = (CANVAS - side) // 2
    image = image.transform(
        (CANVAS, CANVAS),
        Image.Transform.EXTENT,
        (edge, edge, edge + side, edge + side),
        Image.Resampling.BILINEAR,
        fillcolor=background,
    )
    image = image.resize((SIZE, SIZE), Image.Resampling.LANCZOS)
    return ImageEnhance.Brightness(image).enhance(scene.light)


def _hair_behind(
    canvas: _Canvas, style: int, half_width: float, half_height: float, hair: Colour
) -> None:
    if style == 3:
        corners = [
            *canvas.at(-half_width - 0.07, -half_height - 0.05),
            *canvas.at(half_width + 0.07, 0.36),
        ]
        canvas.pen.rounded_rectangle(corners, radius=CANVAS * 0.15, fill=hair)
    elif style == 4:
        canvas.ellipse(
            0, -half_height / 2 - 0.015, half_width + 0.13, half_height / 2 + 0.135, hair
        )
    elif style == 5:
        canvas.ellipse(0, -half_height - 0.06, 0.10, 0.10, hair)


def _hair_in_front(
    canvas: _Canvas, style: int, half_width: float, half_height: float, hair: Colour
) -> None:
    top = _oval(half_width * 1.06, half_height * 1.10, start=np.pi)
    hairline = {1: 0.45, 3: 0.45, 4: 0.45, 5: 0.45, 6: 0.25}
    if style in hairline:
        y = -half_height * hairline[style]
        canvas.shape([*top, (half_width * 0.95, y), (-half_width * 0.95, y)], hair)
    elif style == 2:
        parting = [
            (half_width * 0.95, -half_height * 0.2),
            (-half_width * 0.3, -half_height * 0.7),
            (-half_width * 0.95, -half_height * 0.1),
        ]
        canvas.shape([*top, *parting], hair)


def _eyes(canvas: _Canvas, person: Traits, scene: Scene, hair: Colour) -> None:
    size, y = person.eye_size, person.eye_height
    for side in (-1, 1):
        x = side * person.eye_gap
        canvas.ellipse(x, y, size * 1.3, size, (250, 250, 250))
        pupil = x + scene.gaze * size * 0.6
        canvas.ellipse(pupil, y, size * 0.75, size * 0.75, IRISES[person.iris])
        canvas.ellipse(pupil, y, size * 0.3, size * 0.3, (10, 10, 10))
        tilt, brow = side * person.brow_tilt * 0.05, y - size - 0.03
        canvas.line(
            [(x - 0.05, brow + tilt), (x + 0.05, brow - tilt)],
            _shade(hair, 0.7),
            max(1, int(person.brow_width * CANVAS)),
        )


def _mouth_and_beard(
    canvas: _Canvas, person: Traits, scene: Scene, skin: Colour, hair: Colour
) -> None:
    half_width, half_height = person.face_width / 2, person.face_height / 2
    width = person.mouth_width
    y = min(person.eye_height + person.nose_length + 0.08, half_height * 0.8)
    if person.beard == 1:
        canvas.box(-width * 0.8, y - 0.055, width * 0.8, y - 0.02, hair)
    elif person.beard == 2:
        jaw = _oval(half_width, half_height, person.jaw, start=0.15 * np.pi, end=0.85 * np.pi)
        canvas.shape(jaw, hair)
        canvas.ellipse(0, y + 0.005, width * 0.9, 0.045, skin)
    elif person.beard == 3:
        canvas.ellipse(0, (y + half_height) / 2 + 0.04, 0.05, (half_height - y) / 2 + 0.01, hair)
    lips = [(u * width, y + scene.smile * (0.5 - u * u)) for u in np.linspace(-1, 1, 15)]
    canvas.line(lips, (165, 60, 60), max(2, int(person.lip * CANVAS * 1.3)))


def _accessories(canvas: _Canvas, person: Traits, scene: Scene) -> None:
    half_width, half_height = person.face_width / 2, person.face_height / 2
    frame = (20, 20, 25)
    if scene.glasses:
        y = person.eye_height
        for side in (-1, 1):
            x = side * person.eye_gap
            corners = [*canvas.at(x - 0.085, y - 0.075), *canvas.at(x + 0.085, y + 0.075)]
            canvas.pen.ellipse(corners, outline=frame, width=4)
        canvas.line([(-person.eye_gap + 0.085, y), (person.eye_gap - 0.085, y)], frame, 4)
    if scene.hat:
        felt, brim = (60, 60, 110), -half_height * 0.72
        canvas.box(-half_width - 0.08, brim, half_width + 0.08, brim + 0.05, felt)
        crown = [
            *canvas.at(-half_width * 1.02, -half_height * 1.35),
            *canvas.at(half_width * 1.02, -half_height * 0.2),
        ]
        canvas.pen.pieslice(crown, 180, 360, fill=felt)
