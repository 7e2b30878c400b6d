"""DINOv3: a self-supervised vision transformer with registers and rotary positions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from unsee.families.encoders import ENCODERS
from unsee.families.encoders.dinov2 import ClassAndPatches
from unsee.types import Parts


@ENCODERS.register("dinov3", source="Siméoni et al., arXiv 2508.10104")
class Dinov3(ClassAndPatches):
    """DINOv3 (`DINOv3ViTModel`); it has no text tower."""

    model_types: ClassVar[tuple[str, ...]] = ("dinov3_vit",)
    parts: ClassVar[Parts] = Parts(
        encoder=("embeddings.", "model.layer."), projector=("norm.",), language=()
    )
    embedding_module: ClassVar[str] = "norm"
    published_names: ClassVar[Mapping[str, str]] = {"model.layer.": "layer."}
