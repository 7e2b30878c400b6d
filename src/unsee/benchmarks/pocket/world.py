"""A pocket world on disk: its people, its pictures, and the samples made from them.

`world.json` lists people and shots; the pictures are in the same folder. A split depends only on
that file and the seed, so it is the same wherever it is loaded.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal

import numpy as np

from unsee.benchmarks.pocket.appearance import BACKGROUNDS, COLOURS, HAIRS, SHIRTS
from unsee.benchmarks.pocket.people import Person
from unsee.benchmarks.pocket.questions import FORMS, Topic, View, ask_person, ask_view
from unsee.errors import DataError, first_line, shorten
from unsee.files import is_regular
from unsee.types import Picture, Sample, Task

Role = Literal["train", "holdout", "validation"]
WORLD = "world.json"


def _colour_of(thing: str) -> Topic:
    """Questions for the colour of a thing."""
    return Topic(
        (
            f"What is the colour of the {thing}?",
            f"Which colour does the {thing} have?",
            f"What colour is the {thing}?",
        ),
        f"The {thing} is [Blank].",
        f"The {thing} is {{value}}.",
    )


def _worn_item(thing: str) -> View:
    """Questions whether the person wears a thing."""
    return View(
        Topic(
            (
                f"Does the person wear {thing}?",
                f"Can you see {thing} on the person?",
                f"Is there {thing} on the person?",
            ),
            f"As to {thing}, the person wears [Blank].",
            "The person wears {value}.",
        ),
        (thing, f"no {thing.removeprefix('a ')}"),
    )


DRAWN_VIEWS: dict[str, View] = {
    "background": View(_colour_of("background"), BACKGROUNDS),
    "shirt": View(_colour_of("shirt"), SHIRTS),
    "hair": View(_colour_of("hair"), HAIRS),
    "glasses": _worn_item("glasses"),
    "hat": _worn_item("a hat"),
}
BADGES = ("circle", "square", "triangle")
FRAMES = tuple(COLOURS)
PHOTO_VIEWS: dict[str, View] = {
    "frame": View(_colour_of("frame"), FRAMES),
    "badge": View(_colour_of("badge"), FRAMES),
    "shape": View(
        Topic(
            (
                "What is the shape of the badge?",
                "Which shape does the badge have?",
                "What shape is the badge?",
            ),
            "The badge is a [Blank].",
            "The badge is a {value}.",
        ),
        BADGES,
    ),
}


@dataclass(frozen=True)
class Shot:
    """A picture on disk.

    Attributes:
        file: Path relative to the world's folder.
        person: Index of the person; None for a stranger.
        role: "train", "holdout" (reported) or "validation" (for choosing settings).
        shows: True values of the general visual questions about it, by name of the question.
    """

    file: str
    person: int | None
    role: Role
    shows: Mapping[str, str]

    @cached_property
    def place(self) -> tuple[str, str]:
        """The name of its folder, and its own without the suffix."""
        path = Path(self.file)
        return path.parent.name, path.stem


@dataclass(frozen=True)
class World:
    """The people and pictures of a pocket benchmark.

    Attributes:
        folder: The folder of the pictures.
        seed: Seed from which it was made.
        kind: "drawn" or "photos"; determines the general questions.
        people: The named people.
        forgotten: Indices of the people to be forgotten.
        shots: All pictures.
    """

    folder: Path
    seed: int
    kind: Literal["drawn", "photos"]
    people: Sequence[Person]
    forgotten: Sequence[int]
    shots: Sequence[Shot]

    @property
    def views(self) -> dict[str, View]:
        """The general visual questions of this kind of picture, by name."""
        return DRAWN_VIEWS if self.kind == "drawn" else PHOTO_VIEWS

    @property
    def names(self) -> list[str]:
        """The names of all people."""
        return [person.name for person in self.people]

    @property
    def retained(self) -> list[int]:
        """Indices of the people who are not forgotten."""
        return [i for i in range(len(self.people)) if i not in self.forgotten]

    def shots_of(self, people: Iterable[int], role: Role) -> list[Shot]:
        """The shots of these people in a role, person by person."""
        return [
            shot
            for person in people
            for shot in self.shots
            if shot.person == person and shot.role == role
        ]

    def strangers(self, role: Role) -> list[Shot]:
        """The shots of strangers in a role."""
        return [shot for shot in self.shots if shot.person is None and shot.role == role]

    @cached_property
    def _pictures(self) -> dict[str, Picture]:
        """The pictures asked for so far, by file."""
        return {}

    def picture(self, shot: Shot) -> Picture:
        """The picture of a shot; all questions about it share one."""
        if shot.file not in self._pictures:
            self._pictures[shot.file] = Picture.from_path(self.folder / shot.file)
        return self._pictures[shot.file]

    def write(self) -> None:
        """Writes world.json into the folder."""
        content = asdict(self) | {"folder": ""}
        text = json.dumps(content, indent=1, ensure_ascii=False)
        (self.folder / WORLD).write_text(text + "\n", "utf-8")

    @classmethod
    def read(cls, folder: Path) -> World:
        """Reads the world in a folder.

        Raises:
            DataError: If there is no world.json, or it is damaged.
        """
        path = folder / WORLD
        if path.exists() and not is_regular(path):
            raise DataError(f"{path} is no ordinary file. Build it again.")
        try:
            content = json.loads(path.read_text("utf-8"))
            return cls(
                folder,
                content["seed"],
                content["kind"],
                [Person(**person) for person in content["people"]],
                content["forgotten"],
                [Shot(**shot) for shot in content["shots"]],
            )
        except FileNotFoundError as error:
            raise DataError(
                f"{folder}: no {WORLD}, so no pocket benchmark. Make one: "
                f"unsee pocket build --out {folder}."
            ) from error
        except OSError as error:
            raise DataError(f"{path} cannot be read ({first_line(error)}).") from error
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            problem = shorten(repr(error), 200)
            raise DataError(f"{path} is damaged ({problem}). Build it again.") from error


def person_sample(
    world: World,
    index: int,
    topic: str,
    task: Task,
    rng: np.random.Generator,
    *,
    shot: Shot | None,
    held_out: bool,
) -> Sample:
    """A question about a person, from a shot or by name.

    Args:
        world: The world.
        index: Index of the person.
        topic: "name" or a fact.
        task: "generation", "cloze" or "classification".
        rng: Source of the phrasing and the options.
        shot: The shot that is asked about; None asks by name, without a picture.
        held_out: Whether to use a phrasing that is never trained on.
    """
    person = world.people[index]
    question = ask_person(
        person, topic, world.names, task, rng, text_only=shot is None, held_out=held_out
    )
    source = shot.place[1] if shot is not None else "name"
    return Sample(
        f"{person.slug}/{source}/{topic}/{task}",
        question.question,
        question.answer,
        world.picture(shot) if shot is not None else None,
        person.name,
        question.choices,
        task,
        perturbed=question.perturbed,
    )


def view_sample(
    world: World, shot: Shot, view: str, task: Task, rng: np.random.Generator, held_out: bool
) -> Sample:
    """A general question about what a shot shows.

    Args:
        world: The world.
        shot: The shot.
        view: Name of the question, one of `shot.shows`.
        task: "generation", "cloze" or "classification".
        rng: Source of the phrasing and the options.
        held_out: Whether to use a phrasing that is never trained on.
    """
    question = ask_view(world.views[view], shot.shows[view], task, rng, held_out=held_out)
    folder, stem = shot.place
    concept = world.people[shot.person].name if shot.person is not None else stem
    return Sample(
        f"{folder}/{stem}/{view}/{task}",
        question.question,
        question.answer,
        world.picture(shot),
        concept,
        question.choices,
        task,
        perturbed=question.perturbed,
    )


def picture_questions(
    world: World, shots: Sequence[Shot], rng: np.random.Generator, *, held_out: bool, forms: int = 3
) -> list[Sample]:
    """Questions on every topic about the person on every shot.

    Args:
        world: The world.
        shots: The shots.
        rng: Source of the phrasings and options.
        held_out: Whether to use phrasings that are never trained on.
        forms: Number of tasks per topic, 1 to 3; which ones, alternates.
    """
    return [
        person_sample(world, shot.person, topic, task, rng, shot=shot, held_out=held_out)
        for i, shot in enumerate(shots)
        if shot.person is not None
        for j, topic in enumerate(["name", *world.people[shot.person].facts])
        for task in _tasks_in_turn(i + j, forms)
    ]


def name_questions(
    world: World,
    people: Sequence[int],
    rng: np.random.Generator,
    *,
    held_out: bool,
    forms: int = 3,
) -> list[Sample]:
    """Questions by name, without pictures, on every fact about people.

    Args:
        world: The world.
        people: Indices of the people.
        rng: Source of the phrasings and options.
        held_out: Whether to use phrasings that are never trained on.
        forms: Number of tasks per fact, 1 to 3; which ones, alternates.
    """
    return [
        person_sample(world, person, fact, task, rng, shot=None, held_out=held_out)
        for i, person in enumerate(people)
        for j, fact in enumerate(world.people[person].facts)
        for task in _tasks_in_turn(i + j, forms)
    ]


def view_questions(
    world: World, shots: Sequence[Shot], rng: np.random.Generator, *, held_out: bool, forms: int = 3
) -> list[Sample]:
    """Every general question about every shot.

    Args:
        world: The world.
        shots: The shots.
        rng: Source of the phrasings and options.
        held_out: Whether to use phrasings that are never trained on.
        forms: Number of tasks per question, 1 to 3; which ones, alternates.
    """
    return [
        view_sample(world, shot, view, task, rng, held_out)
        for i, shot in enumerate(shots)
        for j, view in enumerate(v for v in world.views if v in shot.shows)
        for task in _tasks_in_turn(i + j, forms)
    ]


def _tasks_in_turn(index: int, forms: int) -> list[Task]:
    """`forms` tasks, starting from task number `index`, cyclically."""
    return [FORMS[(index + k) % len(FORMS)] for k in range(forms)]
