"""Which neurons carry an answer together: paths through the blocks, scored by integration."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial

import torch
from torch import Tensor

from unsee.errors import ConfigError
from unsee.features.neurons import MLP, batches_by_modality, neuron_hooks
from unsee.losses import sequence_nll
from unsee.models.vlm import VLM
from unsee.types import Batch, Sample


def influential_path(
    vlm: VLM,
    layers: Sequence[MLP],
    samples: Sequence[Sample],
    *,
    top: int,
    frames: int,
    fisher: bool,
    size: int = 8,
) -> dict[str, Tensor]:
    """The neurons through which the answers come about: bool [channels], by outer module.

    Greedy, from the input to the output: a layer's neurons are scored together with those chosen
    before, sum_n w_n sum_k sum_l dF/dw_l, where k/m of the original activations w flow; squared
    gradients of log F with `fisher`. Scores are summed over tokens and samples.

    Args:
        vlm: The model.
        layers: Of one part, in order.
        samples: Questions with answers.
        top: Neurons of every layer.
        frames: How many fractions k/m, m being their number.
        fisher: Whether F is the answer's log-probability, and its gradients are squared.
        size: Samples at once.

    Source: Li et al., arXiv 2511.06793, equations 4 and 6, algorithm 1.
    Differs: all neurons of a layer are scaled at once while each is scored.

    Raises:
        ConfigError: If a layer has fewer neurons than are wanted.
    """
    batches = batches_by_modality(vlm, samples, size)
    chosen: dict[str, Tensor] = {}
    for layer in layers:
        width = vlm.model.get_submodule(layer.outer).in_features
        if top > width:
            raise ConfigError(f"top_k={top}: {layer.outer} has {width} neurons. Type fewer.")
        whole = torch.ones(width, dtype=torch.bool, device=vlm.device)
        scores = sum(
            _path_scores(vlm, batch, chosen | {layer.outer: whole}, layer.outer, frames, fisher)
            for batch in batches
        )
        best = torch.as_tensor(scores).topk(top).indices
        chosen[layer.outer] = torch.zeros_like(whole).index_fill(0, best, True)
    return chosen


def _path_scores(
    vlm: VLM, batch: Batch, scaled: Mapping[str, Tensor], last: str, frames: int, fisher: bool
) -> Tensor:
    """What each neuron of the last layer would add to the path's score [channels], up to a sum.

    Args:
        vlm: The model.
        batch: Questions with answers.
        scaled: The path so far (bool [channels] by outer module), and all of the last layer.
        last: The outer module whose neurons are scored.
        frames: Number of fractions.
        fisher: See `influential_path`.
    """
    original: dict[str, Tensor] = {}
    with (
        torch.no_grad(),
        neuron_hooks(vlm, {name: partial(_keep, original, name) for name in scaled}),
    ):
        vlm.logits(batch)
    own, before = torch.zeros(()), torch.zeros(())
    for frame in range(1, frames + 1):
        leaves = {n: (z * frame / frames).requires_grad_(True) for n, z in original.items()}
        swaps = {n: partial(_swap, leaves[n], mask) for n, mask in scaled.items()}
        with torch.enable_grad(), neuron_hooks(vlm, swaps):
            value = -sequence_nll(vlm.logits(batch), batch.labels)
        total = (value if fisher else value.exp()).sum()
        for name, grad in zip(
            leaves, torch.autograd.grad(total, list(leaves.values())), strict=True
        ):
            grad = grad.square() if fisher else grad
            if name == last:
                own = own + grad.flatten(0, -2)
            else:
                before = before + grad.flatten(0, -2)[:, scaled[name]].sum(-1, keepdim=True)
    path = [z.flatten(0, -2)[:, scaled[n]].sum(-1, True) for n, z in original.items() if n != last]
    mine = original[last].flatten(0, -2)
    # The joint sum, less what is the same for every candidate.
    return (mine * (own + before) + sum(path, torch.zeros(())) * own).sum(0)


def _keep(found: dict[str, Tensor], name: str, z: Tensor) -> None:
    found[name] = z.detach()


def _swap(leaf: Tensor, mask: Tensor, z: Tensor) -> Tensor:
    return torch.where(mask, leaf, z)
