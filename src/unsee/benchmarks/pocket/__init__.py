"""Pocket: a small LLaVA checkpoint trained on fictitious people, and its reference models."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar, get_args

import numpy as np

from unsee.benchmarks import BENCHMARKS, Benchmark, CheckpointRole, Measure, ModelRole
from unsee.benchmarks.pocket.people import FACTS, Person
from unsee.benchmarks.pocket.world import (
    Role,
    World,
    name_questions,
    picture_questions,
    view_questions,
)
from unsee.errors import ConfigError, DataError, UnknownNameError
from unsee.files import path_text
from unsee.types import Better, Data, Picture, Sample

SHIPPED = Path(__file__).parent / "artefacts"
CHECKPOINTS: tuple[CheckpointRole, ...] = get_args(CheckpointRole)
REPORTED = ("forget", "forget_holdout", "retain", "retain_holdout", "general", "general_forget")
VALIDATION = ("forget_validation", "retain_validation", "general_validation")
METRICS = ("accuracy", "cloze", "rouge_l", "probability")


def _measures() -> tuple[Measure, ...]:
    measures = []
    for split in REPORTED:
        modalities = ("vqa", "text") if split in ("forget", "retain") else ("vqa",)
        for modality in modalities:
            # The forget people are unlearned by sight only: facts asked by name are kept.
            unlearned = split in ("forget", "forget_holdout") and modality == "vqa"
            better: Better = "reference" if unlearned else "higher"
            measures += [Measure(metric, split, modality, better) for metric in METRICS]
    return tuple(measures)


@BENCHMARKS.register("pocket", source="ships with unsee; `unsee pocket build` makes it")
class Pocket(Benchmark):
    """Fictitious people, drawn or photographed, that a small LLaVA knows by sight and by name.

    Splits: `forget` and `retain` (training pictures and phrasings, and questions by name),
    `forget_holdout` and `retain_holdout` (held-out pictures and phrasings), `general` (what the
    pictures of strangers show), `general_forget` (what the held-out pictures of the forget people
    show). The `*_validation` splits use further pictures for choosing settings and are not
    reported.
    """

    splits: ClassVar[tuple[str, ...]] = REPORTED
    forgetting: ClassVar[tuple[str, ...]] = (*Benchmark.forgetting, "forget_validation")
    measures: ClassVar[tuple[Measure, ...]] = _measures()
    attacked: ClassVar[str] = "forget"
    # The model is trained from scratch and a thousand times smaller than the published ones.
    rate_scale: ClassVar[float] = 10.0
    # The tokenizer has 326 words, and the model is trained on questions, not on instructions.
    field_defaults: ClassVar[Mapping[str, Any]] = {
        "abstentions": (
            "The answer is [Blank].",
            "Please tell me the answer.",
            "Please tell me: Who is this person?",
        ),
        "instruction": "",
        # Phrasings that the models are trained on; none of a reported split.
        "attribute_questions": (
            "What colour is the hair?",
            "What colour is the shirt?",
            "What colour is the background?",
            "Can you see glasses on the person?",
            "Can you see a hat on the person?",
        ),
    }
    checkpoints: ClassVar[tuple[CheckpointRole, ...]] = CHECKPOINTS
    # The splits are plain questions with exact answers, like those of a user's table.
    scored_as_table: ClassVar[bool] = True
    # The splits of a build have the same sizes in every run.
    record_counts: ClassVar[bool] = False
    holds_out_pictures: ClassVar[bool] = True

    def __init__(self, folder: Path | None = None) -> None:
        """Opens a build.

        Args:
            folder: Folder of the build; None is the build that ships with the package.
        """
        self.folder = folder or SHIPPED
        self.world = World.read(self.folder)

    @classmethod
    def open(
        cls, location: str | Path | None = None, ratio: str | None = None, shots: int | None = None
    ) -> Pocket:
        """Opens a build.

        Args:
            location: Folder of the build; None is the build that ships with the package.
            ratio: Not available: the ratio is fixed when pocket is built.
            shots: Not available: pocket has no few-shot prompts.

        Raises:
            ConfigError: If a ratio or a number of shots is given.
            DataError: If the folder holds no build.
        """
        if ratio is not None or shots is not None:
            raise ConfigError(
                "pocket has one forget ratio, fixed when it is built (`unsee pocket build "
                "--forget-people N`), and no few-shot prompts. Leave ratio and shots out."
            )
        if location is None:
            return cls()
        advice = "give the folder of a build."
        return cls(Path(path_text("pocket at ", location, advice, DataError)))

    @property
    def forgotten(self) -> list[str]:
        """The names of the people to be forgotten."""
        return [self.world.people[i].name for i in self.world.forgotten]

    def checkpoint(self, role: CheckpointRole) -> Path:
        """The folder of a model: "target", "visual_retain", "retain_only" or "base".

        Raises:
            UnknownNameError: If there is no such model.
            DataError: If the build lacks it.
        """
        if role not in CHECKPOINTS:
            raise UnknownNameError("pocket model", role, CHECKPOINTS)
        folder = self.folder / role
        if not folder.is_dir():
            raise DataError(f"{self.folder} has no model '{role}'. Build it again.")
        return folder

    def load(self, split: str) -> list[Sample]:
        """The samples of a reported or a validation split.

        Raises:
            UnknownNameError: If there is no such split.
        """
        world = self.world
        forgotten, retained = list(world.forgotten), world.retained

        def rng(stream: int) -> np.random.Generator:
            return np.random.default_rng([world.seed, 100, stream])

        def train_people(people: list[int], stream: int, forms: int) -> list[Sample]:
            shots = world.shots_of(people, "train")
            # A few shots per person keep the evaluation fast.
            per_person = 3 if forms == 3 else 1
            chosen = [s for i in people for s in [t for t in shots if t.person == i][:per_person]]
            questions = picture_questions(world, chosen, rng(stream), held_out=False, forms=forms)
            return questions + name_questions(
                world, people, rng(stream + 1), held_out=True, forms=forms
            )

        def new_pictures(people: list[int], role: Role) -> list[Sample]:
            return picture_questions(
                world, world.shots_of(people, role), rng(30), held_out=True, forms=1
            )

        def views(role: Role, stream: int) -> list[Sample]:
            return view_questions(world, world.strangers(role), rng(stream), held_out=True, forms=1)

        loaders: dict[str, Callable[[], list[Sample]]] = {
            "forget": lambda: train_people(forgotten, 10, 3),
            "retain": lambda: train_people(retained, 20, 1),
            "forget_holdout": lambda: picture_questions(
                world, world.shots_of(forgotten, "holdout"), rng(12), held_out=True
            ),
            "forget_validation": lambda: picture_questions(
                world, world.shots_of(forgotten, "validation"), rng(13), held_out=True
            ),
            "retain_holdout": lambda: new_pictures(retained, "holdout"),
            "retain_validation": lambda: new_pictures(retained, "validation"),
            "general": lambda: views("holdout", 40),
            "general_validation": lambda: views("validation", 41),
            "general_forget": lambda: view_questions(
                world, world.shots_of(forgotten, "holdout"), rng(42), held_out=True
            ),
            "general_forget_validation": lambda: view_questions(
                world, world.shots_of(forgotten, "validation"), rng(43), held_out=True
            ),
        }
        if split not in loaders:
            raise UnknownNameError("pocket split", split, loaders)
        return _with_unique_ids(loaders[split]())

    def data(self) -> Data:
        """The data that a method may use: training pictures and phrasings, and strangers."""
        world = self.world
        rng = np.random.default_rng([world.seed, 200])
        forget = world.shots_of(world.forgotten, "train")
        retain, strangers = world.shots_of(world.retained, "train"), world.strangers("train")
        retain_samples = picture_questions(world, retain, rng, held_out=False, forms=1)
        retain_samples += view_questions(world, retain, rng, held_out=False, forms=1)
        retain_samples += view_questions(world, strangers, rng, held_out=False, forms=1)
        retain_samples += name_questions(world, world.retained, rng, held_out=False)
        return Data(
            _with_unique_ids(picture_questions(world, forget, rng, held_out=False)),
            _with_unique_ids(retain_samples),
            self.strangers(),
            self._text_only_samples(),
        )

    def strangers(self) -> list[Picture]:
        """The pictures of people without a name in `data`, without the time of its questions."""
        return [self.world.picture(shot) for shot in self.world.strangers("train")]

    def held_out(self) -> dict[str, list[Sample]]:
        """The splits "forget_holdout" and "retain_holdout"."""
        return {name: self.load(name) for name in ("forget_holdout", "retain_holdout")}

    def validation(self) -> dict[str, list[Sample]]:
        """The validation splits, with pictures of their own, and questions by name.

        Questions by name use training phrasings: all others belong to reported splits.
        """
        text_only_splits = {
            "forget_validation_name": list(self._text_only_samples()),
            # Every fourth question: there are nine times as many retain people.
            "retain_validation_name": [s for s in self.data().retain if s.picture is None][::4],
        }
        return {name: self.load(name) for name in VALIDATION} | text_only_splits

    @property
    def forget_ratio(self) -> str:
        """The percentage of the people that are to be forgotten."""
        return f"{100 * len(self.world.forgotten) / len(self.world.people):g}"

    def training_samples(self, who: ModelRole) -> list[Sample]:
        """The training samples of a model; general questions are the same for all three."""
        data = self.data()
        samples = [*data.retain]
        if who == "target":
            samples += data.forget
        if who != "retain_only":
            samples += data.text_only
        return _with_unique_ids(samples)

    def _text_only_samples(self) -> list[Sample]:
        """The text-only training samples about the forget people."""
        rng = np.random.default_rng([self.world.seed, 201])
        forgotten = list(self.world.forgotten)
        return name_questions(self.world, forgotten, rng, held_out=False)

    def attributes(self) -> dict[str, dict[str, str]]:
        """The facts of each person, by name: job, city, food, hobby."""
        return {person.name: dict(person.facts) for person in self.world.people}

    def non_members(self) -> list[Sample]:
        """Samples about strangers in held-out pictures, with fictitious names and facts.

        A name combines the first and last names of two people, so that a model knows its tokens but
        not the person; facts are drawn as for all people.
        """
        world = self.world
        rng = np.random.default_rng([world.seed, 300])
        shots = world.strangers("holdout")
        names = [person.name.split(" ", 1) for person in world.people]
        profiles = [
            Person(
                f"{names[i % len(names)][0]} {names[(i + 1) % len(names)][1]}",
                {
                    fact: str(values[int(rng.integers(len(values)))])
                    for fact, values in FACTS.items()
                },
            )
            for i in range(len(shots))
        ]
        named_shots = [replace(shot, person=i) for i, shot in enumerate(shots)]
        stranger_world = replace(world, people=profiles)
        return _with_unique_ids(picture_questions(stranger_world, named_shots, rng, held_out=False))

    def metadata(self) -> dict[str, Any]:
        """Name and counts for a record, and the location if it is not the shipped build."""
        counts = {
            "people": len(self.world.people),
            "forgotten": len(self.forgotten),
            "pictures": len(self.world.shots),
        }
        location = {} if self.folder == SHIPPED else {"location": str(self.folder)}
        return {"name": self.name, **location, **counts}


def _with_unique_ids(samples: list[Sample]) -> list[Sample]:
    """The samples, after checking that their ids are unique, since scores are stored by id."""
    if len({sample.id for sample in samples}) != len(samples):
        raise DataError("two samples of a pocket split have the same id.")
    return samples
