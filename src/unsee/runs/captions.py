"""The outputs of an image encoder on pictures with captions: how near it puts the two."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

import numpy as np
import torch

from unsee.errors import ModelError
from unsee.evaluation.captions import draw_captions, match_captions
from unsee.features.pooled import TOKENS, pooled_features
from unsee.metrics import Output
from unsee.models.vlm import VLM
from unsee.types import Sample

# Captions that are embedded at once.
BATCH = 64


def caption_outputs(
    vlm: VLM, splits: Mapping[str, Sequence[Sample]], forgetting: Collection[str]
) -> dict[str, list[Output]]:
    """Returns what metrics of captions read, by split and in the order of its samples.

    Args:
        vlm: An image encoder with a text tower.
        splits: Pictures with their captions as answers, by split.
        forgetting: The splits about what is to be forgotten.

    Raises:
        ModelError: If it has no text tower.
    """
    others = draw_captions(splits, forgetting)
    asked = [sample for samples in splits.values() for sample in samples]
    own = {text for sample in asked for text in (sample.answer, *sample.paraphrases)}
    texts = list(dict.fromkeys([*others, *sorted(own)]))
    place = {text: i for i, text in enumerate(texts)}
    embedded = _embed(vlm, texts)
    found = {}
    for split, samples in splits.items():
        pictures = [s.picture for s in samples if s.picture is not None]
        rows = np.array([place[s.answer] for s in samples])
        matches = match_captions(
            pooled_features(vlm, pictures, ())[TOKENS],
            embedded[rows],
            embedded[: len(others)],
            rows[:, None] == np.arange(len(others)),
            [embedded[[place[text] for text in s.paraphrases]] for s in samples],
        )
        found[split] = [
            Output(match=match) if match is not None else Output(fault="non_finite")
            for match in matches
        ]
    return found


@torch.no_grad()
def _embed(vlm: VLM, texts: Sequence[str]) -> np.ndarray:
    """The embeddings of texts [texts, dim].

    Raises:
        ModelError: If the model has no text tower.
    """
    parts = []
    for start in range(0, len(texts), BATCH):
        part = vlm.embed_text(texts[start : start + BATCH])
        if part is None:
            raise ModelError(
                f"model {vlm.source}: it has no text tower, so captions cannot be compared with "
                "pictures. Give a CLIP or SigLIP checkpoint."
            )
        parts.append(part.float().cpu().numpy())
    return np.concatenate(parts)
