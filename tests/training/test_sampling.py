"""Batch sampling: a function of the seed and the step."""

from __future__ import annotations

import pytest

from unsee.errors import TrainingError
from unsee.training.sampling import batch_indices


def test_batch_indices_draws_every_index_once_an_epoch() -> None:
    seen = [i for step in range(7) for i in batch_indices(14, 4, step, seed=3)]
    assert sorted(seen[:14]) == sorted(seen[14:28]) == list(range(14))
    assert batch_indices(14, 4, 2, seed=3) == seen[8:12]
    assert batch_indices(14, 14, 0, seed=3) != batch_indices(14, 14, 0, seed=4)


def test_batch_indices_repeats_a_set_smaller_than_the_batch() -> None:
    assert sorted(batch_indices(2, 5, 0, seed=0))[:2] == [0, 0]
    with pytest.raises(TrainingError, match="a set is empty"):
        batch_indices(0, 4, 0, seed=0)
