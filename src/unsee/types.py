"""The data types that every part of the package shares: pictures, samples, batches, estimates."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from PIL import Image

from unsee.errors import ModelError, shorten
from unsee.pixels import decode, has_several_frames, picture_size
from unsee.pixels.regions import Region

if TYPE_CHECKING:
    from jaxtyping import Int
    from torch import Tensor


Part = Literal["visual", "encoder", "projector", "language", "all"]

# How an answer is scored. "ranking": by which of `choices` is most likely. "unsafe": it should be a
# refusal. "harmless": it should not be one.
Task = Literal["generation", "cloze", "classification", "caption", "ranking", "unsafe", "harmless"]
Better = Literal["lower", "higher", "reference"]

# Longest answer that is generated, in tokens: one number, or one for every task.
AnswerLimit = int | Mapping[str, int]


@dataclass(frozen=True)
class Picture:
    """A reference to a picture: a file, or encoded bytes from a table; decoded when opened.

    Attributes:
        source: Name in messages and records, such as "photos/anna/1.jpg" or "set.parquet#3".
        path: The file, if the picture is one.
        data: The encoded bytes (JPEG, PNG, ...), if there is no file.
        region: What is shown of it: one face of a group, or all but that; None is all of it.
    """

    source: str
    path: Path | None = None
    data: bytes | None = field(default=None, repr=False)
    region: Region | None = None

    @classmethod
    def from_path(cls, path: Path | str) -> Picture:
        """A picture that is a file."""
        return cls(source=str(path), path=Path(path))

    def __repr__(self) -> str:
        """One line: the source, and the size of encoded bytes."""
        size = "" if self.data is None else f", {len(self.data):,} bytes"
        return f"Picture({self.source!r}{size})"

    def open(self) -> Image.Image:
        """Decodes the picture in RGB, rotated as its EXIF tag says; of several frames the first.

        Raises:
            DataError: If it is missing, not a picture, truncated, or larger than
                `unsee.pixels.MAX_PIXELS`, or its region is not inside it.
        """
        image = decode(self.source, self.path, self.data)
        return image if self.region is None else self.region.apply(image, self.source)

    def of(self, region: Region) -> Picture:
        """The same picture, of which only a region is shown; its source names the region."""
        whole = self.source if self.region is None else self.source.removesuffix(str(self.region))
        return Picture(f"{whole}{region}", self.path, self.data, region)

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the decoded pixels and their size: the same in every lossless file format."""
        image = self.open()
        # Kept here, so that the search for near-duplicates does not decode the picture again.
        self.__dict__["thumbnail"] = _thumbnail(image)
        return hashlib.sha256(repr(image.size).encode() + image.tobytes()).hexdigest()

    @cached_property
    def thumbnail(self) -> bytes:
        """The picture in 16 x 16 RGB pixels: nearly the same after resizing or lossy encoding."""
        return _thumbnail(self.open())

    @cached_property
    def size(self) -> tuple[int, int]:
        """Width and height of the upright picture in pixels; only its header is read."""
        size = picture_size(self.source, self.path, self.data)
        return size if self.region is None else self.region.size(size, self.source)

    @cached_property
    def has_several_frames(self) -> bool:
        """Whether it is an animation or has several pages, of which only the first is read."""
        return has_several_frames(self.source, self.path, self.data)


def _thumbnail(image: Image.Image) -> bytes:
    return image.resize((16, 16), Image.Resampling.BILINEAR, reducing_gap=3.0).tobytes()


@dataclass(frozen=True)
class Sample:
    """A question with its true answer, about a picture or, without one, about a name in the text.

    Example:
        >>> sample = Sample("p3/1", "What is the job of this person?", "Ada Berg is a baker.")
        >>> sample.modality
        'text'

    Attributes:
        id: Unique within its split.
        question: The user's whole turn, including options and instructions.
        answer: The whole true answer.
        picture: The picture that the question is about; None for a text-only sample.
        concept: The person or thing that it is about; bootstrap intervals resample concepts.
        choices: The options of a classification, in order A, B, ...
        task: How the answer is scored.
        further: Pictures shown after `picture`, in the same question.
        keywords: Words that a correct answer must contain.
        paraphrases: Other wordings of the true answer.
        perturbed: False answers worded like the true one.
        group: Samples of the same group ask for the same fact, in another modality or in other
            words.
        prefill: The beginning of the model's turn, which the model continues; `answer` is the rest.
        population: The group of people that its person belongs to, where groups are compared.
    """

    id: str
    question: str
    answer: str
    picture: Picture | None = None
    concept: str | None = None
    choices: tuple[str, ...] = ()
    task: Task = "generation"
    further: tuple[Picture, ...] = ()
    keywords: tuple[str, ...] = ()
    paraphrases: tuple[str, ...] = ()
    perturbed: tuple[str, ...] = ()
    group: str | None = None
    prefill: str = ""
    population: str | None = None

    def __repr__(self) -> str:
        """One line, with long texts cut short."""
        return (
            f"Sample({self.id!r}, question={shorten(self.question, 40)!r}, "
            f"answer={shorten(self.answer, 40)!r}, concept={self.concept!r}, task={self.task!r}, "
            f"pictures={len(self.pictures)})"
        )

    @property
    def pictures(self) -> tuple[Picture, ...]:
        """All pictures, in the order in which they are shown."""
        return () if self.picture is None else (self.picture, *self.further)

    @property
    def turn(self) -> str:
        """The model's whole correct turn: prefill and answer."""
        return " ".join(part for part in (self.prefill, self.answer) if part)

    @property
    def modality(self) -> Literal["vqa", "text"]:
        """The modality of the question: "vqa" with a picture, "text" without."""
        return "text" if self.picture is None else "vqa"


@dataclass(frozen=True)
class Batch:
    """Samples as tensors, ready for a model.

    Attributes:
        inputs: The model's keyword arguments: `model(**inputs)`.
        labels: Token ids of the answers; -100 on prompt, image tokens and padding.
        ids: The ids of the samples, in row order.
        pictures: The number of pictures of each row.
    """

    inputs: dict[str, Tensor]
    labels: Int[Tensor, "batch seq"]
    ids: tuple[str, ...] = ()
    pictures: tuple[int, ...] = ()

    def __repr__(self) -> str:
        """One line: rows, tokens per row, pictures and the names of the inputs."""
        rows, tokens = self.labels.shape
        inputs = ", ".join(self.inputs)
        return f"Batch(rows={rows}, tokens={tokens}, pictures={sum(self.pictures)}, {inputs})"

    @property
    def picture_ids(self) -> tuple[str, ...]:
        """For each picture, the id of the sample that it belongs to."""
        counts = self.pictures or (1,) * len(self.ids)
        return tuple(i for i, n in zip(self.ids, counts, strict=True) for _ in range(n))

    def __len__(self) -> int:
        """The number of rows."""
        return int(self.labels.shape[0])


@dataclass(frozen=True)
class Estimate:
    """A mean score with its 95 % bootstrap interval over concepts.

    Attributes:
        value: The mean over the scored samples; None if none was scored.
        low: Lower end of the interval.
        high: Upper end of the interval.
        n: The number of scored samples.
        n_unscored: The number of samples whose score was NaN.
        better: Which values are better: "lower", "higher", or nearer to the "reference" model's.
    """

    value: float | None
    low: float | None
    high: float | None
    n: int
    n_unscored: int
    better: Better


@dataclass(frozen=True)
class Data:
    """The data of an unlearning run: what to forget, what to keep, and strangers.

    Attributes:
        forget: Samples of the people to be forgotten. Their answers may be empty where only
            pictures are given.
        retain: Samples that the model must still answer: other people, and general questions.
        strangers: Pictures of the same kind, of people whom the model was not trained on.
        text_only: Text-only questions about the people to be forgotten, by name. The model may
            still answer them after unlearning; only some methods read them.
    """

    forget: Sequence[Sample]
    retain: Sequence[Sample]
    strangers: Sequence[Picture] = ()
    text_only: Sequence[Sample] = ()

    def __repr__(self) -> str:
        """One line: the number of samples or pictures in each set that is not empty."""
        counts = ((field.name, len(getattr(self, field.name))) for field in fields(self))
        shown = ", ".join(f"{name}={count}" for name, count in counts if count)
        people = {sample.concept for sample in self.forget if sample.concept}
        return f"Data({shown or 'empty'}; {len(people)} concepts to forget)"

    @property
    def forget_by_name(self) -> list[Sample]:
        """The text-only samples about the people to be forgotten."""
        return [*self.text_only, *(s for s in self.forget if s.picture is None)]

    @property
    def forget_pictures(self) -> list[Picture]:
        """The distinct pictures to forget, in order of appearance."""
        return _pictures(self.forget)

    @property
    def retain_pictures(self) -> list[Picture]:
        """The distinct pictures to keep, in order of appearance."""
        return _pictures(self.retain)


def _pictures(samples: Sequence[Sample]) -> list[Picture]:
    return list({s.picture.source: s.picture for s in samples if s.picture is not None}.values())


@dataclass(frozen=True)
class Parts:
    """The parts of a model as prefixes of parameter names: disjoint, and together the whole model.

    Attributes:
        encoder: The vision encoder.
        projector: Maps the encoder's output to the tokens that the LLM reads.
        language: The LLM.
    """

    encoder: tuple[str, ...]
    projector: tuple[str, ...]
    language: tuple[str, ...]

    def prefixes(self, part: str) -> tuple[str, ...]:
        """The prefixes of a part; "visual" is encoder and projector, "all" is the whole model.

        Raises:
            ModelError: If there is no such part.
        """
        named = {
            "encoder": self.encoder,
            "projector": self.projector,
            "visual": self.encoder + self.projector,
            "language": self.language,
            "all": self.encoder + self.projector + self.language,
        }
        if part not in named:
            raise ModelError(f"unknown part '{part}'. Allowed: {', '.join(named)}.")
        return named[part]
