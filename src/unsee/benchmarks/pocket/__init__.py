"""Pocket: a real LLaVA checkpoint, only small, that knows invented people; and its references."""

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
from unsee.types import Better, Data, Sample

SHIPPED = Path(__file__).parent / "artefacts"
CHECKPOINTS: tuple[CheckpointRole, ...] = get_args(CheckpointRole)
REPORTED = ("forget", "forget_holdout", "retain", "retain_holdout", "general", "general_forget")
VALIDATION = ("forget_validation", "retain_validation", "general_validation")
METRICS = ("accuracy", "cloze", "rouge_l", "probability")


def _measures() -> tuple[Measure, ...]:
    found = []
    for split in REPORTED:
        modalities = ("vqa", "text") if split in ("forget", "retain") else ("vqa",)
        for modality in modalities:
            # Who is forgotten by sight is still known by name.
            away = split in ("forget", "forget_holdout") and modality == "vqa"
            better: Better = "reference" if away else "higher"
            found += [Measure(metric, split, modality, better) for metric in METRICS]
    return tuple(found)


@BENCHMARKS.register("pocket", source="ships with unsee; `unsee pocket build` makes it")
class Pocket(Benchmark):
    """Invented people, drawn or photographed, whom a small real LLaVA knows by sight and by name.

    Splits: `forget` and `retain` (pictures and phrasings that were trained on, and questions by
    name), `forget_holdout` and `retain_holdout` (pictures and phrasings that never were),
    `general` (what a stranger's picture shows), `general_forget` (the same of the forgotten
    people's held-out pictures). The `*_validation` splits use yet other pictures, for choosing
    settings; they are not reported.
    """

    splits: ClassVar[tuple[str, ...]] = REPORTED
    measures: ClassVar[tuple[Measure, ...]] = _measures()
    attacked: ClassVar[str] = "forget"
    # Trained from scratch and a thousand times smaller than what the published rates are for.
    rate_scale: ClassVar[float] = 10.0
    # Its tokenizer has 326 words, and it was taught questions, no instructions.
    field_defaults: ClassVar[Mapping[str, Any]] = {
        "abstentions": (
            "The answer is [Blank].",
            "Please tell me the answer.",
            "Please tell me: Who is this person?",
        ),
        "instruction": "",
    }
    checkpoints: ClassVar[tuple[CheckpointRole, ...]] = CHECKPOINTS
    # Its splits are plain questions with exact answers, as a user's own are.
    scored_as_table: ClassVar[bool] = True
    # The splits of a build have the same sizes in every run.
    record_counts: ClassVar[bool] = False
    holds_out_pictures: ClassVar[bool] = True

    def __init__(self, folder: Path | None = None) -> None:
        """Opens a build; without a folder, the one that ships with the package."""
        self.folder = folder or SHIPPED
        self.world = World.read(self.folder)

    @classmethod
    def open(
        cls, location: str | Path | None = None, ratio: str | None = None, shots: int | None = None
    ) -> Pocket:
        """A build; without a folder, the one that ships with the package."""
        if ratio is not None or shots is not None:
            raise ConfigError(
                "pocket has one share to forget, fixed when it is built (`unsee pocket build "
                "--forget-people N`), and no few-shot prompts. Leave ratio and shots out."
            )
        return cls(Path(location) if location is not None else None)

    @property
    def forgotten(self) -> list[str]:
        """The names of the people to be forgotten."""
        return [self.world.people[i].name for i in self.world.forgotten]

    def checkpoint(self, role: CheckpointRole) -> Path:
        """The folder of a model: target, visual_retain, retain_only or base.

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
        """The samples of a reported or a validation split."""
        world = self.world
        forgotten, retained = list(world.forgotten), world.retained

        def rng(stream: int) -> np.random.Generator:
            return np.random.default_rng([world.seed, 100, stream])

        def people(who: list[int], stream: int, forms: int) -> list[Sample]:
            shots = world.shots_of(who, "train")
            # The first shots of everyone: enough to measure, few enough to be quick.
            per_person = 3 if forms == 3 else 1
            some = [s for i in who for s in [t for t in shots if t.person == i][:per_person]]
            asked = picture_questions(world, some, rng(stream), held_out=False, forms=forms)
            return asked + name_questions(world, who, rng(stream + 1), held_out=True, forms=forms)

        def unseen(who: list[int], role: Role) -> list[Sample]:
            return picture_questions(
                world, world.shots_of(who, role), rng(30), held_out=True, forms=1
            )

        def views(role: Role, stream: int) -> list[Sample]:
            return view_questions(world, world.strangers(role), rng(stream), held_out=True, forms=1)

        made: dict[str, Callable[[], list[Sample]]] = {
            "forget": lambda: people(forgotten, 10, 3),
            "retain": lambda: people(retained, 20, 1),
            "forget_holdout": lambda: picture_questions(
                world, world.shots_of(forgotten, "holdout"), rng(12), held_out=True
            ),
            "forget_validation": lambda: picture_questions(
                world, world.shots_of(forgotten, "validation"), rng(13), held_out=True
            ),
            "retain_holdout": lambda: unseen(retained, "holdout"),
            "retain_validation": lambda: unseen(retained, "validation"),
            "general": lambda: views("holdout", 40),
            "general_validation": lambda: views("validation", 41),
            "general_forget": lambda: view_questions(
                world, world.shots_of(forgotten, "holdout"), rng(42), held_out=True
            ),
            "general_forget_validation": lambda: view_questions(
                world, world.shots_of(forgotten, "validation"), rng(43), held_out=True
            ),
        }
        if split not in made:
            raise UnknownNameError("pocket split", split, made)
        return _numbered(made[split]())

    def data(self) -> Data:
        """What a method may see: trained-on pictures and phrasings, and strangers."""
        world = self.world
        rng = np.random.default_rng([world.seed, 200])
        forget = world.shots_of(world.forgotten, "train")
        retain, strangers = world.shots_of(world.retained, "train"), world.strangers("train")
        kept = picture_questions(world, retain, rng, held_out=False, forms=1)
        kept += view_questions(world, retain, rng, held_out=False, forms=1)
        kept += view_questions(world, strangers, rng, held_out=False, forms=1)
        kept += name_questions(world, world.retained, rng, held_out=False)
        return Data(
            _numbered(picture_questions(world, forget, rng, held_out=False)),
            _numbered(kept),
            [world.picture(shot) for shot in strangers],
            self._by_name(),
        )

    def held_out(self) -> dict[str, list[Sample]]:
        """The reported splits of held-out pictures."""
        return {name: self.load(name) for name in ("forget_holdout", "retain_holdout")}

    def validation(self) -> dict[str, list[Sample]]:
        """Pictures of their own; by name in the wordings that were taught: there are no others."""
        by_name = {
            "forget_validation_name": list(self._by_name()),
            # As many questions a person as suffice: there are nine times as many people.
            "retain_validation_name": [s for s in self.data().retain if s.picture is None][::4],
        }
        return {name: self.load(name) for name in VALIDATION} | by_name

    @property
    def forget_ratio(self) -> str:
        """The percentage of the people that is forgotten."""
        return f"{100 * len(self.world.forgotten) / len(self.world.people):g}"

    def training_samples(self, who: ModelRole) -> list[Sample]:
        """What a model was taught of the people; general questions are the same for all three."""
        data = self.data()
        known = [*data.retain]
        if who == "target":
            known += data.forget
        if who != "retain_only":
            known += data.text_only
        return _numbered(known)

    def _by_name(self) -> list[Sample]:
        """What was taught of the people to be forgotten in text alone."""
        rng = np.random.default_rng([self.world.seed, 201])
        forgotten = list(self.world.forgotten)
        return name_questions(self.world, forgotten, rng, held_out=False)

    def non_members(self) -> list[Sample]:
        """Held-out pictures of strangers, asked as the forgotten people are, with invented lives.

        Names are first and last names of other people put together anew, so that a model knows
        their tokens and not their bearers; facts are drawn as everyone's are.
        """
        world = self.world
        rng = np.random.default_rng([world.seed, 300])
        shots = world.strangers("holdout")
        split = [person.name.split(" ", 1) for person in world.people]
        lives = [
            Person(
                f"{split[i % len(split)][0]} {split[(i + 1) % len(split)][1]}",
                {
                    fact: str(values[int(rng.integers(len(values)))])
                    for fact, values in FACTS.items()
                },
            )
            for i in range(len(shots))
        ]
        theirs = [replace(shot, person=i) for i, shot in enumerate(shots)]
        made = replace(world, people=lives)
        return _numbered(picture_questions(made, theirs, rng, held_out=False))

    def metadata(self) -> dict[str, Any]:
        """Its name and counts, and where a build of one's own is."""
        counts = {
            "people": len(self.world.people),
            "forgotten": len(self.forgotten),
            "pictures": len(self.world.shots),
        }
        own = {} if self.folder == SHIPPED else {"location": str(self.folder)}
        return {"name": self.name, **own, **counts}


def _numbered(samples: list[Sample]) -> list[Sample]:
    """Refuses two samples of one id: scores are filed under it."""
    if len({sample.id for sample in samples}) != len(samples):
        raise DataError("two samples of a pocket split have the same id.")
    return samples
