"""Captions among which an image encoder with a text tower finds that of a picture."""

from __future__ import annotations

import random
from collections.abc import Collection, Mapping, Sequence

import numpy as np
from jaxtyping import Bool, Float

from unsee.evaluation.evaluate import is_forgetting
from unsee.evaluation.recognition import unit
from unsee.metrics import CaptionMatch
from unsee.types import Sample

# What is measured of pictures with captions, the judged one first.
CAPTION_METRICS = (
    "caption_rank",
    "caption_found",
    "association",
    "core_association",
    "association_gap",
)
# Other captions that are drawn of what is to be forgotten, and as many of what is kept.
OTHERS = 1000
SEED = 0
# Cosines that differ by no more are equal: embeddings have 32 bits.
EQUAL = 1e-6


def draw_captions(
    splits: Mapping[str, Sequence[Sample]], forgetting: Collection[str]
) -> tuple[str, ...]:
    """Returns the captions that every picture's own is compared with, the same for every model.

    They are up to `OTHERS` of what is to be forgotten, and up to as many of the splits whose names
    begin with "retain", else of all others.

    Source: SALMUBench, arXiv 2603.26316: 1000 captions of its forget set, and 1000 plain ones of
    nobody in particular.

    Differs: captions are drawn with our own seed, and each counts once.

    Args:
        splits: Pictures with their captions as answers, by split.
        forgetting: The splits about what is to be forgotten.

    Example:
        >>> pairs = {"forget": [Sample("1", "", "Ada: 5")], "retain": [Sample("2", "", "a face")]}
        >>> draw_captions(pairs, ["forget"])
        ('Ada: 5', 'a face')
    """
    away = {name for name in splits if is_forgetting(name, forgetting)}
    rest = [name for name in splits if name not in away]
    kept = [name for name in rest if name.startswith("retain")] or rest
    drawn: list[str] = []
    generator = random.Random(SEED)
    for names in (away, kept):
        texts = sorted({sample.answer for name in names for sample in splits[name]})
        drawn += texts if len(texts) <= OTHERS else generator.sample(texts, OTHERS)
    return tuple(dict.fromkeys(drawn))


def match_captions(
    pictures: Float[np.ndarray, "pairs dim"],
    captions: Float[np.ndarray, "pairs dim"],
    others: Float[np.ndarray, "others dim"],
    is_own: Bool[np.ndarray, "pairs others"],
    wordings: Sequence[Float[np.ndarray, "wordings dim"]] = (),
) -> list[CaptionMatch | None]:
    """Returns how near each picture lies to its caption and to other captions, by cosine.

    Args:
        pictures: Embeddings of pictures.
        captions: Embeddings of the caption of each, in the same space.
        others: Embeddings of the captions to compare with.
        is_own: Which of these are the picture's own caption, and left out for it.
        wordings: Embeddings of the other wordings of each picture's caption; () if none has any.

    Returns:
        One a pair; None where an embedding is not finite.

    Example:
        >>> pictures, captions = np.array([[1.0, 0.0]]), np.array([[3.0, 4.0]])
        >>> others = np.array([[0.0, 2.0], [5.0, 0.0]])
        >>> match_captions(pictures, captions, others, np.zeros((1, 2), bool))
        [CaptionMatch(own=0.6, others=0.5, rank=2.0, reworded=nan)]
    """
    found: list[CaptionMatch | None] = []
    rows = [unit(each.astype(np.float64)) for each in (pictures, captions)]
    units = unit(others.astype(np.float64))
    told_by_pair = wordings or [units[:0]] * len(is_own)
    for picture, caption, skip, told in zip(*rows, is_own, told_by_pair, strict=True):
        own = float(picture @ caption)
        cosines, reworded = units[~skip] @ picture, unit(told.astype(np.float64)) @ picture
        if not np.isfinite(np.concatenate([[own], cosines, reworded])).all():
            found.append(None)
            continue
        core = float(reworded.max()) if len(reworded) else float("nan")
        if not len(cosines):
            found.append(CaptionMatch(own, float("nan"), float("nan"), core))
            continue
        before = (cosines > own + EQUAL).sum() + (abs(cosines - own) <= EQUAL).sum() / 2
        found.append(CaptionMatch(own, float(cosines.mean()), 1 + float(before), core))
    return found
