"""Choosing layers of a model, their parameters, and hidden states of the LLM."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from unsee.errors import ConfigError
from unsee.models.vlm import VLM
from unsee.types import Batch


def choose_layers(vlm: VLM, wanted: Sequence[str]) -> list[str]:
    """Returns the visual layers that `wanted` names, in the model's order.

    Args:
        vlm: The model.
        wanted: Names ("encoder.3") or groups: "projector" (all layers whose output the LLM reads:
            the projector and what bypasses it), "encoder" (every encoder layer), "upper" (the
            upper half of the encoder and all layers that the LLM reads), "all".

    Raises:
        ConfigError: If a name matches no layer, or nothing is wanted.
    """
    layers = list(vlm.family.visual_layers(vlm.model))
    encoder = [name for name in layers if name.startswith("encoder.")]
    read = [name for name in layers if name not in encoder]
    groups = {
        "all": layers,
        "encoder": encoder,
        "projector": read,
        "upper": [*encoder[len(encoder) // 2 :], *read],
    }
    chosen: set[str] = set()
    for name in wanted:
        if name in groups:
            chosen.update(groups[name])
        elif name in layers:
            chosen.add(name)
        else:
            raise ConfigError(
                f"layer '{name}' matches nothing. Layers of this model: {', '.join(layers)}; "
                f"groups: {', '.join(groups)}."
            )
    if not chosen:
        raise ConfigError(f"no layer was chosen. Layers of this model: {', '.join(layers)}.")
    return [name for name in layers if name in chosen]


def hidden_states(vlm: VLM, batch: Batch, number: int | None) -> Tensor:
    """Returns the output of an LLM block for a batch [batch, seq, dim].

    Args:
        vlm: The model.
        batch: Questions with answers.
        number: Index of the block; None is the one at a third of the depth.

    Raises:
        ConfigError: If there is no such block.
    """
    modules = list(vlm.family.language_layers(vlm.model).values())
    number = len(modules) // 3 if number is None else number
    if number >= len(modules):
        raise ConfigError(
            f"layer={number} is not there: this model's LLM has {len(modules)} blocks, 0 to "
            f"{len(modules) - 1}."
        )
    return vlm.family.hidden(vlm.model, batch.inputs, modules[number])


def layer_parameters(vlm: VLM, part: str, wanted: Sequence[str]) -> dict[str, nn.Parameter]:
    """Returns the parameters of a part that are in the wanted layers.

    Args:
        vlm: The model.
        part: A part of the model, such as "visual".
        wanted: Layers; see `choose_layers`. "all" is the whole part.

    Raises:
        ConfigError: If a name matches no layer, or the layers have no weights in that part.
    """
    parameters = vlm.parameters(part)
    if "all" in wanted:
        return parameters
    modules = vlm.family.visual_layers(vlm.model)
    prefixes = tuple(f"{modules[name]}." for name in choose_layers(vlm, wanted))
    chosen = {n: p for n, p in parameters.items() if n.startswith(prefixes)}
    if not chosen:
        raise ConfigError(f"layers {', '.join(wanted)} have no weights in the part '{part}'.")
    return chosen
