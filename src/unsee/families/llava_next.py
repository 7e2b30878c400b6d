"""LLaVA-NeXT and LLaVA-OneVision: a picture is encoded whole and in tiles."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

import torch

from unsee.families import FAMILIES
from unsee.families.llava import Llava
from unsee.types import Parts

if TYPE_CHECKING:
    from torch import Tensor

PARTS = Parts(
    encoder=("model.vision_tower.",),
    projector=("model.multi_modal_projector.", "model.image_newline"),
    language=("model.language_model.", "lm_head."),
)


def tiles(inputs: dict[str, Tensor]) -> list[int]:
    """The number of tiles of each picture; padding tiles are all zeros."""
    pixels = inputs["pixel_values"]
    return [int(n) for n in (pixels.flatten(2) != 0).any(-1).sum(-1)]


@torch.no_grad()
def count_packed(model: Any, inputs: dict[str, Tensor]) -> int:
    """The number of image tokens: tiles without padding, with a token at the end of each row."""
    features = model.get_image_features(**inputs)
    packed = getattr(features, "pooler_output", features)
    return sum(len(tokens) for tokens in packed)


@FAMILIES.register("llava_next", source="https://llava-vl.github.io/blog/2024-01-30-llava-next")
class LlavaNext(Llava):
    """LLaVA-NeXT (`LlavaNextForConditionalGeneration`): LLaVA 1.5 with a tile grid."""

    model_types: ClassVar[tuple[str, ...]] = ("llava_next",)
    parts: ClassVar[Parts] = PARTS
    aligned: ClassVar[bool] = False
    visual_names: ClassVar[tuple[str, ...]] = ("pixel_values", "image_sizes")

    def count_features(self, model: Any, inputs: dict[str, Tensor]) -> int | None:
        """See `Family.count_features`."""
        return count_packed(model, inputs)

    def token_shares(self, inputs: dict[str, Tensor]) -> list[int]:
        """The number of tiles of each picture."""
        return tiles(inputs)


@FAMILIES.register("llava_onevision", source="Li et al., arXiv 2408.03326")
class LlavaOnevision(Llava):
    """LLaVA-OneVision (`LlavaOnevisionForConditionalGeneration`): SigLIP, tiles, Qwen2.

    In a row with several pictures, each has a single tile.
    """

    model_types: ClassVar[tuple[str, ...]] = ("llava_onevision",)
    parts: ClassVar[Parts] = PARTS
    aligned: ClassVar[bool] = False
    nests_images: ClassVar[bool] = True
    visual_names: ClassVar[tuple[str, ...]] = ("pixel_values", "image_sizes", "batch_num_images")

    def count_features(self, model: Any, inputs: dict[str, Tensor]) -> int | None:
        """See `Family.count_features`."""
        return count_packed(model, inputs)

    def token_shares(self, inputs: dict[str, Tensor]) -> list[int]:
        """The number of tiles of each picture."""
        return tiles(inputs)
