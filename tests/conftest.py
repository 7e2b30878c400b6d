"""Shared material: a tiny real LLaVA with random weights, and samples with pictures on disk."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from unsee.benchmarks.pocket import CHECKPOINTS, Pocket
from unsee.families import family_of
from unsee.methods.abstention import ABSTENTIONS
from unsee.models.vlm import VLM
from unsee.pocket_builder.tiny_llava import make_model, make_processor
from unsee.types import Data, Picture, Sample, Task

CONCEPTS = ("Ada Berg", "Bo Lind", "Cy Moser", "Di Novak")
WORDS = (
    "Who is this person ? What does work as a baker pilot nurse judge lives in Oslo Lima".split()
)
TASKS: tuple[Task, ...] = ("generation", "cloze", "classification")


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> Iterator[None]:
    """Tiny tensors are quicker on one thread, and the workers then share the machine."""
    before = torch.get_num_threads()
    os.environ["OMP_NUM_THREADS"] = "1"  # of the processes that tests start
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint folder: real LLaVA classes, two layers each way, random weights.

    Answers end after seven tokens, if not at a limit before.
    """
    lines = [" ".join([*WORDS, *CONCEPTS, "A", "B", "C", "D", ":", "."])]
    texts = [f"{before}{line}" for line in lines for before in ("", "\n", "USER: ")]
    texts += [f"USER: {phrase}" for phrase in ABSTENTIONS]
    texts += [f"\n{word}" for word in (*WORDS, "A", "B", "C", "D")]
    processor = make_processor(texts, 24)
    model = make_model(processor, 24, seed=0, width=32, layers=2)
    folder = tmp_path_factory.mktemp("tiny") / "model"
    # Random weights do not write the end token by themselves, and most of a run's time would go
    # into the words before the limit.
    model.generation_config.exponential_decay_length_penalty = (6, 1000.0)
    VLM(model.eval(), processor, family_of("llava"), folder).save(folder)
    return folder


@pytest.fixture
def tiny(tiny_folder: Path) -> VLM:
    """The tiny model, loaded afresh."""
    return VLM.load(tiny_folder)


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> Data:
    """Two people to forget, two to keep, three tasks, by picture and by name; and strangers."""
    folder = tmp_path_factory.mktemp("pictures")
    rng = np.random.default_rng(0)

    def picture(name: str) -> Picture:
        path = folder / f"{name}.png"
        Image.fromarray(rng.integers(0, 255, (24, 24, 3), dtype=np.uint8)).save(path)
        return Picture.from_path(path)

    def samples(concept: str) -> list[Sample]:
        found = []
        for shot in range(3):
            seen = picture(f"{concept.replace(' ', '-')}-{shot}")
            for task in TASKS:
                found.append(_sample(concept, f"{shot}/{task}", task, seen))
        found += [_sample(concept, f"name/{task}", task, None) for task in TASKS]
        return found

    forget = [s for c in CONCEPTS[:2] for s in samples(c) if s.picture is not None]
    retain = [s for c in CONCEPTS[2:] for s in samples(c)]
    return Data(forget, retain, [picture(f"stranger-{i}") for i in range(4)])


def _sample(concept: str, where: str, task: Task, picture: Picture | None) -> Sample:
    who = "this person" if picture is not None else concept
    job = ("baker", "pilot", "nurse", "judge")[CONCEPTS.index(concept)]
    question, answer, choices = f"Who is {who} ?", f"this is {concept}", ()
    if task == "cloze":
        question, answer = f"What does {who} work as a ?", job
    elif task == "classification":
        choices = ("baker", "pilot", "nurse", "judge")
        options = "\n".join(f"{x}: {c}" for x, c in zip("ABCD", choices, strict=True))
        question, answer = f"What does {who} work as ?\n{options}", "ABCD"[choices.index(job)]
    return Sample(f"{concept}/{where}", question, answer, picture, concept, choices, task)


@pytest.fixture(scope="session")
def cut(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The shipped target and references, asked about two forgotten people and six others."""
    whole = Pocket()
    folder = tmp_path_factory.mktemp("cut")
    for name in (*CHECKPOINTS, "pictures"):
        (folder / name).symlink_to(whole.folder / name)
    people = [0, 1, *range(4, 10)]
    seen: dict[tuple[Any, str], int] = {}
    shots = []
    for shot in whole.world.shots:
        key = (shot.person, shot.role)
        seen[key] = seen.get(key, 0) + 1
        if seen[key] <= 1 and (shot.person is None or shot.person in people):
            person = None if shot.person is None else people.index(shot.person)
            shots.append(replace(shot, person=person))
    names = [whole.world.people[i] for i in people]
    replace(whole.world, folder=folder, people=names, forgotten=[0, 1], shots=shots).write()
    return folder


@pytest.fixture(scope="module")
def photos(data: Data, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of pictures, one subfolder a person."""
    folder = tmp_path_factory.mktemp("photos")
    for sample in data.forget:
        assert sample.picture is not None
        path = folder / str(sample.concept) / Path(sample.picture.source).name
        path.parent.mkdir(exist_ok=True)
        sample.picture.open().save(path)
    return folder
