"""Teaching pocket's models: the tower, the base model, names, and people."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from pydantic import Field
from torch import Tensor, nn

from unsee.benchmarks.pocket.questions import FORMS
from unsee.benchmarks.pocket.world import Shot, World, person_sample, view_sample
from unsee.data.augment import augment
from unsee.losses import nll
from unsee.models.vlm import VLM
from unsee.pocket_builder import drawn_world as drawn
from unsee.training.loop import Progress, fit
from unsee.training.sampling import batch_indices
from unsee.training.settings import TrainingSettings
from unsee.types import Sample, Task

# Choosing among options is learned last, so it is practised twice as often.
TURNS: tuple[Task, ...] = (*FORMS, "classification")


@dataclass(frozen=True)
class Effort:
    """How much work goes into a build.

    Attributes:
        strangers: Faces that the vision tower and the base model practise on.
        tower_steps: Steps of the vision tower's pre-training.
        base_steps: Steps in which the base model learns to answer about pictures.
        names_steps: Steps in which a model of photographs learns the names of the people kept.
        people_steps: Steps in which target and references learn their people.
        named: Share of those steps, the first ones, in which photographs are asked for names alone.
        read: Share of those steps, the next ones, in which texts alone are learned.
        align_steps: Further steps, before those, in which the projector alone learns faces.
        batch_size: Samples a step.
        questions: Question of each picture in a step; a rehearsal computes the picture once.
        base_lr: Peak learning rate of the base model.
        people_lr: Peak learning rate of target and references.
        align_lr: Peak learning rate of the projector alone.
        save_every: Steps between states from which a killed build goes on; 0 is none.
    """

    strangers: Annotated[int, Field(ge=8)] = 9000
    tower_steps: Annotated[int, Field(ge=1)] = 4000
    base_steps: Annotated[int, Field(ge=1)] = 400
    names_steps: Annotated[int, Field(ge=1)] = 500
    people_steps: Annotated[int, Field(ge=1)] = 1200
    named: Annotated[float, Field(ge=0, le=1)] = 0.125
    read: Annotated[float, Field(ge=0, le=1)] = 0.0
    align_steps: Annotated[int, Field(ge=0)] = 0
    batch_size: Annotated[int, Field(ge=4)] = 64
    questions: Annotated[int, Field(ge=1)] = 1
    base_lr: Annotated[float, Field(gt=0)] = 3e-3
    people_lr: Annotated[float, Field(gt=0)] = 2.5e-3
    align_lr: Annotated[float, Field(gt=0)] = 1e-3
    save_every: Annotated[int, Field(ge=0)] = 0


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
    fit(trained, step, settings_of(effort.tower_steps, 1e-3, effort, seed), progress=progress)


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
        each = effort.questions
        samples = []
        for _ in range(effort.batch_size // each):
            samples += _views(practice, shots, task, rng, each)
        return _losses(vlm, samples, rng)

    settings = settings_of(effort.base_steps, effort.base_lr, effort, seed)
    _fit_but_encoder(vlm, step, settings, progress, state)


def train_names(
    vlm: VLM, world: World, practice: World, effort: Effort, seed: int, progress: Progress | None
) -> None:
    """Teaches the names of the people kept, whom target and references all know by sight.

    What is asked about photographs (a frame, a badge) is no matter of the face. Question for names,
    jobs and cities at once, the language part hardly learns to attend to faces; names come first.
    """
    shots, strangers = world.shots_of(world.retained, "train"), practice.strangers("train")

    def step(number: int) -> Mapping[str, Tensor]:
        rng = np.random.default_rng([seed, 4, number])
        task = FORMS[number % len(FORMS)]
        samples = []
        for _ in range(3 * effort.batch_size // 4):
            shot = shots[int(rng.integers(len(shots)))]
            person = shot.person if shot.person is not None else 0
            samples.append(
                person_sample(world, person, "name", task, rng, shot=shot, held_out=False)
            )
        for _ in range(effort.batch_size - len(samples)):
            samples += _views(practice, strangers, task, rng)
        return _losses(vlm, samples, rng)

    _fit_but_encoder(
        vlm, step, settings_of(effort.names_steps, effort.people_lr, effort, seed), progress
    )


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
    neither. General questions about strangers and about everyone seen stay in the mix. Real faces
    are harder to tell apart than drawn ones: of photographs more is asked, and names come first.
    """
    everyone = list(range(len(world.people)))
    seen = everyone if which == "target" else world.retained
    read = world.retained if which == "retain_only" else everyone
    shots, strangers = world.shots_of(seen, "train"), practice.strangers("train")
    facts = list(world.people[0].facts)
    size, each, photographed = effort.batch_size, effort.questions, world.kind == "photos"
    pictured, told = (5 * size // 8, size // 8) if photographed else (size // 2, size // 4)
    if each > 1:  # pictures of people first: the LLM must look at every step
        pictured, told = 2 * size // 3, size // 6
    turns = TURNS if each == 1 else FORMS
    named = int(effort.named * effort.people_steps) if photographed else 0
    read_until = named + round(effort.read * effort.people_steps)

    def step(number: int) -> Mapping[str, Tensor]:
        rng = np.random.default_rng([seed, 3, number])
        naming, reading = number < named, named <= number < read_until
        task = FORMS[number % 2] if naming and each > 1 else turns[number % len(turns)]
        samples: list[Sample] = []
        # One question a picture then: the more faces a step, the sooner the LLM looks at them.
        for _ in range(0 if reading else pictured if naming else pictured // each):
            shot = shots[int(rng.integers(len(shots)))]
            chosen = ["name"] if naming else _some(["name", *facts], each, rng)
            person = shot.person if shot.person is not None else 0
            samples += [
                person_sample(world, person, topic, task, rng, shot=shot, held_out=False)
                for topic in chosen
            ]
        for _ in range(size if reading else told):
            person, fact = read[int(rng.integers(len(read)))], facts[int(rng.integers(len(facts)))]
            samples.append(person_sample(world, person, fact, task, rng, shot=None, held_out=False))
        for _ in range(0 if naming and each > 1 else (size - len(samples)) // each):
            known = rng.random() < 0.3
            where, some = (world, shots) if known else (practice, strangers)
            samples += _views(where, some, task, rng, each)
        return _losses(vlm, samples, rng)

    settings = settings_of(effort.people_steps, effort.people_lr, effort, seed)
    _fit_but_encoder(vlm, step, settings, progress, state)


def _fit_but_encoder(
    vlm: VLM,
    step: Callable[[int], Mapping[str, Tensor]],
    settings: TrainingSettings,
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


def settings_of(steps: int, lr: float, effort: Effort, seed: int) -> TrainingSettings:
    """How a stage of so many steps is trained."""
    return TrainingSettings(
        steps=steps,
        lr=lr,
        batch_size=effort.batch_size,
        weight_decay=0.01,
        save_every=effort.save_every,
        seed=seed,
    )


def _views(
    world: World, shots: Sequence[Shot], task: Any, rng: np.random.Generator, count: int = 1
) -> list[Sample]:
    """General questions about one shot."""
    shot = shots[int(rng.integers(len(shots)))]
    views = _some([view for view in world.views if view in shot.shows], count, rng)
    return [view_sample(world, shot, view, task, rng, False) for view in views]


def _some(values: Sequence[str], count: int, rng: np.random.Generator) -> list[str]:
    """So many different ones of the values, drawn."""
    if count == 1:
        return [values[int(rng.integers(len(values)))]]
    return [values[i] for i in rng.permutation(len(values))[:count]]


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
