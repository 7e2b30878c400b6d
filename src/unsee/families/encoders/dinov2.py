"""DINOv2, with and without registers: a self-supervised image encoder without a text tower."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar

import torch

from unsee.families.encoders import ENCODERS, Encoder
from unsee.families.llava import DINOV2_NAMES
from unsee.types import Parts

if TYPE_CHECKING:
    from torch import Tensor


class ClassAndPatches(Encoder):
    """Base class of encoders whose output is a class token and patches, after a last norm.

    The embedding is the class token beside the mean of the other tokens, as in the linear
    evaluation of DINOv2 (arXiv 2304.07193).
    Differs: registers, where there are any, count as patches.
    """

    def represented(self, layer: str, output: Tensor) -> Tensor:
        """Class token and mean of the others [pictures, 2, dim] of the last norm; else all."""
        if layer != "projector":
            return output
        return torch.stack([output[:, 0], output[:, 1:].mean(1)], 1)

    def pooled(self, layer: str, tokens: Tensor) -> Tensor:
        """Both vectors of the last norm side by side; of other layers the mean over the tokens."""
        return tokens.flatten() if layer == "projector" else super().pooled(layer, tokens)


@ENCODERS.register("dinov2", source="Oquab et al., arXiv 2304.07193")
class Dinov2(ClassAndPatches):
    """DINOv2 (`Dinov2Model`), with or without registers; it has no text tower."""

    model_types: ClassVar[tuple[str, ...]] = ("dinov2", "dinov2_with_registers")
    parts: ClassVar[Parts] = Parts(
        encoder=("embeddings.", "encoder."), projector=("layernorm.",), language=()
    )
    embedding_module: ClassVar[str] = "layernorm"
    prefixes: ClassVar[tuple[str, ...]] = ("", "dinov2.", "dinov2_with_registers.")
    published_names: ClassVar[Mapping[str, str]] = DINOV2_NAMES
