"""A model before and after visual patches, asked one question about one picture at a time."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path

import torch

from unsee.artifacts.patch import apply_in_memory
from unsee.attacks.probe import picture_states
from unsee.errors import ConfigError, DataError
from unsee.evaluation.generation import answers
from unsee.losses import relative_squared_distance
from unsee.metrics import Fault
from unsee.models.dry_run import check_inputs
from unsee.models.vlm import VLM
from unsee.serving.gallery import Gallery, Neighbour
from unsee.types import Picture, Sample

# The features that the language model reads.
LAYER = "projector"

MAX_QUESTION = 2000  # characters
MAX_UPLOAD = 20_000_000  # bytes of an encoded picture

_NUMBERS = count(1)


@dataclass(frozen=True)
class Side:
    """One model's side of a comparison.

    Attributes:
        answer: The greedy answer.
        fault: "empty", "cut" or "non_finite" where something is wrong with the answer.
        seconds: Wall-clock time of the answer (s).
        nearest: The nearest people of the gallery, nearest first; empty without a gallery.
    """

    answer: str
    fault: Fault | None
    seconds: float
    nearest: tuple[Neighbour, ...] = ()


@dataclass(frozen=True)
class SideBySide:
    """The answers to one question before and after the patches.

    Attributes:
        before: The model as it was loaded.
        after: The model with the patches; None without any.
        shift: Squared change of the picture's mean visual token, over its squared length before.
    """

    before: Side
    after: Side | None = None
    shift: float | None = None


class Comparer:
    """A model, the same with patches if there are any, and a gallery of known people."""

    def __init__(
        self,
        vlm: VLM,
        patches: Sequence[Path] = (),
        gallery: Sequence[Sample] | None = None,
        max_new_tokens: int = 128,
        on_picture: Callable[[int, int], None] | None = None,
    ) -> None:
        """Applies the patches to a copy that shares all weights but the visual ones.

        Args:
            vlm: The model.
            patches: Visual patches, applied in this order.
            gallery: Samples of known people; None shows no nearest people.
            max_new_tokens: Longest answer (tokens).
            on_picture: Called with the number of gallery pictures read, and of all.

        Raises:
            PatchError: If a patch is damaged or belongs to another base.
            DataError: If the gallery has fewer than two people with pictures.
        """
        self.before, self.after = vlm, None
        self._limit = max_new_tokens
        if patches:
            self.after = vlm.frozen_visual_copy()
            apply_in_memory(patches, self.after)
        self.gallery = None if gallery is None else Gallery(vlm, gallery, LAYER, on_picture)

    def ask(self, picture: bytes, question: str) -> SideBySide:
        """Asks both models.

        Args:
            picture: The encoded picture (JPEG, PNG, ...).
            question: The question.

        Raises:
            ConfigError: If the question is empty or too long.
            DataError: If the picture cannot be decoded, or the model cannot take picture and
                question.
        """
        question = checked_question(question)
        if not picture:
            raise DataError("no picture was given. Choose one, or drop it on the page.")
        # Models keep small decoded pictures by their name, so each upload has its own.
        shown = Picture(f"that was uploaded ({next(_NUMBERS)})", data=picture)
        sample = Sample("question", question, "", shown)
        try:
            with torch.inference_mode():
                check_inputs(self.before, [sample])
                return self._ask(sample)
        except DataError as error:
            raise DataError(str(error).replace(shown.source, "that was uploaded")) from error
        finally:
            for vlm in (self.before, self.after):
                if vlm is not None:
                    vlm.drop(shown)

    def _ask(self, sample: Sample) -> SideBySide:
        before, state = self._side(self.before, sample)
        if self.after is None:
            return SideBySide(before)
        after, moved = self._side(self.after, sample)
        return SideBySide(before, after, float(relative_squared_distance(moved, state)))

    def _side(self, vlm: VLM, sample: Sample) -> tuple[Side, torch.Tensor]:
        started = time.perf_counter()
        (answer,) = answers(vlm, [sample], score_answers=False, max_new_tokens=self._limit)
        seconds = time.perf_counter() - started
        state = picture_states(vlm, [sample], [LAYER])[LAYER]
        nearest = () if self.gallery is None else self.gallery.nearest(state)
        return Side(answer.text, answer.fault, seconds, nearest), torch.from_numpy(state)


def checked_question(question: str) -> str:
    """The question without surrounding spaces.

    Raises:
        ConfigError: If it is empty or too long.
    """
    question = question.strip()
    if not question:
        raise ConfigError("the question is empty. Type one, such as: Who is this person?")
    if len(question) > MAX_QUESTION:
        raise ConfigError(
            f"the question has {len(question):,} characters; at most {MAX_QUESTION:,} are asked. "
            "Shorten it."
        )
    return question
