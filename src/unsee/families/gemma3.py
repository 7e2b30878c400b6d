"""Gemma 3: SigLIP, average pooling, bidirectional attention among a picture's tokens."""

from __future__ import annotations

from math import isqrt
from typing import Any, ClassVar

from unsee.errors import ModelError
from unsee.families import FAMILIES
from unsee.families.llava import Llava
from unsee.families.mmproj import Mmproj


@FAMILIES.register("gemma3", source="Gemma team, arXiv 2503.19786")
class Gemma3(Llava):
    """Gemma 3 (`Gemma3ForConditionalGeneration`): a fixed number of tokens per picture."""

    model_types: ClassVar[tuple[str, ...]] = ("gemma3",)
    nests_images: ClassVar[bool] = True
    reuses_prefix: ClassVar[bool] = False

    def placeholder(self, processor: Any) -> str | None:
        """The begin-of-image token, which the processor expands."""
        token: str = processor.boi_token
        return token

    def image_token_id(self, processor: Any) -> int | None:
        """The tokenizer's image token, which the processor puts in place of the placeholder."""
        token: int | None = processor.tokenizer.image_token_id
        return token

    def mmproj(self, model: Any, processor: Any) -> Mmproj:
        """llama.cpp's "gemma3", whose soft embedding norm does not add 1 to its weights.

        Source: llama.cpp, conversion/gemma.py and tools/mtmd/models/siglip.cpp.
        """
        tower, projector = model.config.vision_config, "model.multi_modal_projector"
        side = tower.image_size // tower.patch_size
        merged = side // isqrt(model.config.mm_tokens_per_image)
        facts = {"clip.use_gelu": True}
        # llama.cpp assumes 4, that of all published sizes.
        if merged != 4:
            facts["clip.vision.projector.scale_factor"] = merged
        weight = f"{projector}.mm_input_projection_weight"
        return Mmproj(
            "gemma3",
            int(tower.num_hidden_layers),
            facts,
            {weight: "mm.input_projection.weight"},
            ("model.vision_tower.head.",),
            {f"{projector}.mm_soft_emb_norm.weight": 1.0},
            (weight,),
        )

    def check_processor(self, processor: Any) -> None:
        """Refuses pan and scan, whose crops give pictures different numbers of tokens."""
        if getattr(processor.image_processor, "do_pan_and_scan", None):
            raise ModelError(
                "Gemma 3's pan and scan (do_pan_and_scan in preprocessor_config.json or "
                "processor_config.json) is not supported: with crops, pictures have different "
                "numbers of tokens. Set it to false."
            )
