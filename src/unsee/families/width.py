"""The width of a model's vision encoder, from its configuration."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

# Where a configuration does not say it: that of CLIP's ViT-L.
USUAL_WIDTH = 1024


def vision_width(config: Mapping[str, Any]) -> int:
    """Returns the width of the vision encoder of a config.json; `USUAL_WIDTH` if it does not say.

    Qwen2-VL calls it `embed_dim`, and the LLM's width `hidden_size`.

    Args:
        config: The content of the file.

    Example:
        >>> vision_width({"vision_config": {"embed_dim": 1280, "hidden_size": 3584}})
        1280
    """
    vision = config.get("vision_config") or {}
    width = vision.get("embed_dim") or vision.get("hidden_size")
    return width if isinstance(width, int) else USUAL_WIDTH
