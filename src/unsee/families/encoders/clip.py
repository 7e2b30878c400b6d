"""CLIP: an image tower and a text tower that embed in one space."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from unsee.families.encoders import ENCODERS, Encoder
from unsee.types import Parts

if TYPE_CHECKING:
    from torch import Tensor


@ENCODERS.register("clip", source="Radford et al., arXiv 2103.00020")
class Clip(Encoder):
    """CLIP (`CLIPModel`): image tower with its projection, and a text tower that stays as it is."""

    model_types: ClassVar[tuple[str, ...]] = ("clip",)
    parts: ClassVar[Parts] = Parts(
        encoder=("vision_model.",),
        projector=("visual_projection.",),
        language=("text_model.", "text_projection.", "logit_scale"),
    )
    embedding_module: ClassVar[str] = "visual_projection"
    has_text_tower: ClassVar[bool] = True

    def visual_forward(self, model: Any, inputs: dict[str, Tensor]) -> None:
        """Runs the image tower and its projection."""
        model.get_image_features(**inputs)
