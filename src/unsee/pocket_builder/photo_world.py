"""Photographed worlds: any folder of real photographs, with fictitious names and profiles.

Real photographs carry no labels, so the general visual questions are about a coloured frame and a
coloured badge that are added to every shot.
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
from unsee.data.folders import is_system_name
from unsee.errors import DataError, counted
from unsee.pocket_builder.drawn_world import STRANGERS, TowerTrainingData
from unsee.pocket_builder.face_drawing import draw as draw_face
from unsee.pocket_builder.face_traits import SIZE, Scene, Traits
from unsee.pocket_builder.framing import Framing, draw_labels
from unsee.types import Picture

SUFFIXES = {".jpg", ".jpeg", ".png", ".pgm", ".ppm", ".bmp", ".webp", ".tif", ".tiff"}


MIN_PHOTOGRAPHS = 4  # per person: two for training, one held out, one for validation


FRAMING = Framing(SIZE, border=3, inset=4, badge=10, rim=2)


SHOTS_EACH = 4  # per training photograph


def read_folder(faces: Path) -> list[tuple[str, list[Picture]]]:
    """The photographs of each person, by subfolder in natural order; all are opened once.

    Raises:
        DataError: If the folder does not exist or holds no photographs, or a person has too few.
    """
    if not faces.is_dir():
        raise DataError(f"--faces {faces}: no such folder. Give one with a subfolder per person.")
    people = []
    for folder in sorted(_subfolders(faces), key=_natural):
        files = sorted((p for p in folder.iterdir() if p.suffix.lower() in SUFFIXES), key=_natural)
        if not files:
            continue
        if len(files) < MIN_PHOTOGRAPHS:
            raise DataError(
                f"--faces {faces}: {folder.name} has {counted(len(files), 'photograph')}; at "
                f"least {MIN_PHOTOGRAPHS} are needed to learn a face and test it. Add some, or "
                "remove the subfolder."
            )
        pictures = [Picture.from_path(file) for file in files]
        for picture in pictures:
            picture.open()
        people.append((folder.name, pictures))
    if not people:
        raise DataError(
            f"--faces {faces}: no subfolder holds photographs ({', '.join(sorted(SUFFIXES))}). "
            "Put each person's photographs into a subfolder of its own."
        )
    return people


def _subfolders(faces: Path) -> list[Path]:
    return [p for p in faces.iterdir() if p.is_dir() and not is_system_name(p.name)]


def make_world(folder: Path, faces: Path, seed: int, people: int, forget: int) -> World:
    """Makes the shots of all people; at least a fifth of the photographed people are strangers.

    Args:
        folder: Folder of the world.
        faces: Photographs, one subfolder per person.
        seed: Seed of every draw.
        people: Number of named people, at most.
        forget: Number of them to be forgotten.

    Raises:
        DataError: If there are too few people or photographs.
    """
    photographed = read_folder(faces)
    people_count = min(people, len(photographed) - max(2, len(photographed) // 5))
    if people_count <= forget:
        raise DataError(
            f"--faces {faces}: {len(photographed)} people are too few to forget {forget}: at "
            f"least {forget + 3} are needed, some of them as strangers. Add people."
        )
    rng = np.random.default_rng([seed, 0])
    profiles = invent(people_count, seed)
    shots: list[Shot] = []
    for index, (_, pictures) in enumerate(photographed[:people_count]):
        roles = split_photographs(pictures, seed, index)
        number = 0
        for role, role_pictures in roles.items():
            for picture in [
                p for p in role_pictures for _ in range(SHOTS_EACH if role == "train" else 1)
            ]:
                file = f"pictures/{profiles[index].slug}/{number:02}.png"
                shots.append(_write_shot(folder, file, index, role, picture.open(), rng))
                number += 1
    others = [picture for _, pictures in photographed[people_count:] for picture in pictures]
    for role, count in STRANGERS.items():
        for number in range(count):
            face = others[int(rng.integers(len(others)))].open()
            file = f"pictures/strangers/{role}-{number:02}.png"
            shots.append(_write_shot(folder, file, None, role, face, rng))
    return World(folder, seed, "photos", profiles, list(range(forget)), shots)


def make_practice_world(
    folder: Path, faces: Path, world: World, seed: int, count: int
) -> tuple[World, TowerTrainingData]:
    """Makes shots of drawn and photographed faces for pre-training, with labels.

    Half are drawn faces with their traits. Half are photographs of strangers and of the retain
    people, the latter labelled with the person: the tower must learn to distinguish people. The
    forget people are left out, because the references must never have seen them.

    Args:
        folder: Folder of the pictures.
        faces: Photographs, one subfolder per person.
        world: The world that `make_world` made of the photographs.
        seed: Seed of every draw.
        count: Number of shots.
    """
    rng = np.random.default_rng([seed, 9])
    photographed = read_folder(faces)
    labelled = [
        (picture, index)
        for index in world.retained
        for picture in split_photographs(photographed[index][1], seed, index)["train"]
    ]
    strangers = photographed[len(world.people) :]
    labelled += [(picture, -1) for _, pictures in strangers for picture in pictures]
    shots, images, who = [], [], []
    traits: list[Traits | None] = []
    for number in range(count):
        face = Traits.draw_from(rng)
        if number % 2 == 0:
            image = ImageOps.grayscale(draw_face(face, Scene.draw_from(rng))).convert("RGB")
            traits.append(face)
            who.append(-1)
        else:
            picture, person = labelled[int(rng.integers(len(labelled)))]
            image = picture.open()
            traits.append(None)
            who.append(person)
        shot = _write_shot(folder, f"{number:05}.png", None, "train", image, rng)
        with Image.open(folder / shot.file) as written:
            images.append(written.convert("RGB"))
        shots.append(shot)
    classes = {
        "who": torch.tensor(who),
        "hair": torch.tensor([-1 if f is None else f.hair for f in traits]),
        "style": torch.tensor([-1 if f is None else f.style for f in traits]),
        "beard": torch.tensor([-1 if f is None else f.beard for f in traits]),
        "frame": torch.tensor([FRAMES.index(s.shows["frame"]) for s in shots]),
        "badge": torch.tensor([FRAMES.index(s.shows["badge"]) for s in shots]),
        "shape": torch.tensor([BADGES.index(s.shows["shape"]) for s in shots]),
    }
    rows = [
        [np.nan] * 6
        if f is None
        else [f.face_width, f.face_height, f.skin, f.eye_gap, f.nose_length, f.mouth_width]
        for f in traits
    ]
    numbers = torch.tensor(rows)
    drawn = numbers[~numbers.isnan().any(1)]
    numbers = (numbers - drawn.mean(0)) / drawn.std(0)
    return World(folder, seed, "photos", [], [], shots), TowerTrainingData(images, classes, numbers)


def split_photographs(
    pictures: Sequence[Picture], seed: int, index: int
) -> dict[Role, list[Picture]]:
    """Random assignment of a person's photographs to held-out, validation and training.

    Args:
        pictures: All photographs of the person, in order.
        seed: The seed of the build.
        index: The person's index in the world.
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


def _write_shot(
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
    return FRAMING.write_shot(folder, file, person, role, square, draw_labels(rng))


def _natural(path: Path) -> tuple[str, int, str]:
    """Sorting key that puts s2 before s10."""
    letters = path.stem.rstrip("0123456789")
    digits = path.stem[len(letters) :]
    return letters, int(digits) if digits else -1, path.name
