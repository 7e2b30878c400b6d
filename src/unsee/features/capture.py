"""Visual features: the outputs of visual layers, captured during a forward pass."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from unsee.families.outputs import join_runs, layer_tensor
from unsee.models.vlm import VLM

# Features of pictures at a layer: [pictures, tokens, dim] where the family aligns pictures, else a
# list of [tokens, dim], whose number of tokens depends on a picture's tiles or resolution.
Tokens = Tensor | list[Tensor]


Features = dict[str, Tokens]


@contextmanager
def capture(vlm: VLM, names: Sequence[str]) -> Iterator[dict[str, Tensor]]:
    """Captures the raw outputs of visual layers during forward passes inside the block.

    A second forward pass overwrites the first. `split_by_picture` turns them into features.

    Args:
        vlm: The model.
        names: Names of the layers.

    Yields:
        The outputs by layer, filled in by the forward pass.
    """
    modules = vlm.family.visual_layers(vlm.model)
    outputs: dict[str, Tensor] = {}
    runs: dict[str, list[Tensor]] = {}
    entry = vlm.family.visual_entry(vlm.model)

    def keep(name: str) -> Any:
        def hook(_module: Any, _inputs: Any, output: Any) -> None:
            output = layer_tensor(output)
            # Some models project one picture after the other.
            earlier = runs.setdefault(name, []) if entry is not None else []
            earlier.append(output)
            outputs[name] = join_runs(earlier)

        return hook

    handles = [
        vlm.model.get_submodule(modules[name]).register_forward_hook(keep(name)) for name in names
    ]
    if entry is not None:
        first = vlm.model.get_submodule(entry)
        handles.append(first.register_forward_pre_hook(lambda *_: runs.clear()))
    try:
        yield outputs
    finally:
        for handle in handles:
            handle.remove()


def layer_outputs(vlm: VLM, inputs: dict[str, Tensor], names: Sequence[str]) -> dict[str, Tensor]:
    """Returns the raw outputs of visual layers, for `split_by_picture`; only the visual part runs.

    Args:
        vlm: The model.
        inputs: The visual inputs of pictures.
        names: Names of the layers.
    """
    with capture(vlm, names) as outputs:
        vlm.family.visual_forward(vlm.model, inputs)
    return outputs


def picture_features(vlm: VLM, inputs: dict[str, Tensor], names: Sequence[str]) -> Features:
    """Returns the features of pictures at visual layers; only the visual part runs.

    Args:
        vlm: The model.
        inputs: The visual inputs of the pictures.
        names: Names of the layers.
    """
    return split_by_picture(vlm, layer_outputs(vlm, inputs, names), inputs)


def split_by_picture(
    vlm: VLM, outputs: Mapping[str, Tensor], inputs: dict[str, Tensor]
) -> Features:
    """Returns features by layer, given the raw outputs of the layers.

    Args:
        vlm: The model.
        outputs: The outputs by layer; see `capture`.
        inputs: The visual inputs that they were computed from.
    """
    read = {name: vlm.family.represented(name, output) for name, output in outputs.items()}
    if vlm.family.aligned:
        return dict(read)
    return {name: vlm.family.split(output, inputs) for name, output in read.items()}


def flat(tokens: Tokens) -> Tensor:
    """Returns the values of all pictures in one tensor."""
    return tokens if isinstance(tokens, Tensor) else torch.cat([t.flatten() for t in tokens])
