"""Base class of published benchmarks: location, ratio, few-shot examples, splits and counts."""

from __future__ import annotations

import string
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

from unsee.benchmarks import Benchmark, ModelRole
from unsee.benchmarks.published_records import Files, Record, gather
from unsee.errors import ConfigError, DataError, UnknownNameError
from unsee.types import Data, Picture, Sample

__all__ = [
    "FOUR",
    "LETTERS",
    "Files",
    "Published",
    "Record",
    "flat_attributes",
    "format_options",
    "gather",
    "read_keywords",
    "read_options",
]

LETTERS = tuple(string.ascii_uppercase)

# Those of a classification question, where the data has an object of options.
FOUR = LETTERS[:4]


class Published(Benchmark):
    """Base class of a published data set that is read from its files.

    Attributes:
        published_shots: The number of people whose questions are few-shot examples in the published
            prompts, by task; {} if there are none.
        concept_kind: Key under which a record states the number of concepts, such as "people".
    """

    attacked: ClassVar[str] = "train_forget"
    published_shots: ClassVar[Mapping[str, int]] = {}
    concept_kind: ClassVar[str] = "people"

    def __init__(self, files: Files, ratio: str | None, shots: int | None) -> None:
        """Stores arguments that `open` has validated."""
        self.files, self.ratio, self.shots = files, ratio, shots
        self.picture_cache: dict[str, Picture] = {}
        self._loaded: dict[str, list[Sample]] = {}

    @classmethod
    def open(
        cls, location: str | Path | None = None, ratio: str | None = None, shots: int | None = None
    ) -> Published:
        """Opens the data set at a location.

        Args:
            location: A local folder of the published files, or a hub id; None is `hub`.
            ratio: One of `ratios`; None is the first.
            shots: People whose questions are examples; None is `published_shots`.

        Raises:
            ConfigError: If the ratio is not published, the number of examples is not allowed, or
                there is no location and no hub id.
            DataError: If the location is neither a folder nor a hub id.
        """
        if location is None and not cls.hub:
            raise ConfigError(
                f"{cls.name} is not on a hub. Give its folder, such as {cls.name}@DIR."
            )
        if ratio is not None and ratio not in cls.ratios:
            raise ConfigError(
                f"{cls.name}: ratio={ratio} is not published. Allowed: "
                f"{', '.join(cls.ratios) or 'none, leave it out'}."
            )
        if shots is not None and not cls.published_shots:
            raise ConfigError(f"{cls.name} has no few-shot prompts. Leave shots={shots} out.")
        if shots is not None and shots < 0:
            raise ConfigError(f"{cls.name}: shots={shots} is not allowed; 0 or more examples are.")
        return cls(
            Files(location or cls.hub, cls.name),
            ratio or (cls.ratios[0] if cls.ratios else None),
            shots,
        )

    @property
    def example_people(self) -> dict[str, int]:
        """The number of people whose questions are few-shot examples, by task."""
        shots = self.shots
        return {t: n if shots is None else shots for t, n in self.published_shots.items()}

    def split_loaders(self) -> Mapping[str, Callable[[], list[Sample]]]:
        """A function for each reported split that reads its samples."""
        raise NotImplementedError

    def train_split(self, forget: bool) -> list[Sample]:
        """The training samples about what is to be forgotten, or about everything else."""
        raise NotImplementedError

    def load(self, split: str) -> list[Sample]:
        """The samples of a reported split, or of "train_forget" or "train_retain".

        Raises:
            UnknownNameError: If there is no such split.
            DataError: If its files are missing or broken, or it has no samples.
        """
        loaders: dict[str, Callable[[], list[Sample]]] = {
            **self.split_loaders(),
            "train_forget": lambda: self.train_split(True),
            "train_retain": lambda: self.train_split(False),
        }
        if split not in loaders:
            raise UnknownNameError(f"{self.name} split", split, loaders)
        if split not in self._loaded:
            self._loaded[split] = loaders[split]()
            if not self._loaded[split]:
                raise DataError(f"{self.name}: split {split} of {self.files.location} is empty.")
        return self._loaded[split]

    def data(self) -> Data:
        """The data that a method may use: the published target model's training samples."""
        return Data(self.load("train_forget"), self.load("train_retain"))

    def training_samples(self, who: ModelRole) -> list[Sample]:
        """The training samples of a model; see `Benchmark.training_samples`."""
        samples = list(self.load("train_retain"))
        if who == "target":
            samples += self.load("train_forget")
        if who == "visual_retain":
            samples += self.text_only()
        return samples

    def text_only(self) -> list[Sample]:
        """The training samples about the forgotten concepts that have no picture."""
        return [s for s in self.load("train_forget") if s.picture is None]

    def metadata(self) -> dict[str, Any]:
        """Name, location, settings and counts, for a record."""
        return {
            "name": self.name,
            "location": self.files.location,
            **({"commit": commit} if (commit := self.files.commit) is not None else {}),
            "ratio": self.ratio,
            "shots": self.shots,
            **({"example_people": self.example_people} if self.published_shots else {}),
            **self._counts,
        }

    @cached_property
    def _counts(self) -> dict[str, int]:
        data = self.data()
        forgotten = {s.concept for s in data.forget if s.concept}
        people = forgotten | {s.concept for s in data.retain if s.concept}
        pictures = len(data.forget_pictures) + len(data.retain_pictures)
        return {self.concept_kind: len(people), "forgotten": len(forgotten), "pictures": pictures}


def read_options(record: Record, field: str) -> tuple[str, ...]:
    """The options A to D of a classification question, in order."""
    options = record.nested(field)
    return tuple(options.text(letter) for letter in FOUR)


def read_keywords(record: Record, field: str = "keywords") -> tuple[str, ...]:
    """The texts of a JSON list or of an object's values, at any depth; () if there are none.

    Args:
        record: A row.
        field: Its field, as JSON text or parsed already.
    """
    value = record.values.get(field)
    if not value:
        return ()
    parsed = record.parsed(field).values if isinstance(value, str) else value
    return tuple(_texts(record, field, parsed))


def _texts(record: Record, field: str, value: Any) -> Iterator[str]:
    """The texts in a parsed JSON value, depth first."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, (Mapping, list)):
        for inner in value.values() if isinstance(value, Mapping) else value:
            yield from _texts(record, field, inner)
    elif value is not None:
        raise record.error(field, f"holds {value!r}; it must hold texts.")


def format_options(choices: Sequence[str]) -> str:
    """The options as lines of a prompt, such as "A: baker"."""
    return "\n".join(f"{x}: {c}" for x, c in zip(LETTERS, choices, strict=False))


def flat_attributes(fields: Mapping[str, Any], leave_out: Iterable[str] = ()) -> dict[str, str]:
    """The fields that hold a text or a number, as text.

    Args:
        fields: A person's fields.
        leave_out: Names of fields that are no attributes, such as the name.

    Example:
        >>> flat_attributes({"name": "Ada", "gender": "f", "age": 30, "mail": []}, ["name"])
        {'gender': 'f', 'age': '30'}
    """
    ignored = {name.casefold() for name in leave_out}
    return {
        name: str(value).strip()
        for name, value in fields.items()
        if isinstance(value, str | int | float)
        and not isinstance(value, bool)
        and name.casefold() not in ignored
        and str(value).strip()
    }
