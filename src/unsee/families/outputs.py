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
    """The outputs of a layer that ran once a picture, as [tokens, dim]; a single one as it is.

    Some projectors (Ovis 2) also run on the marks around pictures, which are no row of pictures:
    outputs of another shape than the first are left out.
    """
    alike = [output for output in outputs if output.dim() == outputs[0].dim()]
    if len(alike) == 1:
        return alike[0]
    return torch.cat([output.flatten(0, -2) for output in alike])
