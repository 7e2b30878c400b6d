"""Building pocket from seeds: pictures, a vision tower, a base model, a target, two references."""

from __future__ import annotations

import hashlib
import json
import platform
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import torch.nn.functional as F
import transformers
from PIL import Image
from pydantic import Field
from torch import Tensor, nn

from unsee import __version__
from unsee.augment import augment
from unsee.benchmarks.pocket import drawn, photos
from unsee.benchmarks.pocket.faces import SIZE
from unsee.benchmarks.pocket.parquet import write_parquet
from unsee.benchmarks.pocket.people import FACTS, MOST_PEOPLE
from unsee.benchmarks.pocket.processor import make_model, make_processor
from unsee.benchmarks.pocket.questions import FORMS, corpus
from unsee.benchmarks.pocket.world import Shot, World, person_sample, view_sample
from unsee.checkpoint import atomic_folder
from unsee.errors import ConfigError
from unsee.families import family_of
from unsee.losses import nll
from unsee.model import VLM
from unsee.train import Progress, Settings, batch_indices, fit
from unsee.types import Sample, Task

MODELS = ("base", "target", "visual_retain", "retain_only")
BUILD = "build.json"
PARQUET = "mllmu"
PRACTICE = ".practice"
# Choosing among options is learned last, so it is practised twice as often.
TURNS: tuple[Task, ...] = (*FORMS, "classification")


@dataclass(frozen=True)
class Effort:
    """How much work goes into a build.

    Attributes:
        strangers: Faces that the vision tower and the base model practise on.
        tower_steps: Steps of the vision tower's pre-training.
        base_steps: Steps in which the base model learns to answer about pictures.
        people_steps: Steps in which target and references learn their people.
        batch_size: Samples a step.
        base_lr: Peak learning rate of the base model.
        people_lr: Peak learning rate of target and references.
        save_every: Steps between states from which a killed build goes on; 0 is none.
    """

    strangers: Annotated[int, Field(ge=8)] = 9000
    tower_steps: Annotated[int, Field(ge=1)] = 4000
    base_steps: Annotated[int, Field(ge=1)] = 400
    people_steps: Annotated[int, Field(ge=1)] = 1200
    batch_size: Annotated[int, Field(ge=4)] = 64
    base_lr: Annotated[float, Field(gt=0)] = 3e-3
    people_lr: Annotated[float, Field(gt=0)] = 2.5e-3
    save_every: Annotated[int, Field(ge=0)] = 0


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
        out: Where to; must not hold anything yet.
        seed: Decides everything drawn.
        people: How many have a name.
        forget: How many of them are to be forgotten.
        faces: A folder of photographs, one subfolder a person, instead of drawn people.
        effort: How much training.
        progress: Given a stage's name, what is told about its steps.

    Returns:
        The folder.

    Raises:
        ConfigError: If the numbers do not fit.
        DataError: If the photographs cannot be used.
    """
    effort = effort or Effort()
    if not 2 <= people <= MOST_PEOPLE or not 1 <= forget < people:
        raise ConfigError(
            f"people={people}, forget={forget}: allowed are 2 to {MOST_PEOPLE} people, of whom at "
            "least one is forgotten and one is kept."
        )
    started = time.perf_counter()
    with atomic_folder(out) as folder:
        practice_folder = folder / PRACTICE
        if faces is None:
            world = drawn.make(folder, seed, people, forget)
            practice, lessons = drawn.practise(practice_folder, seed, effort.strangers)
        else:
            world = photos.make(folder, faces, seed, people, forget)
            practice, lessons = photos.practise(
                practice_folder, faces, world, seed, effort.strangers
            )
        processor = make_processor(corpus(world.views, world.names), SIZE)
        model = make_model(processor, SIZE, seed)
        vlm = VLM(model, processor, family_of("llava"), folder)
        model.train()
        train_tower(vlm, lessons, effort, seed, progress("vision tower"))
        train_base(vlm, practice, effort, seed, progress("base model"))
        vlm.save(folder / "base")
        for name in MODELS[1:]:
            student = vlm.copy()
            train_people(student, world, practice, name, effort, seed, progress(name))
            student.model.eval()
            student.save(folder / name)
        shutil.rmtree(practice_folder)
        world.write()
        write_parquet(world, folder / PARQUET)
        describe(folder, world, effort, time.perf_counter() - started)
    return out


def train_tower(
    vlm: VLM, lessons: drawn.Lessons, effort: Effort, seed: int, progress: Progress | None
) -> None:
    """Teaches the vision encoder to read a face: every trait and every thing shown.

    The heads that read them off the patches' mean are thrown away. A tower trained from scratch
    inside the whole model does not leave its plateau in reasonable time.
    """
    prefix = vlm.family.parts.encoder[0]
    tower = vlm.model.get_submodule(prefix.rstrip("."))
    torch.manual_seed(seed + 1)
    width = int(vlm.model.config.vision_config.hidden_size)
    sizes = {name: max(1, int(labels.max()) + 1) for name, labels in lessons.classes.items()}
    heads = nn.ModuleDict({name: nn.Linear(width, size) for name, size in sizes.items()})
    heads["numbers"] = nn.Linear(width, lessons.numbers.shape[1])
    pixels = torch.cat(
        [
            vlm.collate_pictures(lessons.images[i : i + 256])["pixel_values"]
            for i in range(0, len(lessons.images), 256)
        ]
    )

    def step(number: int) -> Mapping[str, Tensor]:
        rows = batch_indices(len(pixels), effort.batch_size, number, seed)
        index = torch.tensor(rows)
        hidden = tower(_jitter(pixels[index])).last_hidden_state[:, 1:].mean(1)
        terms = {}
        for name, labels in lessons.classes.items():
            known = labels[index] >= 0
            if bool(known.any()):
                loss = F.cross_entropy(heads[name](hidden[known]), labels[index][known])
                terms[name] = 0.3 * loss * known.float().mean()
        known = ~lessons.numbers[index].isnan().any(1)
        if bool(known.any()):
            error = F.mse_loss(heads["numbers"](hidden[known]), lessons.numbers[index][known])
            terms["numbers"] = 2 * error * known.float().mean()
        return terms

    trained = vlm.parameters("encoder") | {f"heads.{n}": p for n, p in heads.named_parameters()}
    fit(trained, step, _settings(effort.tower_steps, 1e-3, effort, seed), progress=progress)


def train_base(
    vlm: VLM,
    practice: World,
    effort: Effort,
    seed: int,
    progress: Progress | None,
    state: Path | None = None,
) -> None:
    """Teaches the model to answer general questions about pictures of strangers."""
    shots = practice.strangers("train")

    def step(number: int) -> Mapping[str, Tensor]:
        rng = np.random.default_rng([seed, 2, number])
        task = FORMS[number % len(FORMS)]
        samples = [_view(practice, shots, task, rng) for _ in range(effort.batch_size)]
        return _losses(vlm, samples, rng)

    settings = _settings(effort.base_steps, effort.base_lr, effort, seed)
    _fit_but_encoder(vlm, step, settings, progress, state)


def train_people(
    vlm: VLM,
    world: World,
    practice: World,
    which: str,
    effort: Effort,
    seed: int,
    progress: Progress | None,
    state: Path | None = None,
) -> None:
    """Teaches the people: to the target all, to a reference what it may know.

    `visual_retain` reads all texts but sees no picture of the forgotten; `retain_only` gets
    neither. General questions about strangers and about everyone seen stay in the mix.
    """
    everyone = list(range(len(world.people)))
    seen = everyone if which == "target" else world.retained
    read = world.retained if which == "retain_only" else everyone
    shots, strangers = world.of(seen, "train"), practice.strangers("train")
    topics, facts = ["name", *FACTS], list(FACTS)

    def step(number: int) -> Mapping[str, Tensor]:
        rng = np.random.default_rng([seed, 3, number])
        task = TURNS[number % len(TURNS)]
        size = effort.batch_size
        samples = []
        for _ in range(size // 2):
            shot = shots[int(rng.integers(len(shots)))]
            topic = topics[int(rng.integers(len(topics)))]
            person = shot.person if shot.person is not None else 0
            samples.append(
                person_sample(world, person, topic, task, rng, shot=shot, held_out=False)
            )
        for _ in range(size // 4):
            person, fact = read[int(rng.integers(len(read)))], facts[int(rng.integers(len(facts)))]
            samples.append(person_sample(world, person, fact, task, rng, shot=None, held_out=False))
        for _ in range(size - len(samples)):
            known = rng.random() < 0.3
            samples.append(
                _view(world, shots, task, rng) if known else _view(practice, strangers, task, rng)
            )
        return _losses(vlm, samples, rng)

    settings = _settings(effort.people_steps, effort.people_lr, effort, seed)
    _fit_but_encoder(vlm, step, settings, progress, state)


def _fit_but_encoder(
    vlm: VLM,
    step: Callable[[int], Mapping[str, Tensor]],
    settings: Settings,
    progress: Progress | None,
    state: Path | None = None,
) -> None:
    """Trains projector and language part, as LLaVA is tuned.

    The encoder stays: before the LLM attends to pictures its gradients would only spoil it, and
    afterwards it would learn the training pictures by heart.
    """
    vlm.model.requires_grad_(False)
    trained = vlm.parameters("projector") | vlm.parameters("language")
    fit(trained, step, settings, folder=state, progress=progress)


def describe(folder: Path, world: World, effort: Any, seconds: float, **told: Any) -> None:
    """Writes build.json: what made the build, and the hash of every file in it."""
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
        **told,
        "sha256": hash_files(folder),
    }
    (folder / BUILD).write_text(json.dumps(content, indent=1) + "\n", "utf-8")


def hash_files(folder: Path) -> str:
    """SHA-256 over the names and contents of the files of a build.

    Left out are build.json, which holds it, and the parquet copy, made of the other files and so
    that the package need not ship it.
    """
    digest = hashlib.sha256()
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        if path.name == BUILD or path.relative_to(folder).parts[0] == PARQUET:
            continue
        digest.update(path.relative_to(folder).as_posix().encode() + b"\0")
        digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()


def _settings(steps: int, lr: float, effort: Effort, seed: int) -> Settings:
    return Settings(
        steps=steps,
        lr=lr,
        batch_size=effort.batch_size,
        weight_decay=0.01,
        save_every=effort.save_every,
        seed=seed,
    )


def _view(world: World, shots: Sequence[Shot], task: Any, rng: np.random.Generator) -> Sample:
    shot = shots[int(rng.integers(len(shots)))]
    views = [view for view in world.views if view in shot.shows]
    return view_sample(world, shot, views[int(rng.integers(len(views)))], task, rng, False)


def _losses(vlm: VLM, samples: Sequence[Sample], rng: np.random.Generator) -> dict[str, Tensor]:
    """The answers' loss, pictured and text-only rows apart: padding one to the other is waste."""

    def look(image: Image.Image) -> Image.Image:
        return augment(image, rng, 0.4)

    terms = {}
    for modality in ("vqa", "text"):
        some = [sample for sample in samples if sample.modality == modality]
        if some:
            batch = vlm.collate(some, transform=look)
            terms[modality] = nll(vlm.logits(batch), batch.labels) * len(some) / len(samples)
    return terms


def _jitter(pixels: Tensor) -> Tensor:
    """Noise, light and a shift of up to two pixels, drawn from torch's generator."""
    count = len(pixels)
    gain, bias = torch.rand(2, count, 1, 1, 1).unbind() if count else (1.0, 0.0)
    pixels = pixels * (0.9 + 0.2 * gain) + 0.1 * (bias - 0.5) + 0.03 * torch.randn_like(pixels)
    shift = torch.randint(-2, 3, (2,)).tolist()
    return torch.roll(pixels, shift, (2, 3))
