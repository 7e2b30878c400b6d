"""Visual representations of a model: which layers there are, and what they say of a picture."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from unsee.models.vlm import VLM

# What a layer says of pictures: [pictures, tokens, dim] where the family aligns them, else one
# [tokens, dim] a picture, as many as its tiles or its resolution make.
Tokens = Tensor | list[Tensor]


Features = dict[str, Tokens]


@contextmanager
def capture(vlm: VLM, names: Sequence[str]) -> Iterator[dict[str, Tensor]]:
    """Collects the raw outputs of visual layers during the forward passes of the block.

    A second forward pass overwrites the first. `by_picture` makes features of them.
    """
    modules = vlm.family.visual_layers(vlm.model)
    found: dict[str, Tensor] = {}

    def keep(name: str) -> Any:
        def hook(_module: Any, _inputs: Any, output: Any) -> None:
            found[name] = output if isinstance(output, Tensor) else output[0]

        return hook

    handles = [
        vlm.model.get_submodule(modules[name]).register_forward_hook(keep(name)) for name in names
    ]
    try:
        yield found
    finally:
        for handle in handles:
            handle.remove()


def layer_outputs(vlm: VLM, inputs: dict[str, Tensor], names: Sequence[str]) -> dict[str, Tensor]:
    """Raw outputs of the named layers, for `by_picture`; only the visual part runs."""
    with capture(vlm, names) as found:
        vlm.family.visual_forward(vlm.model, inputs)
    return found


def picture_features(vlm: VLM, inputs: dict[str, Tensor], names: Sequence[str]) -> Features:
    """Representations of pictures at the named layers; only the visual part runs."""
    return split_by_picture(vlm, layer_outputs(vlm, inputs, names), inputs)


def split_by_picture(
    vlm: VLM, outputs: Mapping[str, Tensor], inputs: dict[str, Tensor]
) -> Features:
    """Features from the raw outputs of layers.

    Args:
        vlm: The model.
        outputs: From `capture`, by layer.
        inputs: The visual inputs that they come from.
    """
    if vlm.family.aligned:
        return dict(outputs)
    return {name: vlm.family.split(output, inputs) for name, output in outputs.items()}


def flat(tokens: Tokens) -> Tensor:
    """All pictures' values in one tensor."""
    return tokens if isinstance(tokens, Tensor) else torch.cat([t.flatten() for t in tokens])
