"""Features of pictures as one vector each: the mean over a picture's tokens."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float

from unsee.features.capture import picture_features
from unsee.features.layers import choose_layers
from unsee.features.pictures import picture_batches
from unsee.models.vlm import VLM
from unsee.types import Picture

# The name of what the LLM reads: the outputs of all layers of the group "projector", side by side.
TOKENS = "tokens"


def compared_layers(vlm: VLM) -> list[str]:
    """Returns the encoder layers at half and at the full depth; the model's own names."""
    encoder = choose_layers(vlm, ["encoder"])
    return list(dict.fromkeys([encoder[(len(encoder) - 1) // 2], encoder[-1]]))


@torch.no_grad()
def pooled_features(
    vlm: VLM, pictures: Sequence[Picture], layers: Sequence[str]
) -> dict[str, Float[np.ndarray, "pictures dim"]]:
    """Returns the mean features of pictures at what the LLM reads (`TOKENS`) and at layers.

    Args:
        vlm: The model; only its visual part runs.
        pictures: The pictures.
        layers: Names of visual layers.

    Example:
        >>> pictures = [sample.picture for sample in data.forget[:3]]
        >>> {name: f.shape[0] for name, f in pooled_features(vlm, pictures, []).items()}
        {'tokens': 3}
    """
    read = choose_layers(vlm, ["projector"])
    rows: dict[str, list[np.ndarray]] = {name: [] for name in (TOKENS, *layers)}
    for inputs in picture_batches(vlm, pictures):
        features = picture_features(vlm, inputs, list(dict.fromkeys([*read, *layers])))
        means = {
            name: [vlm.family.pooled(name, t.float()).cpu().numpy() for t in tokens]
            for name, tokens in features.items()
        }
        rows[TOKENS] += [
            np.concatenate(parts) for parts in zip(*(means[n] for n in read), strict=True)
        ]
        for name in layers:
            rows[name] += means[name]
    return {name: np.stack(some) if some else np.empty((0, 1)) for name, some in rows.items()}
