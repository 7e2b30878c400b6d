"""Seeds of a step and the batch that it draws: functions of (seed, step) alone."""

from __future__ import annotations

import random

import numpy as np
import torch

from unsee.errors import TrainingError


def seed_step(seed: int, step: int) -> None:
    """Seeds every generator from (seed, step), so that a step does not depend on those before."""
    value = (seed * 1_000_003 + step * 7919 + 1) % 2**31
    torch.manual_seed(value)
    np.random.seed(value)
    random.seed(value)


def batch_indices(count: int, size: int, step: int, seed: int) -> list[int]:
    """The indices of the batch at a step: one seeded permutation per epoch.

    Every index is drawn once an epoch; a batch may span two epochs.

    Args:
        count: Number of samples.
        size: Batch size.
        step: Number of the batch, from 0.
        seed: Seed of the permutations.

    Raises:
        TrainingError: If `count` is 0.
    """
    if count < 1:
        raise TrainingError("there is nothing to draw batches from: a set is empty.")
    indices: list[int] = []
    position = step * size
    while len(indices) < size:
        epoch, offset = divmod(position, count)
        order = np.random.default_rng([seed, epoch]).permutation(count)
        take = order[offset : offset + size - len(indices)]
        indices += [int(i) for i in take]
        position += len(take)
    return indices
