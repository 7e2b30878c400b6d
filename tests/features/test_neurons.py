"""Neurons of real and of tiny MLPs: where they are, how active, and which carry an answer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from unsee.errors import ConfigError, ModelError
from unsee.features.neuron_paths import _path_scores, influential_path
from unsee.features.neurons import MLP, activity, find_mlps, zero_neurons
from unsee.models.vlm import VLM
from unsee.types import Batch, Data


def test_find_mlps_finds_the_blocks_of_each_part(tiny: VLM) -> None:
    first, *_, last = find_mlps(tiny, "all")
    assert first.part == "encoder" and first.outer.endswith("layers.0.mlp.fc2")
    assert [name.rpartition(".")[2] for name in first.inner] == ["fc1"]
    assert last.part == "language" and last.outer.endswith("layers.1.mlp.down_proj")
    assert [name.rpartition(".")[2] for name in last.inner] == ["gate_proj", "up_proj"]
    assert find_mlps(tiny, "visual") == find_mlps(tiny, "encoder")
    assert find_mlps(tiny, "encoder") + find_mlps(tiny, "language") == find_mlps(tiny, "all")
    with pytest.raises(ConfigError, match="Allowed: encoder, visual, language, all"):
        find_mlps(tiny, "projector")


def test_find_mlps_names_a_block_without_an_mlp(tiny: VLM) -> None:
    tiny.model.get_submodule("model.language_model.layers.1").mlp = nn.Identity()
    with pytest.raises(ModelError, match=r"layers\.1.*--set trains=visual"):
        find_mlps(tiny, "language")


def test_activity_leaves_out_padding(tiny: VLM, data: Data) -> None:
    """Together in a padded batch as each alone; by hand from the activations themselves."""
    samples, layers = [data.retain[0], data.retain[-1], data.retain[-2]], find_mlps(tiny, "all")
    found = activity(tiny, samples, layers, 0.1)
    for layer in layers:
        rows: list[Tensor] = []
        hook = tiny.model.get_submodule(layer.outer).register_forward_pre_hook(
            lambda _, inputs, rows=rows: rows.append(inputs[0].flatten(0, -2))
        )
        with torch.no_grad():
            for sample in samples:
                tiny.logits(tiny.collate([sample]))
        hook.remove()
        z, mine = torch.cat(rows), found[layer.outer]
        assert torch.allclose(mine.mean, z.abs().mean(0), atol=1e-4)
        assert torch.allclose(mine.share, (z.abs() > 0.1).float().mean(0), atol=0.02)
        assert torch.allclose(mine.variance, z.var(0, unbiased=False), atol=1e-4)
        assert torch.allclose(mine.energy, z.square().mean(0), atol=1e-4)


def test_activity_of_the_encoder_is_zero_without_a_picture(tiny: VLM, data: Data) -> None:
    texts = [s for s in data.retain if s.picture is None]
    found = activity(tiny, texts, find_mlps(tiny, "all"), 0.1)
    for layer in find_mlps(tiny, "all"):
        assert bool(found[layer.outer].mean.any()) == (layer.part == "language")


class Told(nn.Module):
    """Two blocks of 1 and 2 neurons: a = 2, b = (a, 1); the logit is a + b0."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(1, 1, bias=False), nn.Linear(2, 1, bias=False)
        with torch.no_grad():
            self.first.weight.fill_(1.0)
            self.second.weight.copy_(torch.tensor([[1.0, 0.0]]))
        self.requires_grad_(False)

    def forward(self) -> Tensor:
        a = self.first(torch.full((1, 1), 2.0))
        return a + self.second(torch.cat([a, torch.ones(1, 1)], -1))


class Small:
    """What `influential_path` asks of a VLM, around `Told`."""

    device = torch.device("cpu")

    def __init__(self) -> None:
        self.model = Told()

    def collate(self, samples: Any) -> Batch:
        return Batch({}, torch.tensor([[-100, 0]]))

    def logits(self, batch: Batch) -> Tensor:
        s = self.model()
        return torch.stack([torch.cat([s, torch.zeros(1, 1)], -1), torch.zeros(1, 2)], 1)


@pytest.mark.parametrize("fisher", [True, False])
def test_path_scores_match_hand_computation(fisher: bool, data: Data) -> None:
    """p = sigmoid(a + b0), s_k = (k/2)(2 + 2); d log p = sigmoid(-s), dp = sigmoid(s) sigmoid(-s).

    b0: 2 (own + before) + 2 own; b1 has no effect of its own: 1 (0 + before).
    """
    vlm: Any = Small()
    steps = torch.tensor([2.0, 4.0])
    down = torch.sigmoid(-steps)
    g = float((down.square() if fisher else torch.sigmoid(steps) * down).sum())
    scaled = {"first": torch.tensor([True]), "second": torch.tensor([True, True])}
    found = _path_scores(vlm, vlm.collate(None), scaled, "second", 2, fisher)
    assert found.tolist() == pytest.approx([2 * (g + g) + 2 * g, g])
    layers = [MLP("language", "first", ()), MLP("language", "second", ())]
    chosen = influential_path(vlm, layers, data.forget[:1], top=1, frames=2, fisher=fisher)
    assert {n: c.tolist() for n, c in chosen.items()} == {"first": [True], "second": [True, False]}
    with pytest.raises(ConfigError, match="top_k=2: first has 1 neurons"):
        influential_path(vlm, layers, data.forget[:1], top=2, frames=1, fisher=fisher)


def test_zero_neurons_zeroes_outgoing_weights(tiny: VLM, tiny_folder: Path) -> None:
    (first, *_) = find_mlps(tiny, "encoder")
    weight = tiny.model.get_submodule(first.outer).weight
    neurons = torch.zeros(weight.shape[1], dtype=torch.bool)
    neurons[[1, 3]] = True
    masks = zero_neurons(tiny, {first.outer: neurons})
    before = VLM.load(tiny_folder).model.get_submodule(first.outer).weight
    assert torch.equal(weight, before * ~neurons)
    assert torch.equal(masks[f"{first.outer}.weight"], (~neurons).float().expand_as(weight))
