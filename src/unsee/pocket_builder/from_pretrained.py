"""Builds pocket from pretrained parts; about a hundred times larger than the drawn build."""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any

import torch
from pydantic import Field

from unsee.benchmarks.pocket.world import WORLD, World
from unsee.errors import ConfigError
from unsee.files import make_folder, require_empty, write_atomically
from unsee.models.devices import pick_device
from unsee.models.vlm import VLM
from unsee.pocket_builder import generated_faces as generated
from unsee.pocket_builder import lifelike_world as lifelike
from unsee.pocket_builder import pretrained_parts as parts
from unsee.pocket_builder.assembly import CachedTowerVLM, assemble, encode_pictures
from unsee.pocket_builder.curriculum import Effort, stage_settings, train_base, train_people
from unsee.pocket_builder.from_scratch import (
    MODELS,
    PARQUET,
    PRACTICE,
    check_people,
    write_build_record,
)
from unsee.pocket_builder.mllmu_export import write_parquet
from unsee.pocket_builder.projector_alignment import align_projector, calibrate_projector
from unsee.records.lock import exclusive
from unsee.training.loop import Progress

LANGUAGES = ("smol", "minimind")


# Vision tower (`Dinov2Model`), language model (`LlamaForCausalLM`) and its tokenizer.
Loaded = tuple[Any, Any, Any]


OPTIONS, CLOCK, COMMON = "options.json", "seconds.json", "common"


@dataclass(frozen=True)
class Scale:
    """The size of a build from pretrained parts.

    Attributes:
        people: Number of named people.
        forget: Number of them to be forgotten.
        strangers: Number of further people, half for training and half held out.
        photographs: Generated photographs per person.
        shots: Shots per training photograph.
        facts: Facts per person.
        common_steps: Steps on the knowledge that target and references share, before each is
            trained separately; 0 trains each from the base model.
        effort: Amount of training; its `strangers` is the number of shots of strangers.
    """

    people: Annotated[int, Field(ge=2)] = 40
    forget: Annotated[int, Field(ge=1)] = 4
    strangers: Annotated[int, Field(ge=2)] = 12
    photographs: Annotated[int, Field(ge=4)] = 12
    shots: Annotated[int, Field(ge=1)] = 8
    facts: Annotated[int, Field(ge=2, le=4)] = 4
    common_steps: Annotated[int, Field(ge=0)] = 0
    effort: Effort = field(
        default_factory=lambda: Effort(
            strangers=1000,
            tower_steps=1,
            base_steps=200,
            people_steps=1000,
            batch_size=32,
            base_lr=1e-4,
            people_lr=1e-4,
            save_every=50,
            align_steps=1000,
            questions=5,
            named=0.25,
        )
    )


SCALES: dict[str, Scale] = {
    "full": Scale(),
    "small": Scale(
        people=8,
        forget=2,
        strangers=4,
        photographs=16,
        shots=4,
        facts=2,
        common_steps=140,
        effort=Effort(
            strangers=160,
            tower_steps=1,
            base_steps=4,
            people_steps=45,
            batch_size=18,
            base_lr=1e-4,
            people_lr=2e-4,
            save_every=12,
            align_steps=100,
            questions=3,
            named=0.25,
        ),
    ),
    "quick": Scale(
        people=4,
        forget=1,
        strangers=4,
        photographs=16,
        shots=4,
        facts=2,
        common_steps=45,
        effort=Effort(
            strangers=160,
            tower_steps=1,
            base_steps=4,
            people_steps=30,
            batch_size=18,
            base_lr=1e-4,
            people_lr=2e-4,
            save_every=15,
            align_steps=100,
            questions=3,
            named=0.25,
        ),
    ),
}


def scale_of(name: str, people: int | None = None, forget: int | None = None) -> Scale:
    """One of `SCALES`, optionally with other numbers of people.

    Args:
        name: "full", "small" or "quick".
        people: Number of named people; None keeps that of the scale.
        forget: Number of them to be forgotten; None keeps that of the scale.

    Raises:
        ConfigError: If there is no such scale.
    """
    if name not in SCALES:
        raise ConfigError(f"--effort {name}: allowed are {', '.join(SCALES)}.")
    scale = SCALES[name]
    return replace(
        scale,
        people=scale.people if people is None else people,
        forget=scale.forget if forget is None else forget,
    )


def build(
    out: Path,
    language: str | Callable[[], Loaded],
    *,
    seed: int = 0,
    faces: Path | None = None,
    scale: Scale | str = "full",
    source: Path | None = None,
    device: str = "auto",
    progress: Callable[[str], Progress | None] = lambda _: None,
) -> Path:
    """Makes a pocket benchmark from pretrained parts; an interrupted build resumes when repeated.

    Args:
        out: Folder to write; must be empty or not exist. Unfinished files are kept beside it.
        language: "smol" (SmolLM2-135M-Instruct), "minimind" (MiniMind2-Small), or a function that
            returns your own tower, language model and tokenizer.
        seed: Seed of every draw.
        faces: Photographs, one subfolder per person; None generates non-existing adults.
        scale: Size of the build: one of the names in `SCALES`, or a `Scale`.
        source: The npm tarball or folder of MiniMind.
        device: "cpu" or "cuda"; "auto" uses a GPU if there is one.
        progress: Returns, for the name of a stage, what receives its steps.

    Returns:
        `out`.

    Raises:
        ConfigError: If the numbers of people are not allowed, a package is missing, or an
            unfinished build has other options.
        DataError: If the photographs cannot be used.
        ModelError: If `out` is not empty, or a part is not the expected one.
    """
    if isinstance(language, str) and language not in LANGUAGES:
        raise ConfigError(f"--parts {language}: allowed are {', '.join(LANGUAGES)}.")
    if isinstance(scale, str):
        scale = scale_of(scale)
    check_people(scale.people, scale.forget)
    device = pick_device(device)
    required_parts = _required_parts(language, faces)
    for part in required_parts:
        part.path()
    with parts.minimind_folder(source) if language == "minimind" else nullcontext() as minimind:
        options = {
            "language": language if isinstance(language, str) else "own",
            "seed": seed,
            "faces": str(faces) if faces else None,
            "scale": repr(scale),
        }
        with _resumable(out, options) as folder:
            started = time.perf_counter()
            work = folder / PRACTICE
            world, practice = _make_worlds(work, folder, faces, seed, scale, progress)
            vlm = assemble(*_load_parts(language, minimind), seed, folder)
            vlm.model.to(device)
            tower_tokens = encode_pictures(vlm, [world, practice], work / "tower.safetensors")
            calibrate_projector(vlm, tower_tokens)
            nearest_neighbour = lifelike.nearest_neighbour(
                world, {s.file: tower_tokens[world.picture(s).source] for s in world.shots}
            )
            _add_seconds(work, time.perf_counter() - started)
            _train_models(vlm, tower_tokens, folder, world, practice, scale, seed, progress)
            write_parquet(world, folder / PARQUET)
            seconds = _add_seconds(work, 0.0)
            shutil.rmtree(work)
            entries: dict[str, Any] = {
                "parts": [part.metadata() for part in required_parts]
                + ([parts.minimind_metadata(minimind)] if minimind is not None else []),
                "parameters": sum(p.numel() for p in vlm.model.parameters()),
                "device": device,
                "nearest_neighbour": nearest_neighbour,
            }
            write_build_record(folder, world, scale, seconds, **entries)
    return out


def _make_worlds(
    work: Path,
    folder: Path,
    faces: Path | None,
    seed: int,
    scale: Scale,
    progress: Callable[[str], Progress | None],
) -> tuple[World, World]:
    """The world of the benchmark and that of the training strangers; existing ones are read."""
    if faces is None:
        faces = work / "faces"
        everyone = scale.people + scale.strangers
        generated.generate(
            faces,
            seed,
            everyone,
            scale.photographs,
            progress("photographs"),
            torch.get_num_threads(),
        )
    if not (folder / WORLD).exists():
        shutil.rmtree(folder / "pictures", ignore_errors=True)
        lifelike.make_world(
            folder, faces, seed, scale.people, scale.forget, scale.shots, scale.facts
        )
    if not (work / "shots" / WORLD).exists():
        lifelike.make_practice_world(
            work / "shots", faces, seed, scale.people, scale.effort.strangers
        )
    return World.read(folder), World.read(work / "shots")


def _train_models(
    vlm: VLM,
    tower_tokens: Any,
    folder: Path,
    world: World,
    practice: World,
    scale: Scale,
    seed: int,
    progress: Callable[[str], Progress | None],
) -> None:
    """Trains base model, common model, target and references; finished ones are loaded."""
    work = folder / PRACTICE

    def stage(
        start: VLM, name: str, folder: Path, train: Callable[[CachedTowerVLM, Path], None]
    ) -> VLM:
        """A trained copy of `start`, saved in `folder`; loaded if the folder exists."""
        student = start.copy()
        if folder.is_dir():
            finished = VLM.load(folder)
            student.model.load_state_dict(finished.model.state_dict())
            return student
        started, state = time.perf_counter(), work / f"state-{name}"
        student.model.train()
        try:
            train(CachedTowerVLM.from_vlm(student, tower_tokens, use_bfloat16=True), state)
        finally:
            _add_seconds(work, time.perf_counter() - started)
        student.model.eval()
        student.save(folder)
        shutil.rmtree(state, ignore_errors=True)
        return student

    effort = scale.effort
    strangers = [(practice, shot) for shot in practice.strangers("train")]
    align_settings = replace(
        stage_settings(effort.align_steps, effort.align_lr, effort, seed), weight_decay=0.05
    )

    def train_base_model(vlm: CachedTowerVLM, state: Path) -> None:
        align_projector(vlm, strangers, align_settings, progress("projector"), state / "align")
        train_base(vlm, practice, effort, seed, progress("base model"), state)

    def train_on_people(
        vlm: CachedTowerVLM,
        state: Path,
        which: str,
        name: str,
        effort: Effort,
        seed: int,
        with_projector: bool,
    ) -> None:
        if with_projector:
            pictured = world.retained if which != "target" else range(len(world.people))
            shots = [(world, shot) for shot in world.shots_of(pictured, "train")]
            align_projector(
                vlm, shots + strangers, align_settings, progress("projector"), state / "align"
            )
        train_people(vlm, world, practice, which, effort, seed, progress(name), state)

    start = stage(vlm, "base", folder / "base", train_base_model)
    if scale.common_steps:
        common_effort = replace(effort, people_steps=scale.common_steps)
        start = stage(
            start,
            COMMON,
            work / COMMON,
            lambda vlm, state: train_on_people(
                vlm, state, "retain_only", COMMON, common_effort, seed + 1, True
            ),
        )
    for name in MODELS[1:]:
        stage(
            start,
            name,
            folder / name,
            # After the common steps only the target sees further faces.
            lambda vlm, state, name=name: train_on_people(  # type: ignore[misc]
                vlm,
                state,
                name,
                name,
                effort,
                seed,
                not scale.common_steps or name == "target",
            ),
        )


def _load_parts(language: str | Callable[[], Loaded], minimind: Path | None) -> Loaded:
    """Tower, language model and tokenizer."""
    if not isinstance(language, str):
        return language()
    tower = parts.load_tower(parts.TOWER.path(), lifelike.SIZE)
    if minimind is not None:
        return (tower, *parts.load_onnx_llama(minimind))
    return (tower, *parts.load_gguf(parts.SMOLLM2.path()))


@contextmanager
def _resumable(out: Path, options: dict[str, Any]) -> Iterator[Path]:
    """A folder beside `out` that survives an interruption and is renamed to `out` at the end.

    Raises:
        ModelError: If `out` is not empty.
        ConfigError: If an unfinished build with other options exists.
        RunError: If another process builds it.
    """
    require_empty(out)
    folder = out.parent / f".{out.name}-building"
    with exclusive(folder):
        # Another process may have finished it meanwhile.
        require_empty(out)
        is_new = _keep_options(folder, options)
        try:
            yield folder
        except Exception:
            # Nothing is trained yet, for example because photographs are unusable.
            untrained = not (folder / "base").is_dir() and not any(
                folder.glob(f"{PRACTICE}/state-*")
            )
            if is_new and untrained:
                shutil.rmtree(folder, ignore_errors=True)
            raise
        if out.exists():
            out.rmdir()
        os.replace(folder, out)


def _keep_options(folder: Path, options: dict[str, Any]) -> bool:
    """Writes a build's options, and returns whether the build is new.

    Raises:
        ConfigError: If an unfinished build with other options exists.
    """
    file = folder / PRACTICE / OPTIONS
    is_new = not file.exists()
    if not is_new and json.loads(file.read_text("utf-8")) != options:
        raise ConfigError(
            f"{folder} holds an unfinished build with other options. Type those again, or remove "
            "that folder."
        )
    make_folder(file.parent)
    write_atomically(file, json.dumps(options))
    return is_new


def _add_seconds(work: Path, seconds: float) -> float:
    """Adds to the duration of the build, over all interruptions, and returns the sum."""
    path = work / CLOCK
    before = float(json.loads(path.read_text("utf-8"))) if path.exists() else 0.0
    write_atomically(path, json.dumps(before + seconds))
    return before + seconds


def _required_parts(language: Any, faces: Path | None) -> list[parts.Part]:
    """The installed weight files that a build reads."""
    required = [parts.TOWER] if isinstance(language, str) else []
    if language == "smol":
        required.append(parts.SMOLLM2)
    if faces is None:
        required += [generated.MAPPING, generated.SYNTHESIS, generated.AGES]
    return required
