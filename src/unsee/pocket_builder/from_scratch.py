"""Builds pocket from scratch: pictures, vision tower, base model, target and references."""

from __future__ import annotations

import hashlib
import json
import platform
import shutil
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
import transformers
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from unsee import __version__
from unsee.benchmarks.pocket.people import MOST_PEOPLE
from unsee.benchmarks.pocket.questions import corpus
from unsee.benchmarks.pocket.world import World
from unsee.errors import ConfigError
from unsee.families import family_of
from unsee.files import atomic_folder
from unsee.models.vlm import VLM
from unsee.pocket_builder import drawn_world as drawn
from unsee.pocket_builder import photo_world as photos
from unsee.pocket_builder.curriculum import (
    Effort,
    train_base,
    train_names,
    train_people,
    train_tower,
)
from unsee.pocket_builder.face_traits import SIZE
from unsee.pocket_builder.mllmu_export import write_parquet
from unsee.pocket_builder.tiny_llava import make_model, make_processor
from unsee.training.loop import Progress

MODELS = ("base", "target", "visual_retain", "retain_only")

# Stored in 16 bits. Base and target stay in 32 bits, because training starts from them.
REFERENCES = ("visual_retain", "retain_only")


BUILD = "build.json"


PARQUET = "mllmu"


PRACTICE = ".practice"


def build(
    out: Path,
    *,
    seed: int = 0,
    people: int = 40,
    forget: int = 4,
    faces: Path | None = None,
    effort: Effort | None = None,
    progress: Callable[[str], Progress | None] = lambda _: None,
) -> Path:
    """Makes a whole pocket benchmark in a new folder.

    Args:
        out: Folder to write; must be empty or not exist.
        seed: Seed of every draw.
        people: Number of named people.
        forget: Number of them to be forgotten.
        faces: A folder of photographs, one subfolder per person; None draws faces.
        effort: Amount of training; None is the default.
        progress: Returns, for the name of a stage, what receives its steps.

    Returns:
        `out`.

    Raises:
        ConfigError: If the numbers of people are not allowed.
        DataError: If the photographs cannot be used.
        ModelError: If `out` is not empty.
    """
    effort = effort or Effort()
    check_people(people, forget)
    started = time.perf_counter()
    with atomic_folder(out) as folder:
        practice_folder = folder / PRACTICE
        if faces is None:
            world = drawn.make_world(folder, seed, people, forget)
            practice, tower_data = drawn.make_practice_world(
                practice_folder, seed, effort.strangers
            )
        else:
            world = photos.make_world(folder, faces, seed, people, forget)
            practice, tower_data = photos.make_practice_world(
                practice_folder, faces, world, seed, effort.strangers
            )
        processor = make_processor(corpus(world.views, world.names), SIZE)
        model = make_model(processor, SIZE, seed)
        vlm = VLM(model, processor, family_of("llava"), folder)
        model.train()
        train_tower(vlm, tower_data, effort, seed, progress("vision tower"))
        train_base(vlm, practice, effort, seed, progress("base model"))
        vlm.save(folder / "base")
        if world.kind == "photos":
            train_names(vlm, world, practice, effort, seed, progress("names"))
        for name in MODELS[1:]:
            student = vlm.copy()
            train_people(student, world, practice, name, effort, seed, progress(name))
            student.model.eval()
            student.save(folder / name)
            if name in REFERENCES:
                store_in_16_bits(folder / name)
        shutil.rmtree(practice_folder)
        world.write()
        write_parquet(world, folder / PARQUET)
        write_build_record(folder, world, effort, time.perf_counter() - started)
    return out


def store_in_16_bits(folder: Path) -> None:
    """Rewrites a checkpoint's weights in float16; config.json keeps the dtype of computations."""
    path = folder / "model.safetensors"
    with safe_open(path, "pt") as file:
        metadata = file.metadata()
    tensors = {name: tensor.to(torch.float16) for name, tensor in load_file(path).items()}
    save_file(tensors, path, metadata=metadata)


def check_people(people: int, forget: int) -> None:
    """Validates the numbers of people.

    Raises:
        ConfigError: If there are too few or too many people, or none to forget or to retain.
    """
    if not 1 <= forget < people <= MOST_PEOPLE:
        raise ConfigError(
            f"people={people}, forget={forget}: allowed are 2 to {MOST_PEOPLE} people, of whom at "
            "least one is forgotten and one is kept."
        )


def write_build_record(
    folder: Path, world: World, effort: Any, seconds: float, **extra: Any
) -> None:
    """Writes build.json: versions, settings, and one hash over the files of the build.

    Args:
        folder: Folder of the build.
        world: Its world.
        effort: The settings, a dataclass.
        seconds: Duration of the build.
        extra: Further entries.
    """
    content = {
        "unsee": __version__,
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "python": platform.python_version(),
        "machine": platform.machine(),
        "threads": torch.get_num_threads(),
        "seed": world.seed,
        "kind": world.kind,
        "people": len(world.people),
        "forgotten": len(world.forgotten),
        "effort": asdict(effort),
        "seconds": round(seconds, 1),
        **extra,
        "sha256": hash_files(folder),
    }
    (folder / BUILD).write_text(json.dumps(content, indent=1) + "\n", "utf-8")


def hash_files(folder: Path) -> str:
    """SHA-256 over the names and contents of the files of a build.

    build.json, which holds the hash, and the parquet export, which the package does not ship, are
    left out.
    """
    digest = hashlib.sha256()
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        if path.name == BUILD or path.relative_to(folder).parts[0] == PARQUET:
            continue
        digest.update(path.relative_to(folder).as_posix().encode() + b"\0")
        digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()
