"""Encoders of any architecture: blocks are found in the modules, and feature maps are tokens."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from torch import nn

from unsee.errors import ModelError
from unsee.families.encoders import Encoder

if TYPE_CHECKING:
    from torch import Tensor


class Network(Encoder):
    """Base class of encoders whose layers are not known beforehand, such as convolutional ones.

    A block is an entry of a list of modules of one class, wherever it stands; lists within a block
    are part of it. Without any list, the blocks are the outermost modules that have weights.
    """

    def represented(self, layer: str, output: Tensor) -> Tensor:
        """The tokens of a layer; a map [pictures, channels, height, width] has one a position."""
        if output.dim() == 4:
            return output.flatten(2).transpose(1, 2)
        return super().represented(layer, output)

    def visual_mlps(self, model: Any) -> dict[str, tuple[str, str]]:
        """Refuses: blocks of unknown architecture have no known MLP.

        Raises:
            ModelError: Always.
        """
        raise ModelError(
            f"the blocks of a {self.name} encoder have no MLP that is known. Leave out prune, and "
            "methods that select neurons: --method vkd needs none."
        )

    def _blocks(self, model: nn.Module) -> list[str]:
        network = self.parts.encoder[0].removesuffix(".")
        below = model.get_submodule(network)
        found = [f"{network}.{name}" for name in _listed(below)]
        return found or [f"{network}.{name}" for name in _with_weights(below)]


def _listed(module: nn.Module, prefix: str = "") -> Iterator[str]:
    """The names of the entries of all outermost lists of two or more modules of one class."""
    for name, child in module.named_children():
        entries = dict(child.named_children())
        is_list = isinstance(child, nn.Sequential | nn.ModuleList) and len(entries) > 1
        same = len({type(entry) for entry in entries.values()}) == 1
        if is_list and same and all(_has_weights(entry) for entry in entries.values()):
            yield from (f"{prefix}{name}.{entry}" for entry in entries)
        else:
            yield from _listed(child, f"{prefix}{name}.")


def _with_weights(module: nn.Module, prefix: str = "") -> list[str]:
    """The names of the outermost modules with weights, below those that hold a single one.

    Raises:
        ModelError: If no module has any.
    """
    children = [(name, child) for name, child in module.named_children() if _has_weights(child)]
    if not children:
        raise ModelError("the encoder has no module with weights that could be trained.")
    if len(children) == 1 and any(_has_weights(c) for c in children[0][1].children()):
        return _with_weights(children[0][1], f"{prefix}{children[0][0]}.")
    return [f"{prefix}{name}" for name, _ in children]


def _has_weights(module: nn.Module) -> bool:
    return any(True for _ in module.parameters())
