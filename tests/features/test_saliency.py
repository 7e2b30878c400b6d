"""Fisher ratios and the choice of neurons, against hand-computed values."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from unsee.errors import TrainingError
from unsee.features.saliency import choose_neurons, ratio_masks, squared_gradients


def test_squared_gradients_average_over_losses() -> None:
    weight = nn.Parameter(torch.tensor([1.0, 2.0]))
    weight.requires_grad_(False)
    found = squared_gradients(
        {"w": weight}, [lambda: (3 * weight).sum(), lambda: (weight.square()).sum()]
    )
    assert found["w"].tolist() == [(9 + 4) / 2, (9 + 16) / 2]
    assert not weight.requires_grad


def test_ratio_masks_select_by_threshold_or_fraction() -> None:
    forget = {"a": torch.tensor([4.0, 1.0]), "b": torch.tensor([0.0, 9.0])}
    retain = {"a": torch.tensor([1.0, 1.0]), "b": torch.tensor([1.0, 1.0])}
    masks = ratio_masks(forget, retain, threshold=4.0)
    assert masks["a"].tolist() == [1, 0] and masks["b"].tolist() == [0, 1]
    masks = ratio_masks(forget, retain, fraction=0.25)
    assert masks["a"].tolist() == [0, 0] and masks["b"].tolist() == [0, 1]


def test_squared_gradients_of_float16_do_not_underflow() -> None:
    weight = nn.Parameter(torch.ones(2, dtype=torch.float16))
    squares = squared_gradients({"w": weight}, [lambda: (1e-4 * weight).sum()])
    assert squares["w"].tolist() == pytest.approx([1e-8, 1e-8], rel=1e-2)


def test_ratio_masks_refuse_to_select_nothing() -> None:
    ones = {"a": torch.ones(2)}
    with pytest.raises(TrainingError, match="selects no weight"):
        ratio_masks(ones, ones, threshold=100.0)
    with pytest.raises(TrainingError, match="selects no weight"):
        ratio_masks({"a": torch.zeros(2)}, ones, fraction=0.5)


def test_choose_neurons_ranks_over_all_modules() -> None:
    forget = {"m": torch.tensor([1.0, 8.0]), "n": torch.tensor([5.0, 1.0])}
    retain = {"m": torch.tensor([1.0, 1.0]), "n": torch.tensor([1.0, 1.0])}
    chosen = choose_neurons(forget, retain, 0.5)
    assert chosen["m"].tolist() == [False, True] and chosen["n"].tolist() == [True, False]
    with pytest.raises(TrainingError, match="is none"):
        choose_neurons(forget, retain, 0.01)
