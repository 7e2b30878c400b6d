"""Inner relearning, against hand-computed values."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from unsee.methods.vkd.inner_relearning import gradient_after_relearning


def test_gradient_after_relearning_is_taken_after_the_attack_and_restores_weights() -> None:
    weight = nn.Parameter(torch.tensor([2.0, -2.0]))
    before = weight.detach().clone()
    # The attacker descends on w0 - w1; two normalised steps of 0.1 lead to (1.8, -1.8).
    attack = [lambda: weight[0] - weight[1]] * 2
    gradient_after_relearning({"w": weight}, attack, lambda: weight.square().sum(), lr=0.1)
    assert torch.equal(weight.detach(), before)
    assert weight.grad is not None
    assert weight.grad.tolist() == pytest.approx([3.6, -3.6], abs=1e-4)
