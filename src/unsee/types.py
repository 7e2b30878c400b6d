"""The data that flows through the package: pictures, samples, batches, estimates."""

from __future__ import annotations

import hashlib
import io
import struct
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from PIL import Image, ImageOps, UnidentifiedImageError

from unsee.errors import DataError, ModelError

if TYPE_CHECKING:
    from jaxtyping import Int
    from torch import Tensor


Part = Literal["visual", "encoder", "projector", "language", "all"]

# How an answer is scored: "ranking" by which of `choices` is likeliest; "unsafe" should be refused
# and "harmless" should not.
Task = Literal["generation", "cloze", "classification", "caption", "ranking", "unsafe", "harmless"]
Better = Literal["lower", "higher", "reference"]

# A picture of more pixels than this is refused: decoding it could exhaust the memory.
MAX_PIXELS = 64_000_000

# What Pillow's decoders are known to raise on damaged files.
_DECODING = (UnidentifiedImageError, OSError, SyntaxError, ValueError, EOFError, struct.error)


@dataclass(frozen=True)
class Picture:
    """A picture by reference: a file, or encoded bytes from a table; decoded when opened.

    Attributes:
        source: What messages and records call it, such as "photos/anna/1.jpg" or "set.parquet#3".
        path: The file, if it is one.
        data: The encoded bytes, if there is no file.
    """

    source: str
    path: Path | None = None
    data: bytes | None = field(default=None, repr=False)

    @classmethod
    def from_path(cls, path: Path | str) -> Picture:
        """A picture in a file."""
        return cls(source=str(path), path=Path(path))

    def open(self) -> Image.Image:
        """Decodes the picture, upright and in RGB.

        Raises:
            DataError: If it is missing, not a picture, truncated, or over `MAX_PIXELS`.
        """
        try:
            handle = io.BytesIO(self.data) if self.data is not None else self.path
            if handle is None:
                raise DataError(f"picture {self.source}: neither a file nor bytes were given.")
            with warnings.catch_warnings():
                # A broken tag beside whole pixels is no reason to refuse or to alarm.
                warnings.simplefilter("ignore", UserWarning)
                warnings.simplefilter("error", Image.DecompressionBombWarning)
                with Image.open(handle) as image:
                    width, height = image.size
                    if width * height > MAX_PIXELS:
                        raise DataError(self._bomb(f"{width} x {height}"))
                    upright = ImageOps.exif_transpose(image)
                    if upright.mode.startswith("I"):
                        # 16 bits a pixel, which `convert` would clip to white.
                        upright = upright.convert("I").point(lambda value: value / 256)
                    return upright.convert("L" if upright.mode == "I" else "RGB").convert("RGB")
        except FileNotFoundError as error:
            raise DataError(
                f"picture {self.source}: no such file. Check the path, or drop the row."
            ) from error
        except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
            raise DataError(self._bomb("too many")) from error
        except _DECODING as error:
            raise DataError(
                f"picture {self.source}: cannot be decoded ({error}). "
                "Replace it with a readable JPEG, PNG, WebP or PGM, or remove it."
            ) from error

    def _bomb(self, size: str) -> str:
        return (
            f"picture {self.source}: {size} pixels; at most {MAX_PIXELS:,} are decoded "
            "(a guard against decompression bombs). Scale it down, or remove it."
        )

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the decoded pixels and their size: equal for equal pictures in any format."""
        image = self.open()
        return hashlib.sha256(repr(image.size).encode() + image.tobytes()).hexdigest()


@dataclass(frozen=True)
class Sample:
    """A question with its true answer, about a picture or, without one, by name.

    Example:
        `Sample("p3/1", "What is the job of this person?", "Ada Berg works as a baker.", picture)`

    Attributes:
        id: Unique within its split.
        question: The user's whole turn, options and instructions included.
        answer: The whole true answer.
        picture: None makes it a text-only sample.
        concept: Who or what it is about; what bootstrap intervals resample.
        choices: The options of a classification, in order A, B, ...
        task: How the answer is scored.
        further: Pictures shown after `picture`, in the same question.
        keywords: What a right answer must contain.
        paraphrases: Other wordings of the true answer.
        perturbed: False answers worded like the true one.
        group: Samples of one group ask for one and the same fact: in another modality, or in other
            words.
        prefill: How the model's own turn begins; it goes on from there, and `answer` is the rest.
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

    @property
    def pictures(self) -> tuple[Picture, ...]:
        """Everything shown, in order."""
        return () if self.picture is None else (self.picture, *self.further)

    @property
    def turn(self) -> str:
        """The model's whole turn as it should be."""
        return " ".join(part for part in (self.prefill, self.answer) if part)

    @property
    def modality(self) -> Literal["vqa", "text"]:
        """What the question rests on: "vqa" with a picture, "text" without."""
        return "text" if self.picture is None else "vqa"


@dataclass(frozen=True)
class Batch:
    """Samples ready for a model.

    Attributes:
        inputs: Passed whole, `model(**inputs)`, so that no model's extra tensors are dropped.
        labels: Token ids on the answer, -100 on prompt, image tokens and padding.
        ids: The samples' ids, in row order.
        pictures: How many pictures each row shows.
    """

    inputs: dict[str, Tensor]
    labels: Int[Tensor, "batch seq"]
    ids: tuple[str, ...] = ()
    pictures: tuple[int, ...] = ()

    @property
    def picture_ids(self) -> tuple[str, ...]:
        """The id of the sample that each picture belongs to, picture by picture."""
        counts = self.pictures or (1,) * len(self.ids)
        return tuple(i for i, n in zip(self.ids, counts, strict=True) for _ in range(n))

    def __len__(self) -> int:
        """Number of rows."""
        return int(self.labels.shape[0])


@dataclass(frozen=True)
class Estimate:
    """A mean score with its 95 % bootstrap interval over concepts.

    Attributes:
        value: The mean over the scored samples; None if none was scored.
        low: Lower end of the interval.
        high: Upper end of the interval.
        n: Scored samples.
        n_unscored: Samples whose score was NaN.
        better: Which direction is good.
    """

    value: float | None
    low: float | None
    high: float | None
    n: int
    n_unscored: int
    better: Better


@dataclass(frozen=True)
class Data:
    """What a method may see: the samples to forget, those to keep, and strangers.

    Attributes:
        forget: Samples of the people to be forgotten. Their answers may be empty where only
            pictures are given.
        retain: Samples of everyone else, and general questions.
        strangers: Pictures of the same kind whose subject the model was never told about.
        text_only: Questions about the people to be forgotten by name alone, which forgetting a face
            leaves known. Only methods that say so read them.
        outside: Samples like the forget ones, about people whom no model was ever taught. No method
            sees them.
    """

    forget: Sequence[Sample]
    retain: Sequence[Sample]
    strangers: Sequence[Picture] = ()
    text_only: Sequence[Sample] = ()
    outside: Sequence[Sample] = ()

    @property
    def forget_by_name(self) -> list[Sample]:
        """What is asked about the people to be forgotten without a picture."""
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
    """Where the parts of a model are: prefixes of parameter names, disjoint and covering.

    Attributes:
        encoder: The vision encoder.
        projector: What turns its output into the tokens that the LLM reads.
        language: The LLM.
    """

    encoder: tuple[str, ...]
    projector: tuple[str, ...]
    language: tuple[str, ...]

    def prefixes(self, part: str) -> tuple[str, ...]:
        """The prefixes of a part; "visual" is encoder and projector, "all" is everything.

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
