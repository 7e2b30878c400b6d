"""InternVL in the Hugging Face port: tiles in one list, without a word on whose they are."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import torch

from unsee.families import FAMILIES
from unsee.families.llava import Llava

if TYPE_CHECKING:
    from PIL import Image
    from torch import Tensor


@FAMILIES.register("internvl", source="Zhu et al., arXiv 2504.10479")
class InternVL(Llava):
    """InternVL 2 to 3.5 (`InternVLForConditionalGeneration`): InternViT, pixel shuffle, tiles."""

    model_types: ClassVar[tuple[str, ...]] = ("internvl",)
    aligned: ClassVar[bool] = False

    def visual_inputs(self, model: Any, inputs: dict[str, Tensor]) -> dict[str, Tensor]:
        """Also "tiles": how long each run of image tokens is, one run a picture."""
        found = super().visual_inputs(model, inputs)
        if "tiles" in inputs:
            # From `collate_pictures`, without a text.
            found["tiles"] = inputs["tiles"]
        elif found:
            image = (inputs["input_ids"] == model.config.image_token_id).int()
            edge = torch.zeros_like(image[:, :1])
            steps = torch.diff(torch.cat([edge, image, edge], 1), dim=1)
            # Both lists go row by row, and a run ends before the next begins.
            starts, ends = (steps == 1).nonzero()[:, 1], (steps == -1).nonzero()[:, 1]
            found["tiles"] = (ends - starts) // int(model.config.image_seq_length)
        return found

    def visual_forward(self, model: Any, inputs: dict[str, Tensor]) -> None:
        """See `Family.visual_forward`."""
        super().visual_forward(model, {"pixel_values": inputs["pixel_values"]})

    def shares(self, inputs: dict[str, Tensor]) -> list[int]:
        """Tiles of each picture."""
        return [int(n) for n in inputs["tiles"]]

    def collate_pictures(self, processor: Any, images: Sequence[Image.Image]) -> dict[str, Tensor]:
        """See `Family.collate_pictures`."""
        # The processor asks for tiles, and its image processor alone would not make any.
        texts = [processor.image_token for _ in images]
        found = processor(text=texts, images=list(images), padding=True, return_tensors="pt")
        counts = (found["input_ids"] == processor.image_token_id).sum(1)
        tiles = counts // processor.image_seq_length
        return {"pixel_values": found["pixel_values"], "tiles": tiles}
