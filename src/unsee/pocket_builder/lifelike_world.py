"""Lifelike worlds: photographs of people with varied crop, light, background, frame and badge.

Held-out shots vary as much as training shots, so that no shot has a near copy: comparing pixels
does not identify a person, recognising the face does.
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
from unsee.pocket_builder.framing import Framing, draw_labels
from unsee.pocket_builder.photo_world import read_folder, split_photographs
from unsee.types import Picture

SIZE = 112  # pixels, of the finished picture


FRAMING = Framing(SIZE, border=7, inset=8, badge=24, rim=5)


REPLACED = 0.3  # fraction of the shots whose background is replaced


def make_world(
    folder: Path,
    faces: Path,
    seed: int,
    people: int,
    forget: int,
    shots_each: int,
    facts: int = len(FACTS),
) -> World:
    """Makes the shots of all people; photographed people beyond `people` are strangers.

    Args:
        folder: Folder of the world.
        faces: Photographs, one subfolder per person.
        seed: Seed of every draw.
        people: Number of named people.
        forget: Number of them to be forgotten.
        shots_each: Shots per training photograph.
        facts: Number of facts per person.

    Raises:
        DataError: If there are too few people or photographs.
    """
    photographed = read_folder(faces)
    if len(photographed) < people + 2:
        raise DataError(
            f"--faces {faces}: {len(photographed)} people are too few for --people {people} and at "
            "least 2 strangers. Add people, or lower --people."
        )
    profiles = invent(people, seed, facts)
    shots: list[Shot] = []
    for index, (_, pictures) in enumerate(photographed[:people]):
        rng = np.random.default_rng([seed, 60, index])
        number = 0
        for role, role_pictures in split_photographs(pictures, seed, index).items():
            for picture in [
                p for p in role_pictures for _ in range(shots_each if role == "train" else 1)
            ]:
                file = f"pictures/{profiles[index].slug}/{number:03}.png"
                shots.append(_write_shot(folder, file, index, role, picture.open(), rng))
                number += 1
    # Strangers are held out by person, so that general questions are about new faces.
    for role, count in STRANGERS.items():
        rng = np.random.default_rng([seed, 61, len(role)])
        others = _strangers(photographed[people:], role)
        for number in range(count):
            picture = others[int(rng.integers(len(others)))]
            file = f"pictures/strangers/{role}-{number:02}.png"
            shots.append(_write_shot(folder, file, None, role, picture.open(), rng))
    world = World(folder, seed, "photos", profiles, list(range(forget)), shots)
    world.write()
    return world


def make_practice_world(folder: Path, faces: Path, seed: int, people: int, count: int) -> World:
    """Makes shots of strangers, on which the general questions are trained.

    Args:
        folder: Folder of the world.
        faces: Photographs, one subfolder per person.
        seed: Seed of every draw.
        people: Number of named people, who are left out.
        count: Number of shots.
    """
    rng = np.random.default_rng([seed, 69])
    others = _strangers(read_folder(faces)[people:], "train")
    shots = [
        _write_shot(
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


def _strangers(photographed: Sequence[tuple[str, list[Picture]]], role: Role) -> list[Picture]:
    """Photographs of the strangers of a role: of every second one for training."""
    chosen = photographed[::2] if role == "train" else photographed[1::2]
    return [picture for _, pictures in chosen for picture in pictures]


def view(face: Image.Image, side: int, rng: np.random.Generator) -> Image.Image:
    """A random variation of a photograph: crop, mirroring, rotation, colours, light, background.

    Args:
        face: RGB, with the face near the centre.
        side: Side of the square that is returned, in pixels.
        rng: Source of every draw.
    """
    square = ImageOps.fit(face, (2 * side, 2 * side), centering=(0.5, 0.4))
    if rng.random() < REPLACED:
        square = Image.composite(square, _background(2 * side, rng), _oval(2 * side))
    if rng.random() < 0.5:
        square = ImageOps.mirror(square)
    angle, left, top = rng.uniform(-1, 1, 3)
    crop_ratio = rng.uniform(0.75, 0.98)
    mean = tuple(int(c) for c in np.asarray(square).reshape(-1, 3).mean(0))
    square = square.rotate(10 * angle, Image.Resampling.BILINEAR, fillcolor=mean)
    width = 2 * side * crop_ratio
    margin = 2 * side - width
    x, y = margin * (0.5 + 0.5 * left), margin * (0.5 + 0.5 * top)
    box = (x, y, x + width, y + width)
    crop = square.resize((side, side), Image.Resampling.LANCZOS, box)
    for kind in (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color):
        crop = kind(crop).enhance(float(rng.uniform(0.7, 1.3)))
    # Light from one side.
    gradient = np.linspace(-1, 1, side) * rng.uniform(-35, 35)
    lit = np.asarray(crop, np.float32) + gradient[None, :, None]
    lit += rng.normal(0, 4, lit.shape)
    return Image.fromarray(lit.clip(0, 255).astype(np.uint8))


def _oval(side: int) -> Image.Image:
    """A soft oval mask around the face."""
    mask = Image.new("L", (side, side), 0)
    ImageDraw.Draw(mask).ellipse([0.16 * side, 0.06 * side, 0.84 * side, 1.1 * side], fill=255)
    return mask.filter(ImageFilter.GaussianBlur(side / 24))


def _background(side: int, rng: np.random.Generator) -> Image.Image:
    """Blurred blotches of random colours."""
    cells = int(rng.integers(1, 6))
    blotches = rng.integers(0, 256, (cells, cells, 3), dtype=np.uint8)
    image = Image.fromarray(blotches).resize((side, side), Image.Resampling.BICUBIC)
    return ImageChops.offset(image, int(rng.integers(side)), 0)


def _write_shot(
    folder: Path,
    file: str,
    person: int | None,
    role: Role,
    face: Image.Image,
    rng: np.random.Generator,
) -> Shot:
    shows = draw_labels(rng)
    return FRAMING.write_shot(folder, file, person, role, view(face, FRAMING.inner, rng), shows)


def nearest_neighbour(world: World, features: dict[str, Tensor]) -> dict[str, float]:
    """Fraction of held-out shots whose nearest training shot shows the same person.

    Args:
        world: The people and their shots.
        features: The tower's tokens [tokens, dim] of every shot, by file.

    Returns:
        The fraction by "pixels" (Euclidean distance of pictures) and by "tower" (cosine similarity
        of mean tokens), and "chance"; 0..1.
    """
    everyone = range(len(world.people))
    train, holdout = world.shots_of(everyone, "train"), world.shots_of(everyone, "holdout")

    def pixels(shots: list[Shot]) -> NDArray[np.float32]:
        return np.stack(
            [np.asarray(world.picture(s).open(), np.float32).reshape(-1) for s in shots]
        )

    keys, queries = torch.from_numpy(pixels(train)), torch.from_numpy(pixels(holdout))
    labels = torch.tensor([s.person for s in train])
    true = torch.tensor([s.person for s in holdout])
    nearest = labels[torch.cdist(queries, keys).argmin(1)]
    fractions = {"pixels": float((nearest == true).float().mean())}
    keys, queries = (
        torch.stack([features[s.file].mean(0) for s in shots]) for shots in (train, holdout)
    )
    mean = keys.mean(0)
    keys, queries = (torch.nn.functional.normalize(x - mean, dim=1) for x in (keys, queries))
    nearest = labels[(queries @ keys.T).argmax(1)]
    fractions["tower"] = float((nearest == true).float().mean())
    return {k: round(v, 3) for k, v in (fractions | {"chance": 1 / len(world.people)}).items()}
