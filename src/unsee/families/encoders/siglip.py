"""SigLIP and SigLIP 2: an image tower that pools by attention, and a text tower."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from unsee.families.encoders import ENCODERS, Encoder
from unsee.types import Parts

if TYPE_CHECKING:
    from torch import Tensor


@ENCODERS.register("siglip", source="Zhai et al., arXiv 2303.15343")
class Siglip(Encoder):
    """SigLIP (`SiglipModel`, also SigLIP 2 of one resolution); the text tower stays as it is."""

    model_types: ClassVar[tuple[str, ...]] = ("siglip",)
    parts: ClassVar[Parts] = Parts(
        encoder=(
            "vision_model.embeddings.",
            "vision_model.encoder.",
            "vision_model.post_layernorm.",
        ),
        projector=("vision_model.head.",),
        language=("text_model.", "logit_scale", "logit_bias"),
    )
    embedding_module: ClassVar[str] = "vision_model.head"
    has_text_tower: ClassVar[bool] = True
    # It was trained on texts that were all padded to one length, and reads the last token.
    text_padding: ClassVar[str | bool] = "max_length"

    def visual_forward(self, model: Any, inputs: dict[str, Tensor]) -> None:
        """Runs the image tower and its pooling head."""
        model.get_image_features(**inputs)


@ENCODERS.register("siglip2", source="Tschannen et al., arXiv 2502.14786")
class Siglip2(Siglip):
    """SigLIP 2 of any resolution and aspect ratio (NaFlex, `Siglip2Model`)."""

    model_types: ClassVar[tuple[str, ...]] = ("siglip2",)
    visual_names: ClassVar[tuple[str, ...]] = (
        "pixel_values",
        "pixel_attention_mask",
        "spatial_shapes",
    )
    aligned: ClassVar[bool] = False
