"""ViT: the first vision transformer, trained to classify."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from unsee.families.encoders import ENCODERS
from unsee.families.encoders.dinov2 import ClassAndPatches
from unsee.types import Parts


@ENCODERS.register("vit", source="Dosovitskiy et al., arXiv 2010.11929")
class Vit(ClassAndPatches):
    """ViT (`ViTModel`) without its pooler; a classifier's head is kept as it is, untrained."""

    model_types: ClassVar[tuple[str, ...]] = ("vit",)
    parts: ClassVar[Parts] = Parts(
        encoder=("embeddings.", "layers."), projector=("layernorm.",), language=()
    )
    embedding_module: ClassVar[str] = "layernorm"
    # Checkpoints of classifiers have none, and nothing reads it.
    model_options: ClassVar[Mapping[str, Any]] = {"add_pooling_layer": False}
    prefixes: ClassVar[tuple[str, ...]] = ("", "vit.")
    published_names: ClassVar[Mapping[str, str]] = {
        "layers.": "encoder.layer.",
        "attention.q_proj": "attention.attention.query",
        "attention.k_proj": "attention.attention.key",
        "attention.v_proj": "attention.attention.value",
        "attention.o_proj": "attention.output.dense",
        "mlp.fc1": "intermediate.dense",
        "mlp.fc2": "output.dense",
    }
