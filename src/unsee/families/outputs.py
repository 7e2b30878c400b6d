"""Outputs of visual layers as tensors, whatever form a model's class gives them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from torch import Tensor


def layer_tensor(output: Any) -> Tensor:
    """The tensor of a layer's output; of a list with a tensor a picture, [tokens, dim]."""
    if isinstance(output, torch.Tensor):
        return output
    if isinstance(output, list) and len(output) > 1:
        return torch.cat([tensor.flatten(0, -2) for tensor in output])
    first: Tensor = output[0]
    return first


def join_runs(outputs: Sequence[Tensor]) -> Tensor:
    """The outputs of a layer that ran once a picture, as [tokens, dim]; a single one as it is."""
    if len(outputs) == 1:
        return outputs[0]
    return torch.cat([output.flatten(0, -2) for output in outputs])
