"""Ssiuu: its attributions, its penalty, and what it refuses."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from unsee.errors import ConfigError
from unsee.features.neurons import find_mlps, neuron_hooks
from unsee.losses import sequence_nll
from unsee.methods import METHODS
from unsee.methods.ssiuu import Ssiuu, attributions, spurious
from unsee.models.vlm import VLM
from unsee.training.settings import TrainingSettings
from unsee.types import Batch, Data

SETTINGS = TrainingSettings(steps=2, batch_size=4, lr=1e-3)


def test_spurious_matches_hand_computation() -> None:
    """Neurons that work for the answer now do not count, whatever they did before."""
    now = torch.tensor([[-1.0, 2.0, -0.5], [3.0, -4.0, 0.0]])
    before = torch.tensor([[0.5, 9.0, -0.5], [1.0, -1.0, -7.0]])
    assert float(spurious(now, before)) == pytest.approx((1.5 + 3.0) / 2)


def test_attributions_match_finite_differences(tiny: VLM, data: Data) -> None:
    """dP along h_i itself, at all tokens, is the sum of h_i dP/dh_i over tokens."""
    layers, batch = find_mlps(tiny, "language"), tiny.collate(data.forget[:2])
    values = attributions(tiny, batch, layers)
    widths = [tiny.model.get_submodule(layer.outer).in_features for layer in layers]
    assert values.shape == (2, sum(widths))
    tiny.model.double()
    wide = Batch(
        batch.inputs | {"pixel_values": batch.inputs["pixel_values"].double()}, batch.labels
    )

    def chance(neuron: int, scale: float) -> torch.Tensor:
        def scaled(z: torch.Tensor) -> torch.Tensor:
            mask = torch.ones(z.shape[-1], dtype=z.dtype)
            mask[neuron] = scale
            return z * mask

        with torch.no_grad(), neuron_hooks(tiny, {layers[1].outer: scaled}):
            return (-sequence_nll(tiny.logits(wide), wide.labels)).exp()

    strongest = int(values[:, widths[0] :].abs().sum(0).argmax())
    for neuron in (strongest, 3):
        slope = (chance(neuron, 1 + 1e-3) - chance(neuron, 1 - 1e-3)) / 2e-3
        by_hand = values[:, widths[0] + neuron]
        assert torch.allclose(slope.float(), by_hand, rtol=0.05, atol=2e-6)


def test_attributions_are_differentiable(tiny: VLM, data: Data) -> None:
    layers, batch = find_mlps(tiny, "language"), tiny.collate(data.forget[:2])
    tiny.model.requires_grad_(True)
    attributions(tiny, batch, layers, differentiable=True).abs().sum().backward()
    for part in ("visual", "language"):
        gradients = [p.grad for p in tiny.parameters(part).values() if p.grad is not None]
        assert any(bool(g.any()) for g in gradients), part
    assert not attributions(tiny, batch, layers).requires_grad


def test_ssiuu_adds_its_term_to_the_forget_loss(tiny: VLM, tiny_folder: Path, data: Data) -> None:
    teacher, batch = VLM.load(tiny_folder), tiny.collate(data.forget[:4])
    with torch.no_grad():
        for parameter in tiny.parameters("language").values():
            parameter.add_(0.05 * torch.randn_like(parameter))
    terms = Ssiuu(w_spurious=3.0).loss(tiny, batch, batch, teacher)
    plain = METHODS.get("npo")().loss(tiny, batch, batch, teacher)
    for name in ("forget", "retain"):
        assert float(terms[name].detach()) == pytest.approx(float(plain[name].detach()))
    layers = find_mlps(tiny, "language")
    expected = spurious(attributions(tiny, batch, layers), attributions(teacher, batch, layers))
    assert float(terms["spurious"].detach()) == pytest.approx(3 * float(expected), rel=1e-4)
    assert float(expected) > 0
    assert set(Ssiuu(w_spurious=0.0).loss(tiny, batch, batch, teacher)) == {"forget", "retain"}
    start = Ssiuu().loss(teacher, batch, batch, teacher)
    assert float(start["spurious"].detach()) == pytest.approx(0.0, abs=1e-7)


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"attention": "flash_attention_2"}, "attention=auto"),
        ({"checkpointing": True}, "checkpointing=false"),
        ({"compile": True}, "compile=false"),
    ],
)
def test_ssiuu_refuses_what_cannot_be_differentiated_twice(
    setting: dict[str, object], message: str, data: Data
) -> None:
    with pytest.raises(ConfigError, match=message):
        Ssiuu().validate(data, replace(SETTINGS, **setting))  # type: ignore[arg-type]
