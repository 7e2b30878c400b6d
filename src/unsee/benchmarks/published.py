"""What published benchmarks share: a place, a ratio, few-shot examples, splits and counts."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

from unsee.benchmarks import Benchmark, ModelRole
from unsee.benchmarks.published_records import Files, Record, gather
from unsee.errors import ConfigError, DataError, UnknownNameError
from unsee.types import Data, Picture, Sample

__all__ = ["LETTERS", "Files", "Published", "Record", "gather", "lettered", "letters"]

LETTERS = ("A", "B", "C", "D")


class Published(Benchmark):
    """A published data set that is read from its files.

    Attributes:
        published_shots: Few-shot examples before a question; None where there never are any.
        about: What its concepts are, as a record counts them.
    """

    attacked: ClassVar[str] = "train_forget"
    published_shots: ClassVar[int | None] = None
    about: ClassVar[str] = "people"

    def __init__(self, files: Files, ratio: str | None, shots: int | None) -> None:
        """Keeps what `open` has checked."""
        self.files, self.ratio, self.shots = files, ratio, shots
        self.known: dict[str, Picture] = {}
        self._loaded: dict[str, list[Sample]] = {}

    @classmethod
    def open(
        cls, location: str | Path | None = None, ratio: str | None = None, shots: int | None = None
    ) -> Published:
        """The data set at a place.

        Raises:
            ConfigError: If the ratio or the number of examples is not a published one.
            DataError: If the place is neither a folder nor a hub id.
        """
        if location is None and not cls.hub:
            raise ConfigError(f"{cls.name}: where is it? It is on no hub: give its folder.")
        if ratio is not None and ratio not in cls.ratios:
            raise ConfigError(
                f"{cls.name}: ratio={ratio} is not published. Allowed: "
                f"{', '.join(cls.ratios) or 'none, leave it out'}."
            )
        if shots is not None and cls.published_shots is None:
            raise ConfigError(f"{cls.name} has no few-shot prompts. Leave shots={shots} out.")
        if shots is not None and shots < 0:
            raise ConfigError(f"{cls.name}: shots={shots} is not allowed; 0 or more examples are.")
        return cls(
            Files(location or cls.hub, cls.name),
            ratio or (cls.ratios[0] if cls.ratios else None),
            cls.published_shots if shots is None else shots,
        )

    def makers(self) -> Mapping[str, Callable[[], list[Sample]]]:
        """What makes each reported split."""
        raise NotImplementedError

    def taught(self, forget: bool) -> list[Sample]:
        """What was trained on: of what is to be forgotten, or of everything else."""
        raise NotImplementedError

    def load(self, split: str) -> list[Sample]:
        """The samples of a reported split, or of train_forget and train_retain."""
        makers: dict[str, Callable[[], list[Sample]]] = {
            **self.makers(),
            "train_forget": lambda: self.taught(True),
            "train_retain": lambda: self.taught(False),
        }
        if split not in makers:
            raise UnknownNameError(f"{self.name} split", split, makers)
        if split not in self._loaded:
            self._loaded[split] = makers[split]()
            if not self._loaded[split]:
                raise DataError(f"{self.name}: split {split} of {self.files.location} is empty.")
        return self._loaded[split]

    def data(self) -> Data:
        """What a method may see: what the published target model was trained on."""
        return Data(self.load("train_forget"), self.load("train_retain"))

    def training_samples(self, who: ModelRole) -> list[Sample]:
        """What a model was trained on; see `Benchmark.training_samples`."""
        known = list(self.load("train_retain"))
        if who == "target":
            known += self.load("train_forget")
        if who == "visual_retain":
            known += self.text_only()
        return known

    def text_only(self) -> list[Sample]:
        """What was taught of the forgotten in text alone."""
        return [s for s in self.load("train_forget") if s.picture is None]

    def metadata(self) -> dict[str, Any]:
        """Name, place, settings and counts, as a record holds them."""
        return {
            "name": self.name,
            "location": self.files.location,
            "ratio": self.ratio,
            "shots": self.shots,
            **self._counts,
        }

    @cached_property
    def _counts(self) -> dict[str, int]:
        data = self.data()
        forgotten = {s.concept for s in data.forget if s.concept}
        people = forgotten | {s.concept for s in data.retain if s.concept}
        pictures = len(data.forget_pictures) + len(data.retain_pictures)
        return {self.about: len(people), "forgotten": len(forgotten), "pictures": pictures}


def letters(record: Record, field: str) -> tuple[str, ...]:
    """The options A to D of a choice, in order."""
    options = record.inside(field)
    return tuple(options.text(letter) for letter in LETTERS)


def lettered(choices: Sequence[str]) -> str:
    """Options on lines, such as "A: baker"."""
    return "\n".join(f"{x}: {c}" for x, c in zip(LETTERS, choices, strict=False))
