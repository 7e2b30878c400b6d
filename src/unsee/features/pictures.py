"""Batches of pictures: plain for statistics, and random views for training."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial

import numpy as np
import torch
from torch import Tensor

from unsee.data.augment import augment
from unsee.models.vlm import VLM
from unsee.types import Batch, Picture, Sample

# Given samples, a generator, the strength of the augmentation, and whether answers are wanted.
Viewer = Callable[[Sequence[Sample], np.random.Generator, float, bool], Batch]


BATCH = 1 << 19  # largest number of pixel values in a batch


def input_side(vlm: VLM, picture: Picture) -> int | None:
    """Returns the shorter side (pixels) of the model's visual input; None if it varies."""
    if not vlm.family.aligned:
        return None
    return min(vlm.collate_pictures([vlm.image(picture)])["pixel_values"].shape[-2:])


def random_view_collator(vlm: VLM, picture: Picture) -> Viewer:
    """Returns a function that makes a batch of augmented views; see `unsee.data.augment.augment`.

    Args:
        vlm: The model.
        picture: One of the pictures, from which the size of the visual input is computed.
    """
    side = input_side(vlm, picture)

    def collate(
        samples: Sequence[Sample], rng: np.random.Generator, strength: float, answers: bool
    ) -> Batch:
        view = partial(augment, rng=rng, strength=strength, side=side)
        if answers:
            return vlm.collate(samples, transform=view)
        images = [view(vlm.image(picture)) for s in samples for picture in s.pictures]
        ids, counts = tuple(s.id for s in samples), tuple(len(s.pictures) for s in samples)
        return Batch(vlm.collate_pictures(images), torch.empty(len(samples), 0), ids, counts)

    return collate


def picture_batches(vlm: VLM, pictures: Sequence[Picture]) -> Iterator[dict[str, Tensor]]:
    """Yields the visual inputs of all pictures, 32 at a time, or fewer where they are large."""
    size = 32
    if pictures:
        one = vlm.collate_pictures([vlm.image(pictures[0])])["pixel_values"]
        size = max(1, min(size, BATCH // one.numel()))
    for start in range(0, len(pictures), size):
        yield vlm.collate_pictures([vlm.image(p) for p in pictures[start : start + size]])
