"""Building pocket from pretrained parts: about a hundred times the drawn build, resumable."""

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
from unsee.files import require_empty, write_atomically
from unsee.models.devices import pick_device
from unsee.models.vlm import VLM
from unsee.pocket_builder import generated_faces as generated
from unsee.pocket_builder import lifelike_world as lifelike
from unsee.pocket_builder import pretrained_parts as parts
from unsee.pocket_builder.assembly import Rehearsal, assemble, encode
from unsee.pocket_builder.curriculum import Effort, settings_of, train_base, train_people
from unsee.pocket_builder.from_scratch import MODELS, PARQUET, PRACTICE, check_people, describe
from unsee.pocket_builder.mllmu_export import write_parquet
from unsee.pocket_builder.projector_alignment import align, calibrate
from unsee.training.loop import Progress

LANGUAGES = ("smol", "minimind")


# Vision tower (`Dinov2Model`), language model (`LlamaForCausalLM`) and its tokenizer.
Loaded = tuple[Any, Any, Any]


OPTIONS, CLOCK, COMMON = "options.json", "seconds.json", "common"


@dataclass(frozen=True)
class Scale:
    """How large a build from pretrained parts is.

    Attributes:
        people: How many have a name, if nothing else is said.
        forget: How many of them are to be forgotten, if nothing else is said.
        strangers: Further people who are generated, half to practise on and half to ask about.
        photographs: Generated of each person.
        shots: Made of every photograph that is trained on.
        facts: That there are of each person.
        common_steps: Steps of what target and references all know, before each goes on alone; 0
            trains each from the base model.
        effort: Of the stages; its `strangers` are practice shots.
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
    """One of `SCALES`, with other numbers of people.

    Args:
        name: "full", "small" or "quick".
        people: How many have a name; None is the scale's.
        forget: How many of them are to be forgotten; None is the scale's.

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
    """Makes a pocket benchmark from pretrained parts; a killed build goes on where it was.

    Args:
        out: Where to; must not hold anything yet. Until all is done the build lies beside it.
        language: "smol" (SmolLM2-135M-Instruct), "minimind" (MiniMind2-Small), or what gives parts
            of your own.
        seed: Decides everything drawn.
        faces: Photographs, a subfolder a person; None generates adults who do not exist.
        scale: How large: the name of one of `SCALES`, or a scale of your own.
        source: The npm tarball or folder of MiniMind.
        device: "cpu" or "cuda"; "auto" is a GPU where there is one.
        progress: Given a stage's name, what is told about its steps.

    Raises:
        ConfigError: If the numbers do not fit, or a package is missing.
        DataError: If the photographs cannot be used.
        ModelError: If `out` holds something, or a part is another one.
    """
    if isinstance(language, str) and language not in LANGUAGES:
        raise ConfigError(f"--parts {language}: allowed are {', '.join(LANGUAGES)}.")
    if isinstance(scale, str):
        scale = scale_of(scale)
    check_people(scale.people, scale.forget)
    device = pick_device(device)
    used = _used(language, faces)
    for part in used:
        part.path()
    with parts.minimind_folder(source) if language == "minimind" else nullcontext() as minimind:
        given = {
            "language": language if isinstance(language, str) else "own",
            "seed": seed,
            "faces": str(faces) if faces else None,
            "scale": repr(scale),
        }
        with _resumable(out, given) as folder:
            started = time.perf_counter()
            work = folder / PRACTICE
            world, practice = _worlds(work, folder, faces, seed, scale, progress)
            vlm = assemble(*_load(language, minimind), seed, folder)
            vlm.model.to(device)
            seen = encode(vlm, [world, practice], work / "tower.safetensors")
            calibrate(vlm, seen)
            measured = lifelike.nearest_neighbour(
                world, {s.file: seen[world.picture(s).source] for s in world.shots}
            )
            _clock(work, time.perf_counter() - started)
            _teach(vlm, seen, folder, world, practice, scale, seed, progress)
            write_parquet(world, folder / PARQUET)
            seconds = _clock(work, 0.0)
            shutil.rmtree(work)
            told: dict[str, Any] = {
                "parts": [part.facts() for part in used]
                + ([parts.minimind_facts(minimind)] if minimind is not None else []),
                "parameters": sum(p.numel() for p in vlm.model.parameters()),
                "device": device,
                "nearest_neighbour": measured,
            }
            describe(folder, world, scale, seconds, **told)
    return out


def _worlds(
    work: Path,
    folder: Path,
    faces: Path | None,
    seed: int,
    scale: Scale,
    progress: Callable[[str], Progress | None],
) -> tuple[World, World]:
    """The benchmark's pictures and those to practise on; made once."""
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
        lifelike.make(folder, faces, seed, scale.people, scale.forget, scale.shots, scale.facts)
    if not (work / "shots" / WORLD).exists():
        lifelike.practise(work / "shots", faces, seed, scale.people, scale.effort.strangers)
    return World.read(folder), World.read(work / "shots")


def _teach(
    vlm: VLM,
    seen: Any,
    folder: Path,
    world: World,
    practice: World,
    scale: Scale,
    seed: int,
    progress: Callable[[str], Progress | None],
) -> None:
    """Base model, what all know, and target and references; finished ones are loaded."""
    work = folder / PRACTICE

    def stage(start: VLM, name: str, where: Path, teach: Callable[[Rehearsal, Path], None]) -> VLM:
        student = start.copy()
        if where.is_dir():
            done = VLM.load(where)
            student.model.load_state_dict(done.model.state_dict())
            return student
        began, state = time.perf_counter(), work / f"state-{name}"
        student.model.train()
        try:
            teach(Rehearsal.of(student, seen, half=True), state)
        finally:
            _clock(work, time.perf_counter() - began)
        student.model.eval()
        student.save(where)
        shutil.rmtree(state, ignore_errors=True)
        return student

    effort = scale.effort

    strangers = [(practice, shot) for shot in practice.strangers("train")]
    aligning = replace(
        settings_of(effort.align_steps, effort.align_lr, effort, seed), weight_decay=0.05
    )

    def begin(s: Rehearsal, d: Path) -> None:
        align(s, strangers, aligning, progress("projector"), d / "align")
        train_base(s, practice, effort, seed, progress("base model"), d)

    def learn(
        s: Rehearsal, d: Path, which: str, name: str, effort: Effort, seed: int, fresh: bool
    ) -> None:
        if fresh:
            seen = world.retained if which != "target" else range(len(world.people))
            shots = [(world, shot) for shot in world.shots_of(seen, "train")]
            align(s, shots + strangers, aligning, progress("projector"), d / "align")
        train_people(s, world, practice, which, effort, seed, progress(name), d)

    start = stage(vlm, "base", folder / "base", begin)
    if scale.common_steps:
        longer = replace(effort, people_steps=scale.common_steps)
        start = stage(
            start,
            COMMON,
            work / COMMON,
            lambda s, d: learn(s, d, "retain_only", COMMON, longer, seed + 1, True),
        )
    for name in MODELS[1:]:
        stage(
            start,
            name,
            folder / name,
            # Whom all know the projector tells apart already; the target alone sees further faces.
            lambda s, d, n=name: learn(  # type: ignore[misc]
                s, d, n, n, effort, seed, not scale.common_steps or n == "target"
            ),
        )


def _load(language: str | Callable[[], Loaded], minimind: Path | None) -> Loaded:
    if not isinstance(language, str):
        return language()
    tower = parts.load_tower(parts.TOWER.path(), lifelike.SIZE)
    if minimind is not None:
        return (tower, *parts.load_onnx_llama(minimind))
    return (tower, *parts.load_gguf(parts.SMOLLM2.path()))


@contextmanager
def _resumable(out: Path, given: dict[str, Any]) -> Iterator[Path]:
    """A folder beside `out` that outlives a kill, and takes its name when all is done.

    Raises:
        ModelError: If `out` holds something, or a build with other options is under way.
    """
    require_empty(out)
    folder = out.parent / f".{out.name}-building"
    options = folder / PRACTICE / OPTIONS
    fresh = not options.exists()
    if not fresh and json.loads(options.read_text("utf-8")) != given:
        raise ConfigError(
            f"{folder} holds an unfinished build with other options. Type those again, or remove "
            "that folder."
        )
    options.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(options, json.dumps(given))
    try:
        yield folder
    except Exception:
        # Nothing trained, nothing worth keeping: bad photographs, say.
        if fresh and not (folder / "base").is_dir() and not any(folder.glob(f"{PRACTICE}/state-*")):
            shutil.rmtree(folder, ignore_errors=True)
        raise
    if out.exists():
        out.rmdir()
    os.replace(folder, out)


def _clock(work: Path, seconds: float) -> float:
    """Seconds in all finished stages, earlier sittings included; adds to them."""
    path = work / CLOCK
    before = float(json.loads(path.read_text("utf-8"))) if path.exists() else 0.0
    write_atomically(path, json.dumps(before + seconds))
    return before + seconds


def _used(language: Any, faces: Path | None) -> list[parts.Part]:
    used = [parts.TOWER] if isinstance(language, str) else []
    if language == "smol":
        used.append(parts.SMOLLM2)
    if faces is None:
        used += [generated.MAPPING, generated.SYNTHESIS, generated.AGES]
    return used
