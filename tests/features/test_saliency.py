"""Fisher ratios, neuron choice, and gradients taken after relearning, by hand."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from unsee.errors import TrainingError
from unsee.features.saliency import choose_neurons, ratio_masks, squared_gradients
from unsee.methods.vkd.inner_relearning import (
    gradient_after_relearning,
    mix_with_noise,
    weight_proximity,
)


def test_squared_gradients_average_over_losses() -> None:
    weight = nn.Parameter(torch.tensor([1.0, 2.0]))
    weight.requires_grad_(False)
    found = squared_gradients(
        {"w": weight}, [lambda: (3 * weight).sum(), lambda: (weight.square()).sum()]
    )
    assert found["w"].tolist() == [(9 + 4) / 2, (9 + 16) / 2]
    assert not weight.requires_grad


def test_masks_by_threshold_and_by_fraction() -> None:
    forget = {"a": torch.tensor([4.0, 1.0]), "b": torch.tensor([0.0, 9.0])}
    retain = {"a": torch.tensor([1.0, 1.0]), "b": torch.tensor([1.0, 1.0])}
    masks = ratio_masks(forget, retain, threshold=4.0)
    assert masks["a"].tolist() == [1, 0] and masks["b"].tolist() == [0, 1]
    masks = ratio_masks(forget, retain, fraction=0.25)
    assert masks["a"].tolist() == [0, 0] and masks["b"].tolist() == [0, 1]


def test_a_mask_that_selects_nothing_raises() -> None:
    ones = {"a": torch.ones(2)}
    with pytest.raises(TrainingError, match="selects no weight"):
        ratio_masks(ones, ones, threshold=100.0)
    with pytest.raises(TrainingError, match="selects no weight"):
        ratio_masks({"a": torch.zeros(2)}, ones, fraction=0.5)


def test_neurons_are_chosen_by_ratio_over_all_modules() -> None:
    forget = {"m": torch.tensor([1.0, 8.0]), "n": torch.tensor([5.0, 1.0])}
    retain = {"m": torch.tensor([1.0, 1.0]), "n": torch.tensor([1.0, 1.0])}
    chosen = choose_neurons(forget, retain, 0.5)
    assert chosen["m"].tolist() == [False, True] and chosen["n"].tolist() == [True, False]
    with pytest.raises(TrainingError, match="is none"):
        choose_neurons(forget, retain, 0.01)


def test_noise_takes_the_place_of_a_share_of_every_weight() -> None:
    torch.manual_seed(0)
    start = 3 + torch.randn(20_000)
    whole, half = (nn.Parameter(start.clone(), requires_grad=False) for _ in range(2))
    mix_with_noise({"whole": whole}, 1.0)
    mix_with_noise({"half": half}, 0.5)
    # Half of the old deviation and half of a new one as wide leave 1 / sqrt(2) of either.
    for noised, like, spread in ((whole, 0.0, 1.0), (half, 0.5**0.5, 0.5**0.5)):
        assert torch.corrcoef(torch.stack((start, noised)))[0, 1].item() == pytest.approx(
            like, abs=0.03
        )
        assert noised.std().item() == pytest.approx(start.std().item() * spread, rel=0.05)
        assert noised.mean().item() == pytest.approx(3, abs=0.05)


def test_gradient_after_relearning_is_taken_there_and_weights_return() -> None:
    weight = nn.Parameter(torch.tensor([2.0, -2.0]))
    before = weight.detach().clone()
    # The attacker descends on w0 - w1; two normalised steps of 0.1 lead to (1.8, -1.8).
    attack = [lambda: weight[0] - weight[1]] * 2
    gradient_after_relearning({"w": weight}, attack, lambda: weight.square().sum(), lr=0.1)
    assert torch.equal(weight.detach(), before)
    assert weight.grad is not None
    assert weight.grad.tolist() == pytest.approx([3.6, -3.6], abs=1e-4)


def test_nearness_by_hand_and_a_gradient_from_the_start_on() -> None:
    old = {"a": torch.tensor([3.0, 0.0]), "b": torch.tensor([4.0])}
    weights = {n: nn.Parameter(v.clone()) for n, v in old.items()}
    assert weight_proximity(weights, old).item() == pytest.approx(1, abs=1e-5)
    with torch.no_grad():
        weights["a"][1] = 2.0
    near = weight_proximity(weights, old)
    # Moved by 2, where the norm is 5.
    assert near.item() == pytest.approx(1 - 2 / 5)
    near.backward()
    assert weights["a"].grad is not None
    assert weights["a"].grad.tolist() == pytest.approx([0, -1 / 5], abs=1e-6)
    with torch.no_grad():
        weights["b"] += 9
    assert weight_proximity(weights, old).item() == 0
