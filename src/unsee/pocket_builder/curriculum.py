"""Training of pocket's models: vision tower, base model, names, and people."""

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

# Classification is learned last, so it occurs twice as often.
TASK_CYCLE: tuple[Task, ...] = (*FORMS, "classification")


@dataclass(frozen=True)
class Effort:
    """The amount of training in a build.

    Attributes:
        strangers: Number of strangers' faces on which vision tower and base model are trained.
        tower_steps: Steps of the vision tower's pre-training.
        base_steps: Steps of the base model, which learns to answer questions about pictures.
        names_steps: Steps in which a model of photographs learns the names of the retain people.
        people_steps: Steps of the target and of each reference, which learn the people.
        named: Fraction of `people_steps`, at the beginning, that asks only for the names of
            photographed people.
        read: Fraction of `people_steps`, after those, that trains on text-only samples.
        align_steps: Additional steps before `people_steps` that train the projector alone.
        batch_size: Samples per step.
        questions: Questions per picture in a step; with cached tower outputs the language model
            reads the picture once for all of them.
        base_lr: Peak learning rate of the base model.
        people_lr: Peak learning rate of target and references.
        align_lr: Peak learning rate of the projector alone.
        save_every: Steps between saved states, from which an interrupted build resumes; 0 saves
            none.
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
    vlm: VLM,
    tower_data: drawn.TowerTrainingData,
    effort: Effort,
    seed: int,
    progress: Progress | None,
) -> None:
    """Pre-trains the vision encoder to predict the traits of a face and the things shown.

    Linear heads on the mean of the patch features are discarded afterwards. Without pre-training,
    the loss of the whole model stays on a plateau for a long time.

    Args:
        vlm: The model; only its vision encoder changes.
        tower_data: Pictures and labels.
        effort: Steps and batch size.
        seed: Seed of heads, batches and augmentation.
        progress: Receives every step; None reports nothing.
    """
    prefix = vlm.family.parts.encoder[0]
    tower = vlm.model.get_submodule(prefix.rstrip("."))
    torch.manual_seed(seed + 1)
    width = int(vlm.model.config.vision_config.hidden_size)
    sizes = {name: max(1, int(labels.max()) + 1) for name, labels in tower_data.classes.items()}
    heads = nn.ModuleDict({name: nn.Linear(width, size) for name, size in sizes.items()})
    heads["numbers"] = nn.Linear(width, tower_data.numbers.shape[1])
    pixels = torch.cat(
        [
            vlm.collate_pictures(tower_data.images[i : i + 256])["pixel_values"]
            for i in range(0, len(tower_data.images), 256)
        ]
    )

    def step(number: int) -> Mapping[str, Tensor]:
        rows = batch_indices(len(pixels), effort.batch_size, number, seed)
        index = torch.tensor(rows)
        hidden = tower(_jitter(pixels[index])).last_hidden_state[:, 1:].mean(1)
        terms = {}
        for name, labels in tower_data.classes.items():
            known = labels[index] >= 0
            if bool(known.any()):
                loss = F.cross_entropy(heads[name](hidden[known]), labels[index][known])
                terms[name] = 0.3 * loss * known.float().mean()
        known = ~tower_data.numbers[index].isnan().any(1)
        if bool(known.any()):
            error = F.mse_loss(heads["numbers"](hidden[known]), tower_data.numbers[index][known])
            terms["numbers"] = 2 * error * known.float().mean()
        return terms

    trained = vlm.parameters("encoder") | {f"heads.{n}": p for n, p in heads.named_parameters()}
    fit(trained, step, stage_settings(effort.tower_steps, 1e-3, effort, seed), progress=progress)


def train_base(
    vlm: VLM,
    practice: World,
    effort: Effort,
    seed: int,
    progress: Progress | None,
    state: Path | None = None,
) -> None:
    """Trains the model to answer general questions about pictures of strangers.

    Args:
        vlm: The model; its projector and language part change.
        practice: Strangers to train on.
        effort: Steps, batch size and learning rate.
        seed: Seed of the samples.
        progress: Receives every step; None reports nothing.
        state: Folder of the saved state for resuming; None saves none.
    """
    shots = practice.strangers("train")

    def step(number: int) -> Mapping[str, Tensor]:
        rng = np.random.default_rng([seed, 2, number])
        task = FORMS[number % len(FORMS)]
        each = effort.questions
        samples = []
        for _ in range(effort.batch_size // each):
            samples += _view_samples(practice, shots, task, rng, each)
        return _answer_losses(vlm, samples, rng)

    settings = stage_settings(effort.base_steps, effort.base_lr, effort, seed)
    _fit_without_encoder(vlm, step, settings, progress, state)


def train_names(
    vlm: VLM, world: World, practice: World, effort: Effort, seed: int, progress: Progress | None
) -> None:
    """Trains the names of the retain people, whom the target and both references know by sight.

    The general questions about photographs (frame, badge) do not depend on the face. If names, jobs
    and cities are trained at once, the language part hardly learns to attend to faces; so names are
    trained first.

    Args:
        vlm: The model; its projector and language part change.
        world: The people.
        practice: Strangers, for general questions.
        effort: Steps, batch size and learning rate.
        seed: Seed of the samples.
        progress: Receives every step; None reports nothing.
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
            samples += _view_samples(practice, strangers, task, rng)
        return _answer_losses(vlm, samples, rng)

    _fit_without_encoder(
        vlm, step, stage_settings(effort.names_steps, effort.people_lr, effort, seed), progress
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
    """Trains the target on all people, and a reference on those that it may know.

    `visual_retain` is trained on all texts but on no picture of the forget people; `retain_only` on
    neither. General questions about strangers and the pictured people are mixed in. Photographed
    faces are harder to tell apart than drawn ones: they get more samples, and names come first.

    Args:
        vlm: The model; its projector and language part change.
        world: The people.
        practice: Strangers, for general questions.
        which: "target", "visual_retain" or "retain_only".
        effort: Steps, batch size and learning rate.
        seed: Seed of the samples.
        progress: Receives every step; None reports nothing.
        state: Folder of the saved state for resuming; None saves none.
    """
    everyone = list(range(len(world.people)))
    pictured_people = everyone if which == "target" else world.retained
    text_people = world.retained if which == "retain_only" else everyone
    shots, strangers = world.shots_of(pictured_people, "train"), practice.strangers("train")
    facts = list(world.people[0].facts)
    size, each, photographed = effort.batch_size, effort.questions, world.kind == "photos"
    pictured, textual = (5 * size // 8, size // 8) if photographed else (size // 2, size // 4)
    if each > 1:  # mostly pictures of people, so that every step trains attention to faces
        pictured, textual = 2 * size // 3, size // 6
    task_cycle = TASK_CYCLE if each == 1 else FORMS
    named = int(effort.named * effort.people_steps) if photographed else 0
    read_until = named + round(effort.read * effort.people_steps)

    def step(number: int) -> Mapping[str, Tensor]:
        rng = np.random.default_rng([seed, 3, number])
        naming, reading = number < named, named <= number < read_until
        task = FORMS[number % 2] if naming and each > 1 else task_cycle[number % len(task_cycle)]
        samples: list[Sample] = []
        # Naming steps ask one question per picture: the more faces per step, the sooner the
        # language part attends to them.
        for _ in range(0 if reading else pictured if naming else pictured // each):
            shot = shots[int(rng.integers(len(shots)))]
            topics = ["name"] if naming else _sample(["name", *facts], each, rng)
            person = shot.person if shot.person is not None else 0
            samples += [
                person_sample(world, person, topic, task, rng, shot=shot, held_out=False)
                for topic in topics
            ]
        for _ in range(size if reading else textual):
            person = text_people[int(rng.integers(len(text_people)))]
            fact = facts[int(rng.integers(len(facts)))]
            samples.append(person_sample(world, person, fact, task, rng, shot=None, held_out=False))
        for _ in range(0 if naming and each > 1 else (size - len(samples)) // each):
            of_people = rng.random() < 0.3
            source, source_shots = (world, shots) if of_people else (practice, strangers)
            samples += _view_samples(source, source_shots, task, rng, each)
        return _answer_losses(vlm, samples, rng)

    settings = stage_settings(effort.people_steps, effort.people_lr, effort, seed)
    _fit_without_encoder(vlm, step, settings, progress, state)


def _fit_without_encoder(
    vlm: VLM,
    step: Callable[[int], Mapping[str, Tensor]],
    settings: TrainingSettings,
    progress: Progress | None,
    state: Path | None = None,
) -> None:
    """Trains projector and language part, as in LLaVA's instruction tuning.

    The encoder is frozen: gradients of a language model that does not attend to pictures yet would
    damage it, and later it would memorise the training pictures.
    """
    vlm.model.requires_grad_(False)
    trained = vlm.parameters("projector") | vlm.parameters("language")
    fit(trained, step, settings, folder=state, progress=progress)


def stage_settings(steps: int, lr: float, effort: Effort, seed: int) -> TrainingSettings:
    """The training settings of a stage.

    Args:
        steps: Steps of the stage.
        lr: Peak learning rate.
        effort: Batch size and saving of states.
        seed: Seed of the training.
    """
    return TrainingSettings(
        steps=steps,
        lr=lr,
        batch_size=effort.batch_size,
        weight_decay=0.01,
        save_every=effort.save_every,
        seed=seed,
    )


def _view_samples(
    world: World, shots: Sequence[Shot], task: Any, rng: np.random.Generator, count: int = 1
) -> list[Sample]:
    """`count` different general questions about one random shot."""
    shot = shots[int(rng.integers(len(shots)))]
    views = _sample([view for view in world.views if view in shot.shows], count, rng)
    return [view_sample(world, shot, view, task, rng, False) for view in views]


def _sample(values: Sequence[str], count: int, rng: np.random.Generator) -> list[str]:
    """`count` values, drawn without replacement."""
    if count == 1:
        return [values[int(rng.integers(len(values)))]]
    return [values[i] for i in rng.permutation(len(values))[:count]]


def _answer_losses(
    vlm: VLM, samples: Sequence[Sample], rng: np.random.Generator
) -> dict[str, Tensor]:
    """The loss of the answers, in separate batches with and without pictures to save padding."""

    def transform(image: Image.Image) -> Image.Image:
        return augment(image, rng, 0.4)

    terms = {}
    for modality in ("vqa", "text"):
        rows = [sample for sample in samples if sample.modality == modality]
        if rows:
            batch = vlm.collate(rows, transform=transform)
            terms[modality] = nll(vlm.logits(batch), batch.labels) * len(rows) / len(samples)
    return terms


def _jitter(pixels: Tensor) -> Tensor:
    """Augments pixels with noise, brightness, contrast and a shift of up to two pixels."""
    count = len(pixels)
    gain, bias = torch.rand(2, count, 1, 1, 1).unbind() if count else (1.0, 0.0)
    pixels = pixels * (0.9 + 0.2 * gain) + 0.1 * (bias - 0.5) + 0.03 * torch.randn_like(pixels)
    shift = torch.randint(-2, 3, (2,)).tolist()
    return torch.roll(pixels, shift, (2, 3))
