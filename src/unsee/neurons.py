"""MLP neurons of a model: where they are, how active they are, and switching them off.

A neuron is a channel between the linear layers of a block's MLP: a row of what writes it, and a
column of the outer layer that reads it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from unsee.errors import ConfigError, ModelError
from unsee.losses import sequence_nll
from unsee.model import VLM
from unsee.types import Batch, Sample


@dataclass(frozen=True)
class MLP:
    """The linear layers around a block's neurons.

    Attributes:
        part: "encoder" or "language".
        outer: The module that reads the neurons.
        inner: The modules that write them; two where they are gated.
    """

    part: str
    outer: str
    inner: tuple[str, ...]


def mlps(vlm: VLM, part: str) -> list[MLP]:
    """The MLPs of a part of the model, from its input to its output.

    In the encoder they are where the family says; in the LLM's blocks they are found by their
    shape: two or three linear layers side by side, one of which reads what the others write.

    Args:
        vlm: The model.
        part: "encoder", "visual" (the same: a projector has no block), "language" or "all".

    Raises:
        ConfigError: If the part has no blocks.
        ModelError: If a block has no such MLP.
    """
    if part == "projector":
        raise ConfigError(
            "trains=projector has no MLP blocks to choose neurons from. Allowed: encoder, visual, "
            "language, all."
        )
    found = []
    if part != "language":
        for _, outer in vlm.family.visual_mlps(vlm.model).values():
            found.append(_around(vlm, "encoder", outer.rpartition(".")[0], outer))
    if part in ("language", "all"):
        blocks = vlm.family.language_layers(vlm.model).values()
        found += [_inside(vlm, block) for block in blocks]
    return found


def _inside(vlm: VLM, block: str) -> MLP:
    """The MLP of an LLM block."""
    for name, module in vlm.model.get_submodule(block).named_modules():
        home = f"{block}.{name}" if name else block
        linears = {k: m for k, m in module.named_children() if isinstance(m, nn.Linear)}
        # Attention has four of them, or two of which none narrows.
        for key, outer in linears.items() if len(linears) in (2, 3) else ():
            around = _around(vlm, "language", home, f"{home}.{key}")
            narrows = outer.in_features > outer.out_features
            if narrows and len(around.inner) == len(linears) - 1:
                return around
    raise ModelError(
        f"no MLP of two or three linear layers in {block}: its neurons cannot be told. Choose "
        "another part (--set trains=visual), or another method."
    )


def _around(vlm: VLM, part: str, home: str, outer: str) -> MLP:
    width = vlm.model.get_submodule(outer).in_features
    inner = tuple(
        f"{home}.{name}"
        for name, child in vlm.model.get_submodule(home).named_children()
        if isinstance(child, nn.Linear) and child.out_features == width
    )
    return MLP(part, outer, inner)


@dataclass(frozen=True)
class Activity:
    """How active the neurons of a layer are, over tokens; each [channels].

    Attributes:
        mean: Mean absolute activation.
        share: Share of the tokens at which the absolute activation is above the threshold.
        variance: Variance of the activation.
        energy: Mean squared activation.
    """

    mean: Tensor
    share: Tensor
    variance: Tensor
    energy: Tensor


class _Sums:
    """Running sums of a layer's activations."""

    def __init__(self) -> None:
        self.values = [torch.zeros(())] * 4
        self.count = 0

    def add(self, z: Tensor, threshold: float) -> None:
        z = z.double()
        rows = [z.abs(), (z.abs() > threshold).double(), z, z.square()]
        self.values = [old + row.sum(0) for old, row in zip(self.values, rows, strict=True)]
        self.count += len(z)

    def activity(self, like: Tensor) -> Activity:
        zero, count = like.new_zeros(like.shape[1]), max(1, self.count)
        means = [(value.to(zero.device) / count).expand_as(zero) for value in self.values]
        mean, share, signed, energy = means
        variance = (energy - signed.square()).clamp(min=0)
        return Activity(mean.float(), share.float(), variance.float(), energy.float())


@torch.no_grad()
def activity(
    vlm: VLM,
    samples: Sequence[Sample],
    layers: Sequence[MLP],
    threshold: float,
    size: int = 16,
) -> dict[str, Activity]:
    """Activity of every layer's neurons over samples, by outer module.

    A layer that the samples do not run, such as the encoder without a picture, is all 0.

    Args:
        vlm: The model.
        samples: Questions with answers.
        layers: Which neurons.
        threshold: Above which an absolute activation counts as active.
        size: Samples at once.
    """
    sums = {layer.outer: _Sums() for layer in layers}
    for start in range(0, len(samples), size):
        batch = vlm.collate(samples[start : start + size])
        mask = batch.inputs["attention_mask"].bool()

        def keep(name: str, part: str, mask: Tensor = mask) -> Callable[[Tensor], None]:
            def see(z: Tensor) -> None:
                # Padding is no token; the encoder has none of the LLM's.
                z = z[mask] if part == "language" else z.flatten(0, -2)
                sums[name].add(z, threshold)

            return see

        with watching(vlm, {layer.outer: keep(layer.outer, layer.part) for layer in layers}):
            vlm.logits(batch)
    return {
        layer.outer: sums[layer.outer].activity(vlm.model.get_submodule(layer.outer).weight)
        for layer in layers
    }


@contextmanager
def watching(vlm: VLM, by_module: Mapping[str, Callable[[Tensor], Any]]) -> Iterator[None]:
    """Shows the neurons' activations, the input of each outer module, to a function.

    What the function returns, if anything, takes their place.
    """

    def hook(see: Callable[[Tensor], Any]) -> Callable[..., Any]:
        def seen(_module: Any, inputs: tuple[Tensor, ...]) -> Any:
            other = see(inputs[0])
            return None if other is None else (other, *inputs[1:])

        return seen

    handles = [
        vlm.model.get_submodule(name).register_forward_pre_hook(hook(see))
        for name, see in by_module.items()
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def silence(vlm: VLM, chosen: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Zeroes the outgoing weights of the chosen neurons (bool [channels], by outer module).

    Returns:
        By the outer module's weight name, a mask that is 0 on the zeroed weights and 1 elsewhere.
    """
    masks = {}
    for module, neurons in chosen.items():
        weight = vlm.model.get_submodule(module).weight
        mask = torch.ones_like(weight)
        mask[:, neurons] = 0
        with torch.no_grad():
            weight.mul_(mask)
        masks[f"{module}.weight"] = mask.detach()
    return masks


def counted(layers: Sequence[MLP], chosen: Mapping[str, Tensor]) -> dict[str, Any]:
    """What a record says of a choice of neurons: how many of how many, by part and by layer."""
    found: dict[str, Any] = {"chosen": 0, "of": 0, "by_part": {}, "by_layer": {}}
    for layer in layers:
        count, whole = int(chosen[layer.outer].sum()), len(chosen[layer.outer])
        found["chosen"] += count
        found["of"] += whole
        found["by_part"][layer.part] = found["by_part"].get(layer.part, 0) + count
        found["by_layer"][layer.outer] = count
    return found


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
    batches = [vlm.collate(samples[i : i + size]) for i in range(0, len(samples), size)]
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
    with torch.no_grad(), watching(vlm, {name: partial(_keep, original, name) for name in scaled}):
        vlm.logits(batch)
    own, before = torch.zeros(()), torch.zeros(())
    for frame in range(1, frames + 1):
        leaves = {n: (z * frame / frames).requires_grad_(True) for n, z in original.items()}
        swaps = {n: partial(_swap, leaves[n], mask) for n, mask in scaled.items()}
        with torch.enable_grad(), watching(vlm, swaps):
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


def neuron_masks(
    vlm: VLM, layers: Sequence[MLP], chosen: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """Masks that are 1 on the weights of the chosen neurons, by parameter name.

    A neuron's weights are its column in what reads it, and its rows (and biases) in what writes it.
    """
    masks = {}
    for layer in layers:
        neurons = chosen[layer.outer]
        outer = vlm.model.get_submodule(layer.outer).weight
        masks[f"{layer.outer}.weight"] = neurons.to(outer).expand_as(outer)
        for name in layer.inner:
            module = vlm.model.get_submodule(name)
            masks[f"{name}.weight"] = neurons.to(outer)[:, None].expand_as(module.weight)
            if module.bias is not None:
                masks[f"{name}.bias"] = neurons.to(outer)
    return masks
