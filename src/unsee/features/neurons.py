"""MLP neurons of a model: finding them, measuring their activity, and zeroing them.

A neuron is a channel between the linear layers of a block's MLP: a row of each inner layer, which
writes it, and a column of the outer layer, which reads it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from unsee.errors import ConfigError, ModelError
from unsee.models.vlm import VLM
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


def find_mlps(vlm: VLM, part: str) -> list[MLP]:
    """Returns the MLPs of a part of the model, from its input to its output.

    In the encoder the family names them. In the LLM's blocks they are found by their shape: two or
    three sibling linear layers, one of which reads the outputs of the others.

    Args:
        vlm: The model.
        part: "encoder", "visual" (equal to "encoder", since a projector has no block), "language"
            or "all".

    Raises:
        ConfigError: If the part has no blocks.
        ModelError: If a block has no such MLP.
    """
    if part == "projector":
        raise ConfigError(
            "trains=projector has no MLP blocks to choose neurons from. Allowed: encoder, visual, "
            "language, all."
        )
    mlps = []
    if part != "language":
        for _, outer in vlm.family.visual_mlps(vlm.model).values():
            mlps.append(_siblings(vlm, "encoder", outer.rpartition(".")[0], outer))
    if part in ("language", "all"):
        blocks = vlm.family.language_layers(vlm.model).values()
        mlps += [_mlp_of_block(vlm, block) for block in blocks]
    return mlps


def _mlp_of_block(vlm: VLM, block: str) -> MLP:
    """Returns the MLP of an LLM block."""
    for name, module in vlm.model.get_submodule(block).named_modules():
        home = f"{block}.{name}" if name else block
        linears = {k: m for k, m in module.named_children() if isinstance(m, nn.Linear)}
        # Attention has four of them, or two of which none narrows.
        for key, outer in linears.items() if len(linears) in (2, 3) else ():
            mlp = _siblings(vlm, "language", home, f"{home}.{key}")
            narrows = outer.in_features > outer.out_features
            if narrows and len(mlp.inner) == len(linears) - 1:
                return mlp
    raise ModelError(
        f"no MLP of two or three linear layers in {block}: its neurons cannot be found. Choose "
        "another part (--set trains=visual, of vkd --tier visual), or another method."
    )


def _siblings(vlm: VLM, part: str, home: str, outer: str) -> MLP:
    """Returns an outer layer with the sibling linear layers that write its input."""
    width = vlm.model.get_submodule(outer).in_features
    inner = tuple(
        f"{home}.{name}"
        for name, child in vlm.model.get_submodule(home).named_children()
        if isinstance(child, nn.Linear) and child.out_features == width
    )
    return MLP(part, outer, inner)


@dataclass(frozen=True)
class Activity:
    """Activity of the neurons of a layer over tokens; each tensor is [channels].

    Attributes:
        mean: Mean absolute activation.
        share: Share of the tokens at which the absolute activation is above the threshold.
        variance: Variance of the activation.
        energy: Mean squared activation.
        tokens: The number of tokens.
    """

    mean: Tensor
    share: Tensor
    variance: Tensor
    energy: Tensor
    tokens: int = 1

    @property
    def count(self) -> Tensor:
        """Number of the tokens at which the absolute activation is above the threshold."""
        return self.share * self.tokens


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
        return Activity(mean.float(), share.float(), variance.float(), energy.float(), self.count)


@torch.no_grad()
def activity(
    vlm: VLM,
    samples: Sequence[Sample],
    layers: Sequence[MLP],
    threshold: float,
    size: int = 16,
) -> dict[str, Activity]:
    """Returns the activity of each layer's neurons over samples, by outer module.

    A layer that does not run for the samples, such as the encoder without a picture, has zeros.

    Args:
        vlm: The model.
        samples: Questions with answers.
        layers: The MLPs whose neurons are measured.
        threshold: Absolute activation above which a neuron counts as active.
        size: Batch size.
    """
    sums = {layer.outer: _Sums() for layer in layers}
    for batch in batches_by_modality(vlm, samples, size):
        mask = batch.inputs["attention_mask"].bool()

        def keep(name: str, part: str, mask: Tensor = mask) -> Callable[[Tensor], None]:
            def see(z: Tensor) -> None:
                # Padding does not count; the mask is of the LLM's tokens.
                z = z[mask] if part == "language" else z.flatten(0, -2)
                sums[name].add(z, threshold)

            return see

        with neuron_hooks(vlm, {layer.outer: keep(layer.outer, layer.part) for layer in layers}):
            vlm.logits(batch)
    return {
        layer.outer: sums[layer.outer].activity(vlm.model.get_submodule(layer.outer).weight)
        for layer in layers
    }


@contextmanager
def neuron_hooks(vlm: VLM, by_module: Mapping[str, Callable[[Tensor], Any]]) -> Iterator[None]:
    """Passes neurons' activations to a function during forward passes inside the block.

    Args:
        vlm: The model.
        by_module: By outer module, a function of its input [..., channels]. A tensor that it
            returns replaces the activations.
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


def zero_neurons(vlm: VLM, chosen: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Zeroes the outgoing weights of neurons in place.

    Args:
        vlm: The model.
        chosen: The neurons (bool [channels]), by outer module.

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


def neuron_counts(layers: Sequence[MLP], chosen: Mapping[str, Tensor]) -> dict[str, Any]:
    """Returns how many neurons were chosen, of how many, by part and by layer, for the record.

    Args:
        layers: All MLPs that were chosen from.
        chosen: The neurons (bool [channels]), by outer module.
    """
    counts: dict[str, Any] = {"chosen": 0, "of": 0, "by_part": {}, "by_layer": {}}
    for layer in layers:
        count, total = int(chosen[layer.outer].sum()), len(chosen[layer.outer])
        counts["chosen"] += count
        counts["of"] += total
        counts["by_part"][layer.part] = counts["by_part"].get(layer.part, 0) + count
        counts["by_layer"][layer.outer] = count
    return counts


def neuron_masks(
    vlm: VLM, layers: Sequence[MLP], chosen: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """Returns masks that are 1 on the weights of the chosen neurons, by parameter name.

    A neuron's weights are its column in the outer layer, and its rows and biases in the inner ones.

    Args:
        vlm: The model.
        layers: The MLPs.
        chosen: The neurons (bool [channels]), by outer module.
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


def batches_by_modality(vlm: VLM, samples: Sequence[Sample], size: int) -> list[Batch]:
    """Returns batches whose samples all have a picture, or all have none.

    Some families run the two separately, so that a hook would only see one of them.

    Args:
        vlm: The model.
        samples: Questions with answers.
        size: Batch size.
    """
    sides = ([s for s in samples if s.picture], [s for s in samples if not s.picture])
    return [
        vlm.collate(side[start : start + size])
        for side in sides
        for start in range(0, len(side), size)
    ]
