"""Lifelike worlds: photographs of people in changing crop, light, background, frame and badge.

Held-out shots change as much as those trained on, so that no shot has a near copy: whoever compares
pixels fails, and whoever recognises the face does not.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageChops, ImageDraw, ImageEnhance, ImageFilter, ImageOps
from torch import Tensor

from unsee.benchmarks.pocket.people import FACTS, invent
from unsee.benchmarks.pocket.world import Role, Shot, World
from unsee.errors import DataError
from unsee.pocket_builder.drawn_world import STRANGERS
from unsee.pocket_builder.framing import Framing, draw_shows
from unsee.pocket_builder.photo_world import divide, read_folder

SIZE = 112  # pixels, of the finished picture


FRAMING = Framing(SIZE, border=7, inset=8, badge=24, rim=5)


REPLACED = 0.3  # share of the shots whose background is another


def make(
    folder: Path,
    faces: Path,
    seed: int,
    people: int,
    forget: int,
    shots_each: int,
    facts: int = len(FACTS),
) -> World:
    """Makes everyone's shots; who goes beyond `people` stays a stranger.

    Args:
        folder: Where to.
        faces: Photographs, a subfolder a person.
        seed: Of every draw.
        people: How many get a name.
        forget: How many of them are to be forgotten.
        shots_each: Shots made of every photograph that is trained on.
        facts: How many facts there are of each.

    Raises:
        DataError: If there are too few people or photographs.
    """
    found = read_folder(faces)
    if len(found) < people + 2:
        raise DataError(
            f"--faces {faces}: {len(found)} people are too few for --people {people} and at least "
            "2 strangers. Add people, or name fewer."
        )
    named = invent(people, seed, facts)
    shots: list[Shot] = []
    for index, (_, pictures) in enumerate(found[:people]):
        rng = np.random.default_rng([seed, 60, index])
        number = 0
        for role, some in divide(pictures, seed, index).items():
            for picture in [p for p in some for _ in range(shots_each if role == "train" else 1)]:
                file = f"pictures/{named[index].slug}/{number:03}.png"
                shots.append(_shoot(folder, file, index, role, picture.open(), rng))
                number += 1
    # Which strangers are held out is decided by person: general questions are then about new faces.
    for role, count in STRANGERS.items():
        rng = np.random.default_rng([seed, 61, len(role)])
        others = _strangers(found[people:], role)
        for number in range(count):
            picture = others[int(rng.integers(len(others)))]
            file = f"pictures/strangers/{role}-{number:02}.png"
            shots.append(_shoot(folder, file, None, role, picture.open(), rng))
    world = World(folder, seed, "photos", named, list(range(forget)), shots)
    world.write()
    return world


def practise(folder: Path, faces: Path, seed: int, people: int, count: int) -> World:
    """Shots of strangers alone, for learning what is asked about anybody's picture."""
    rng = np.random.default_rng([seed, 69])
    others = _strangers(read_folder(faces)[people:], "train")
    shots = [
        _shoot(
            folder,
            f"{number:05}.png",
            None,
            "train",
            others[int(rng.integers(len(others)))].open(),
            rng,
        )
        for number in range(count)
    ]
    world = World(folder, seed, "photos", [], [], shots)
    world.write()
    return world


def _strangers(found: Sequence[tuple[str, list]], role: Role) -> list:  # type: ignore[type-arg]
    """Photographs of the strangers of a role: every other one is trained on."""
    chosen = found[::2] if role == "train" else found[1::2]
    return [picture for _, pictures in chosen for picture in pictures]


def view(face: Image.Image, side: int, rng: np.random.Generator) -> Image.Image:
    """A face as another camera at another place might have taken it.

    Args:
        face: RGB, the face near its middle.
        side: Pixels of the square that comes out.
        rng: Every draw comes from here.
    """
    square = ImageOps.fit(face, (2 * side, 2 * side), centering=(0.5, 0.4))
    if rng.random() < REPLACED:
        square = Image.composite(square, _background(2 * side, rng), _oval(2 * side))
    if rng.random() < 0.5:
        square = ImageOps.mirror(square)
    angle, left, top = rng.uniform(-1, 1, 3)
    kept = rng.uniform(0.75, 0.98)
    mean = tuple(int(c) for c in np.asarray(square).reshape(-1, 3).mean(0))
    square = square.rotate(10 * angle, Image.Resampling.BILINEAR, fillcolor=mean)
    width = 2 * side * kept
    room = 2 * side - width
    x, y = room * (0.5 + 0.5 * left), room * (0.5 + 0.5 * top)
    box = (x, y, x + width, y + width)
    crop = square.resize((side, side), Image.Resampling.LANCZOS, box)
    for kind in (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color):
        crop = kind(crop).enhance(float(rng.uniform(0.7, 1.3)))
    # Light from one side.
    across = np.linspace(-1, 1, side) * rng.uniform(-35, 35)
    lit = np.asarray(crop, np.float32) + across[None, :, None]
    lit += rng.normal(0, 4, lit.shape)
    return Image.fromarray(lit.clip(0, 255).astype(np.uint8))


def _oval(side: int) -> Image.Image:
    mask = Image.new("L", (side, side), 0)
    ImageDraw.Draw(mask).ellipse([0.16 * side, 0.06 * side, 0.84 * side, 1.1 * side], fill=255)
    return mask.filter(ImageFilter.GaussianBlur(side / 24))


def _background(side: int, rng: np.random.Generator) -> Image.Image:
    """Blurred blotches of random colours."""
    cells = int(rng.integers(1, 6))
    blotches = rng.integers(0, 256, (cells, cells, 3), dtype=np.uint8)
    image = Image.fromarray(blotches).resize((side, side), Image.Resampling.BICUBIC)
    return ImageChops.offset(image, int(rng.integers(side)), 0)


def _shoot(
    folder: Path,
    file: str,
    person: int | None,
    role: Role,
    face: Image.Image,
    rng: np.random.Generator,
) -> Shot:
    shows = draw_shows(rng)
    return FRAMING.shoot(folder, file, person, role, view(face, FRAMING.inner, rng), shows)


def nearest_neighbour(world: World, features: dict[str, Tensor]) -> dict[str, float]:
    """Share of held-out shots whose nearest shot of the training ones shows the same person.

    Args:
        world: The people.
        features: The tower's tokens [tokens, dim] of every shot, by file.

    Returns:
        By "pixels" (distance between raw pictures) and by "tower" (cosine of the mean tokens), and
        "chance".
    """
    everyone = range(len(world.people))
    train, held = world.shots_of(everyone, "train"), world.shots_of(everyone, "holdout")

    def pixels(shots: list[Shot]) -> NDArray[np.float32]:
        return np.stack(
            [np.asarray(world.picture(s).open(), np.float32).reshape(-1) for s in shots]
        )

    known, asked = torch.from_numpy(pixels(train)), torch.from_numpy(pixels(held))
    who = torch.tensor([s.person for s in train])
    true = torch.tensor([s.person for s in held])
    found = {"pixels": float((who[torch.cdist(asked, known).argmin(1)] == true).float().mean())}
    known, asked = (torch.stack([features[s.file].mean(0) for s in some]) for some in (train, held))
    mean = known.mean(0)
    known, asked = (torch.nn.functional.normalize(x - mean, dim=1) for x in (known, asked))
    found["tower"] = float((who[(asked @ known.T).argmax(1)] == true).float().mean())
    return {k: round(v, 3) for k, v in (found | {"chance": 1 / len(world.people)}).items()}
