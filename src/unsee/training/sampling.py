"""Which samples a step draws, and how its draws are seeded."""

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
    """The indices of the batch at a step: epoch after epoch of seeded permutations.

    A function of its arguments alone. Every index comes once an epoch; a batch may span two.
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
