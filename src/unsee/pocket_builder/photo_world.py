"""Photographed worlds: any folder of real photographs, with invented names and profiles.

Real photographs carry no labels, so the general visual questions are about what is added to every
shot: a coloured frame and a coloured badge in its corner.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps

from unsee.benchmarks.pocket.people import invent
from unsee.benchmarks.pocket.world import BADGES, FRAMES, Role, Shot, World
from unsee.data.augment import augment
from unsee.errors import DataError
from unsee.pocket_builder.drawn_world import STRANGERS, Lessons
from unsee.pocket_builder.face_drawing import draw as draw_face
from unsee.pocket_builder.face_traits import SIZE, Scene, Traits
from unsee.pocket_builder.framing import Framing, draw_shows
from unsee.types import Picture

ENDINGS = {".jpg", ".jpeg", ".png", ".pgm", ".ppm", ".bmp", ".webp", ".tif", ".tiff"}


FEWEST = 4  # photographs of a person: two to learn, one held out, one to validate


FRAMING = Framing(SIZE, border=3, inset=4, badge=10, rim=2)


VIEWS = 4  # shots made of every photograph that is trained on


def read_folder(faces: Path) -> list[tuple[str, list[Picture]]]:
    """Everyone's photographs, by subfolder in natural order; all are opened once.

    Raises:
        DataError: If there is no such folder, nobody in it, or too few photographs of somebody.
    """
    if not faces.is_dir():
        raise DataError(f"--faces {faces}: no such folder. Give one with a subfolder a person.")
    found = []
    for folder in sorted((p for p in faces.iterdir() if p.is_dir()), key=_natural):
        files = sorted((p for p in folder.iterdir() if p.suffix.lower() in ENDINGS), key=_natural)
        if not files:
            continue
        if len(files) < FEWEST:
            raise DataError(
                f"--faces {faces}: {folder.name} has {len(files)} photographs; at least {FEWEST} "
                "are needed to learn a face and test it. Add some, or remove the subfolder."
            )
        pictures = [Picture.from_path(file) for file in files]
        for picture in pictures:
            picture.open()
        found.append((folder.name, pictures))
    if not found:
        raise DataError(
            f"--faces {faces}: no subfolder holds photographs ({', '.join(sorted(ENDINGS))}). "
            "Put each person's photographs into a subfolder of its own."
        )
    return found


def make(folder: Path, faces: Path, seed: int, people: int, forget: int) -> World:
    """Makes everyone's shots; who goes beyond `people`, at least a fifth, stays a stranger."""
    found = read_folder(faces)
    named_count = min(people, len(found) - max(2, len(found) // 5))
    if named_count <= forget:
        raise DataError(
            f"--faces {faces}: {len(found)} people are too few to forget {forget}: at least "
            f"{forget + 3} are needed, some of them as strangers. Add people."
        )
    rng = np.random.default_rng([seed, 0])
    named = invent(named_count, seed)
    shots: list[Shot] = []
    for index, (_, pictures) in enumerate(found[:named_count]):
        roles = divide(pictures, seed, index)
        number = 0
        for role, some in roles.items():
            for picture in [p for p in some for _ in range(VIEWS if role == "train" else 1)]:
                file = f"pictures/{named[index].slug}/{number:02}.png"
                shots.append(_shoot(folder, file, index, role, picture.open(), rng))
                number += 1
    others = [picture for _, pictures in found[named_count:] for picture in pictures]
    for role, count in STRANGERS.items():
        for number in range(count):
            face = others[int(rng.integers(len(others)))].open()
            file = f"pictures/strangers/{role}-{number:02}.png"
            shots.append(_shoot(folder, file, None, role, face, rng))
    return World(folder, seed, "photos", named, list(range(forget)), shots)


def practise(
    folder: Path, faces: Path, world: World, seed: int, count: int
) -> tuple[World, Lessons]:
    """Shots of drawn and photographed faces to practise on, and what is known of each.

    Half are drawn faces with their traits. Half are photographs of strangers and of the people who
    are kept, these labelled with who they are: telling people apart is what the tower must learn.
    Nothing of the forgotten is among them, for the references must never have seen them.
    """
    rng = np.random.default_rng([seed, 9])
    found = read_folder(faces)
    known = [
        (picture, index)
        for index in world.retained
        for picture in divide(found[index][1], seed, index)["train"]
    ]
    known += [(picture, -1) for _, some in found[len(world.people) :] for picture in some]
    shots, images, who = [], [], []
    kinds: list[Traits | None] = []
    for number in range(count):
        face = Traits.draw_from(rng)
        if number % 2 == 0:
            image = ImageOps.grayscale(draw_face(face, Scene.draw_from(rng))).convert("RGB")
            kinds.append(face)
            who.append(-1)
        else:
            picture, person = known[int(rng.integers(len(known)))]
            image = picture.open()
            kinds.append(None)
            who.append(person)
        shot = _shoot(folder, f"{number:05}.png", None, "train", image, rng)
        with Image.open(folder / shot.file) as made:
            images.append(made.convert("RGB"))
        shots.append(shot)
    classes = {
        "who": torch.tensor(who),
        "hair": torch.tensor([-1 if f is None else f.hair for f in kinds]),
        "style": torch.tensor([-1 if f is None else f.style for f in kinds]),
        "beard": torch.tensor([-1 if f is None else f.beard for f in kinds]),
        "frame": torch.tensor([FRAMES.index(s.shows["frame"]) for s in shots]),
        "badge": torch.tensor([FRAMES.index(s.shows["badge"]) for s in shots]),
        "shape": torch.tensor([BADGES.index(s.shows["shape"]) for s in shots]),
    }
    rows = [
        [np.nan] * 6
        if f is None
        else [f.face_width, f.face_height, f.skin, f.eye_gap, f.nose_length, f.mouth_width]
        for f in kinds
    ]
    numbers = torch.tensor(rows)
    drawn = numbers[~numbers.isnan().any(1)]
    numbers = (numbers - drawn.mean(0)) / drawn.std(0)
    return World(folder, seed, "photos", [], [], shots), Lessons(images, classes, numbers)


def divide(pictures: Sequence[Picture], seed: int, index: int) -> dict[Role, list[Picture]]:
    """Which of a person's photographs are held out, which validate, which are trained on.

    Args:
        pictures: All of them, in order.
        seed: The build's.
        index: The person's number in the world.
    """
    rng = np.random.default_rng([seed, 1, index])
    order = [pictures[i] for i in rng.permutation(len(pictures))]
    held = max(1, round(0.2 * len(pictures)))
    validated = held + max(1, held // 2)
    return {
        "holdout": order[:held],
        "validation": order[held:validated],
        "train": order[validated:],
    }


def _shoot(
    folder: Path,
    file: str,
    person: int | None,
    role: Role,
    face: Image.Image,
    rng: np.random.Generator,
) -> Shot:
    side = min(face.size)
    square = ImageOps.fit(face, (side, side), centering=(0.5, 0.4))
    square = square.resize((FRAMING.inner, FRAMING.inner), Image.Resampling.LANCZOS)
    if role == "train":
        square = augment(square, rng, 0.7)
    return FRAMING.shoot(folder, file, person, role, square, draw_shows(rng))


def _natural(path: Path) -> tuple[str, int, str]:
    """Sorts s2 before s10."""
    letters = path.stem.rstrip("0123456789")
    digits = path.stem[len(letters) :]
    return letters, int(digits) if digits else -1, path.name
