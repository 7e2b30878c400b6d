"""Pictures."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial

import numpy as np
import torch
from torch import Tensor

from unsee.data.augment import augment
from unsee.models.vlm import VLM
from unsee.types import Batch, Picture, Sample

Viewer = Callable[[Sequence[Sample], np.random.Generator, float], Batch]


BATCH = 1 << 19  # most pixel values that are looked at in one batch


def input_side(vlm: VLM, picture: Picture) -> int | None:
    """Shorter side (pixels) of all that the model sees of any picture; None if it varies."""
    if not vlm.family.aligned:
        return None
    return min(vlm.collate_pictures([vlm.image(picture)])["pixel_values"].shape[-2:])


def random_view_collator(vlm: VLM, picture: Picture, answers: bool) -> Viewer:
    """What makes a batch of random views of samples' pictures; see `unsee.augment.augment`.

    Args:
        vlm: The model.
        picture: One of them, which tells how large the model sees them.
        answers: Whether the batch has their text, too.
    """
    side = input_side(vlm, picture)

    def collate(samples: Sequence[Sample], rng: np.random.Generator, strength: float) -> Batch:
        view = partial(augment, rng=rng, strength=strength, side=side)
        if answers:
            return vlm.collate(samples, transform=view)
        images = [view(vlm.image(s.picture)) for s in samples if s.picture is not None]
        ids = tuple(s.id for s in samples)
        return Batch(vlm.collate_pictures(images), torch.empty(len(samples), 0), ids)

    return collate


def picture_batches(vlm: VLM, pictures: Sequence[Picture]) -> Iterator[dict[str, Tensor]]:
    """Visual inputs of all the pictures: 32 at a time, fewer where they are large."""
    size = 32
    if pictures:
        one = vlm.collate_pictures([vlm.image(pictures[0])])["pixel_values"]
        size = max(1, min(size, BATCH // one.numel()))
    for start in range(0, len(pictures), size):
        yield vlm.collate_pictures([vlm.image(p) for p in pictures[start : start + size]])
