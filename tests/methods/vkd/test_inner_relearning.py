"""Inner relearning, distance of weights and noise, against hand-computed values."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from unsee.methods.vkd.inner_relearning import (
    gradient_after_relearning,
    mix_with_noise,
    weight_proximity,
)


def test_mix_with_noise_replaces_a_share_of_each_weight() -> None:
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


def test_gradient_after_relearning_is_taken_after_the_attack_and_restores_weights() -> None:
    weight = nn.Parameter(torch.tensor([2.0, -2.0]))
    before = weight.detach().clone()
    # The attacker descends on w0 - w1; two normalised steps of 0.1 lead to (1.8, -1.8).
    attack = [lambda: weight[0] - weight[1]] * 2
    gradient_after_relearning({"w": weight}, attack, lambda: weight.square().sum(), lr=0.1)
    assert torch.equal(weight.detach(), before)
    assert weight.grad is not None
    assert weight.grad.tolist() == pytest.approx([3.6, -3.6], abs=1e-4)


def test_weight_proximity_matches_hand_computation_and_has_a_gradient_at_the_start() -> None:
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
