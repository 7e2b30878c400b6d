"""InternVL in the Hugging Face port: the tiles of all pictures are in one list."""

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
        """See `Family.visual_inputs`; also "tiles", the number of tiles of each picture.

        It is derived from the runs of image tokens in the text, one run per picture.
        """
        visual = super().visual_inputs(model, inputs)
        if "tiles" in inputs:
            # The inputs are from `collate_pictures` and have no text.
            visual["tiles"] = inputs["tiles"]
        elif visual:
            image = (inputs["input_ids"] == model.config.image_token_id).int()
            edge = torch.zeros_like(image[:, :1])
            steps = torch.diff(torch.cat([edge, image, edge], 1), dim=1)
            # Both are in row order, and a run ends before the next one starts.
            starts, ends = (steps == 1).nonzero()[:, 1], (steps == -1).nonzero()[:, 1]
            visual["tiles"] = (ends - starts) // int(model.config.image_seq_length)
        return visual

    def visual_forward(self, model: Any, inputs: dict[str, Tensor]) -> None:
        """See `Family.visual_forward`."""
        super().visual_forward(model, {"pixel_values": inputs["pixel_values"]})

    def token_shares(self, inputs: dict[str, Tensor]) -> list[int]:
        """The number of tiles of each picture."""
        return [int(n) for n in inputs["tiles"]]

    def collate_pictures(self, processor: Any, images: Sequence[Image.Image]) -> dict[str, Tensor]:
        """See `Family.collate_pictures`."""
        # Called alone, the image processor would not make tiles.
        texts = [processor.image_token for _ in images]
        outputs = processor(text=texts, images=list(images), padding=True, return_tensors="pt")
        counts = (outputs["input_ids"] == processor.image_token_id).sum(1)
        tiles = counts // processor.image_seq_length
        return {"pixel_values": outputs["pixel_values"], "tiles": tiles}
