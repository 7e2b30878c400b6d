"""Drawn worlds: fictitious people with drawn faces, and drawn strangers for pre-training."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from unsee.benchmarks.pocket.appearance import BACKGROUNDS, HAIRS, SHIRTS
from unsee.benchmarks.pocket.people import invent
from unsee.benchmarks.pocket.world import Role, Shot, World
from unsee.pocket_builder.face_drawing import draw as draw_face
from unsee.pocket_builder.face_traits import BALD, Scene, Traits, distinct_people

SHOTS: dict[Role, int] = {"train": 12, "holdout": 3, "validation": 2}


STRANGERS: dict[Role, int] = {"train": 64, "holdout": 48, "validation": 32}


@dataclass(frozen=True)
class TowerTrainingData:
    """Pictures and labels for pre-training the vision tower.

    Attributes:
        images: Pictures of faces.
        classes: Class labels [images] by name of the trait; -1 where unknown.
        numbers: Standardised traits [images, numbers]; NaN where unknown.
    """

    images: Sequence[Image.Image]
    classes: dict[str, Tensor]
    numbers: Tensor


def make_world(folder: Path, seed: int, people: int, forget: int) -> World:
    """Draws the pictures of all people and strangers into `folder`.

    Args:
        folder: Folder of the world.
        seed: Seed of every draw.
        people: Number of named people.
        forget: Number of them to be forgotten.
    """
    rng = np.random.default_rng([seed, 0])
    profiles = invent(people, seed)
    shots: list[Shot] = []
    for index, (person, face) in enumerate(
        zip(profiles, distinct_people(people, rng), strict=True)
    ):
        for role, count in SHOTS.items():
            for _ in range(count):
                number = sum(shot.person == index for shot in shots)
                file = f"pictures/{person.slug}/{number:02}.png"
                shots.append(_write_shot(folder, file, index, role, face, Scene.draw_from(rng)))
    for role, count in STRANGERS.items():
        for number in range(count):
            file = f"pictures/strangers/{role}-{number:02}.png"
            face, scene = Traits.draw_from(rng), Scene.draw_from(rng)
            shots.append(_write_shot(folder, file, None, role, face, scene))
    return World(folder, seed, "drawn", profiles, list(range(forget)), shots)


def make_practice_world(folder: Path, seed: int, count: int) -> tuple[World, TowerTrainingData]:
    """Draws strangers for pre-training, with all traits of their faces as labels.

    Args:
        folder: Folder of the pictures.
        seed: Seed of every draw.
        count: Number of strangers.
    """
    rng = np.random.default_rng([seed, 9])
    faces = [Traits.draw_from(rng) for _ in range(count)]
    scenes = [Scene.draw_from(rng) for _ in range(count)]
    shots = [
        _write_shot(folder, f"{number:05}.png", None, "train", face, scene)
        for number, (face, scene) in enumerate(zip(faces, scenes, strict=True))
    ]
    images = []
    for shot in shots:
        with Image.open(folder / shot.file) as image:
            images.append(image.convert("RGB"))
    labels = {
        "hair": [f.hair for f in faces],
        "style": [f.style for f in faces],
        "beard": [f.beard for f in faces],
        "iris": [f.iris for f in faces],
        "mole": [int(f.mole is not None) for f in faces],
        "freckles": [int(f.freckles) for f in faces],
        "background": [s.background for s in scenes],
        "shirt": [s.shirt for s in scenes],
        "glasses": [int(s.glasses) for s in scenes],
        "hat": [int(s.hat) for s in scenes],
    }
    numbers = torch.tensor([_numbers(face) for face in faces])
    numbers = (numbers - numbers.mean(0)) / numbers.std(0)
    world = World(folder, seed, "drawn", [], [], shots)
    classes = {name: torch.tensor(values) for name, values in labels.items()}
    return world, TowerTrainingData(images, classes, numbers)


def _numbers(face: Traits) -> list[float]:
    """The continuous traits of a face."""
    return [
        face.face_width,
        face.face_height,
        face.jaw,
        face.skin,
        face.eye_gap,
        face.eye_height,
        face.eye_size,
        face.brow_tilt,
        face.brow_width,
        face.nose_length,
        face.nose_width,
        face.mouth_width,
        face.lip,
        face.ear,
    ]


def _write_shot(
    folder: Path, file: str, person: int | None, role: Role, face: Traits, scene: Scene
) -> Shot:
    path = folder / file
    path.parent.mkdir(parents=True, exist_ok=True)
    draw_face(face, scene).save(path)
    shows = {
        "background": BACKGROUNDS[scene.background],
        "shirt": SHIRTS[scene.shirt],
        "glasses": "glasses" if scene.glasses else "no glasses",
        "hat": "a hat" if scene.hat else "no hat",
    }
    if face.style != BALD:
        shows["hair"] = HAIRS[face.hair]
    return Shot(file, person, role, shows)
