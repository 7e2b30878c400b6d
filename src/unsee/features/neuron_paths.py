"""Influential neuron paths: neurons of successive blocks, scored together by integration."""

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
    """Returns the neurons that influence the answers most: bool [channels], by outer module.

    Greedy, from the input to the output: a layer's neurons are scored together with those chosen
    before, by sum_n w_n sum_k sum_l dF/dw_l, with activations scaled to k/m of their original
    values w; with `fisher`, by squared gradients of log F. Scores are summed over tokens and
    samples.

    Args:
        vlm: The model.
        layers: The MLPs of one part, in order.
        samples: Questions with answers.
        top: Number of neurons to choose in each layer.
        frames: Number of fractions m.
        fisher: Whether F is the answer's log-probability and its gradients are squared.
        size: Batch size.

    Source: Li et al., arXiv 2511.06793, equations 4 and 6, algorithm 1.
    Differs: all neurons of a layer are scaled at once while each of them is scored.

    Raises:
        ConfigError: If a layer has fewer neurons than are wanted.
    """
    batches = batches_by_modality(vlm, samples, size)
    chosen: dict[str, Tensor] = {}
    for layer in layers:
        width = vlm.model.get_submodule(layer.outer).in_features
        if top > width:
            raise ConfigError(f"top_k={top}: {layer.outer} has {width} neurons. Type fewer.")
        every = torch.ones(width, dtype=torch.bool, device=vlm.device)
        scores = sum(
            _path_scores(vlm, batch, chosen | {layer.outer: every}, layer.outer, frames, fisher)
            for batch in batches
        )
        best = torch.as_tensor(scores).topk(top).indices
        chosen[layer.outer] = torch.zeros_like(every).index_fill(0, best, True)
    return chosen


def _path_scores(
    vlm: VLM, batch: Batch, scaled: Mapping[str, Tensor], last: str, frames: int, fisher: bool
) -> Tensor:
    """Returns the path's score with each neuron of the last layer [channels], up to a constant.

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
    # The joint sum without the terms that are equal for all candidates.
    return (mine * (own + before) + sum(path, torch.zeros(())) * own).sum(0)


def _keep(activations: dict[str, Tensor], name: str, z: Tensor) -> None:
    activations[name] = z.detach()


def _swap(leaf: Tensor, mask: Tensor, z: Tensor) -> Tensor:
    return torch.where(mask, leaf, z)
