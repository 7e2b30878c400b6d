"""Idefics 2 and 3, SmolVLM: rows of a batch are padded to the same number of pictures."""

from __future__ import annotations

from collections.abc import Sequence
from math import isqrt
from typing import TYPE_CHECKING, Any, ClassVar

from unsee.families import FAMILIES, Family
from unsee.families.mmproj import Mmproj
from unsee.types import Parts

if TYPE_CHECKING:
    from PIL import Image
    from torch import Tensor

# Largest patch size (pixels) of an encoder. If a larger one is computed from the number of tokens,
# the output is a resampler's, which has fewer tokens than patches.
LARGEST_PATCH = 32


@FAMILIES.register("idefics2", source="Laurençon et al., arXiv 2405.02246")
class Idefics2(Family):
    """Idefics2 (`Idefics2ForConditionalGeneration`): SigLIP at any shape, perceiver resampler."""

    model_types: ClassVar[tuple[str, ...]] = ("idefics2",)
    parts: ClassVar[Parts] = Parts(
        encoder=("model.vision_model.",),
        projector=("model.connector.",),
        language=("model.text_model.", "lm_head."),
    )
    nests_images: ClassVar[bool] = True
    visual_names: ClassVar[tuple[str, ...]] = ("pixel_values", "pixel_attention_mask")
    lora_targets: ClassVar[str] = (
        r".*text_model.*\.(q_proj|k_proj|v_proj|o_proj|gate_proj|up_proj|down_proj)"
    )

    def visual_layers(self, model: Any) -> dict[str, str]:
        """Encoder layers and the connector."""
        prefix = "model.vision_model.encoder.layers"
        count = len(model.get_submodule(prefix))
        layers = {f"encoder.{i}": f"{prefix}.{i}" for i in range(count)}
        return layers | {"projector": "model.connector"}

    def visual_mlps(self, model: Any) -> dict[str, tuple[str, str]]:
        """fc1 and fc2 of every encoder layer."""
        return {
            short: (f"{module}.mlp.fc1", f"{module}.mlp.fc2")
            for short, module in self.visual_layers(model).items()
            if short != "projector"
        }

    def token_shares(self, inputs: dict[str, Tensor]) -> list[int]:
        """One per picture; padding pictures (all zeros) do not enter the encoder."""
        return [1] * int(self._is_picture(inputs).sum())

    def split(self, output: Tensor, inputs: dict[str, Tensor]) -> list[Tensor]:
        """One tensor per picture, without the patches that pad it to the batch's size."""
        masks = inputs["pixel_attention_mask"][self._is_picture(inputs)]
        height, width = masks.shape[1:]
        area, rest = divmod(height * width, output.shape[1])
        patch = isqrt(area)
        if rest or patch**2 != area or patch > LARGEST_PATCH:
            return list(output)
        whole = masks.unfold(1, patch, patch).unfold(2, patch, patch).bool().all(-1).all(-1)
        return [tokens[mask] for tokens, mask in zip(output, whole.flatten(1), strict=True)]

    def _is_picture(self, inputs: dict[str, Tensor]) -> Tensor:
        return (inputs["pixel_values"].flatten(2) != 0).any(-1)


@FAMILIES.register(
    "idefics3", source="Laurençon et al., arXiv 2408.12637; Marafioti et al., arXiv 2504.05299"
)
class Idefics3(Idefics2):
    """Idefics3, SmolVLM 1 and 2 (`Idefics3`, `SmolVLMForConditionalGeneration`): tiles, shuffle.

    Values of `pixel_attention_mask` are the number of the tile's picture in its row: 1, 2, ...; the
    model only distinguishes 0 from other values.
    """

    model_types: ClassVar[tuple[str, ...]] = ("idefics3", "smolvlm")

    def mmproj(self, model: Any, processor: Any) -> Mmproj:
        """llama.cpp's "idefics3": pixel shuffle, then one linear layer.

        Source: llama.cpp, conversion/smolvlm.py and tools/mtmd/models/siglip.cpp.
        """
        config = model.config
        return Mmproj(
            "idefics3",
            int(config.vision_config.num_hidden_layers),
            {
                "clip.use_gelu": True,
                "clip.vision.projector.scale_factor": int(config.scale_factor),
                "clip.vision.preproc_image_size": int(
                    processor.image_processor.size["longest_edge"]
                ),
            },
        )

    def process(
        self,
        processor: Any,
        texts: Sequence[str],
        images: Sequence[Sequence[Image.Image]],
        side: str,
    ) -> dict[str, Tensor]:
        """See `Family.process`; also numbers the tiles of every picture in the pixel mask."""
        inputs = super().process(processor, texts, images, side)
        if "pixel_attention_mask" in inputs:
            inputs["pixel_attention_mask"] = inputs["pixel_attention_mask"].long()
            for row, ids in enumerate(inputs["input_ids"].tolist()):
                start = 0
                for number, count in enumerate(_tiles(processor, ids), 1):
                    inputs["pixel_attention_mask"][row, start : start + count] *= number
                    start += count
        return inputs

    def token_shares(self, inputs: dict[str, Tensor]) -> list[int]:
        """The number of tiles of each picture."""
        counts: list[int] = []
        numbers = inputs["pixel_attention_mask"].flatten(2).amax(-1)
        for row, shown in zip(numbers, self._is_picture(inputs), strict=True):
            tiles = row[shown].tolist()
            counts += [tiles.count(number) for number in sorted(set(tiles))]
        return counts

    def split(self, output: Tensor, inputs: dict[str, Tensor]) -> list[Tensor]:
        """See `Family.split`; tiles have no padding."""
        return Family.split(self, output, inputs)


def _tiles(processor: Any, ids: Sequence[int]) -> list[int]:
    """The number of tiles of every picture in a text; the thumbnail of the whole comes last."""
    tag = getattr(processor, "global_image_tag", None) or processor.global_image_token
    image, whole = processor.tokenizer.convert_tokens_to_ids([processor.image_token, tag])
    counts, open_tiles = [], 0
    for before, token in zip([None, *ids], ids, strict=False):
        if token == image and before != image:
            open_tiles += 1
            if before == whole:
                counts.append(open_tiles)
                open_tiles = 0
    return counts
