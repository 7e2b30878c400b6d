"""Overlaps between what is to be forgotten and what is kept: near-duplicates, names and texts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np

from unsee.errors import printable
from unsee.types import Picture, Sample

# Two pictures are near-duplicates if their thumbnails differ by at most this much, on average over
# 16 x 16 pixels and three channels of 0..255, and are correlated by at least this much. The 824
# drawn pictures of the pocket benchmark differ by 4.8 or more; their own copies as JPEG 95 or WebP,
# or at a third of the size, by 3.1 or less.
MAX_DIFFERENCE, MIN_CORRELATION = 3.2, 0.95

# A thumbnail with less contrast is of one colour; correlations mean nothing there.
_FLAT = 2.0


def near_duplicates(
    pictures: Sequence[Picture], others: Sequence[Picture]
) -> list[tuple[Picture, Picture]]:
    """Returns the pairs of pictures that show the same, though encoded or sized otherwise.

    Args:
        pictures: Pictures.
        others: Pictures that they are compared with.

    Returns:
        For each of `others` that has one, its nearest counterpart in `pictures`, before it.
    """
    if not pictures or not others:
        return []
    first, normed = _thumbnails(pictures)
    pairs: list[tuple[Picture, Picture]] = []
    for start in range(0, len(others), 256):
        chunk = others[start : start + 256]
        second, other_normed = _thumbnails(chunk)
        correlated = normed @ other_normed.T >= MIN_CORRELATION
        for column, other in enumerate(chunk):
            rows = np.flatnonzero(correlated[:, column])
            if not len(rows):
                continue
            differences = np.abs(first[rows] - second[column]).mean(axis=1)
            nearest = int(differences.argmin())
            if differences[nearest] <= MAX_DIFFERENCE:
                pairs.append((pictures[int(rows[nearest])], other))
    return pairs


def _thumbnails(pictures: Sequence[Picture]) -> tuple[np.ndarray, np.ndarray]:
    """The thumbnails as rows, and normed so that a product of two rows is their correlation.

    The last column of the normed ones is 1 for pictures of one colour, whose other columns are 0.
    """
    rows = np.stack([np.frombuffer(p.thumbnail, dtype=np.uint8) for p in pictures])
    values = rows.astype(np.float32)
    centred = values - values.mean(axis=1, keepdims=True)
    flat = centred.std(axis=1) < _FLAT
    norms = np.linalg.norm(centred, axis=1, keepdims=True)
    normed = np.where(flat[:, None], 0, centred / np.maximum(norms, 1e-6))
    return values, np.concatenate([normed, flat[:, None]], axis=1).astype(np.float32)


def overlap_notes(
    forget: Sequence[Sample], retain: Sequence[Sample], strangers: Sequence[Picture] = ()
) -> list[str]:
    """Returns a sentence on each kind of overlap between the sets of a run; names the pairs.

    Pictures of equal content in forget and retain are an error of its own; see `check_disjoint`.

    Args:
        forget: Samples to forget.
        retain: Samples to keep.
        strangers: Pictures of people whom the model was not trained on.
    """
    to_forget = _distinct(forget)
    notes: list[str] = []
    pairs = near_duplicates(to_forget, _distinct(retain))
    if pairs:
        notes.append(
            f"{len(pairs)} retain pictures are near-duplicates of forget pictures, so the same "
            f"person is forgotten and kept: {_named(pairs)}. Remove them from one of the sets."
        )
    pairs = near_duplicates(to_forget, strangers)
    if pairs:
        notes.append(
            f"{len(pairs)} strangers are among the forget pictures: {_named(pairs)}. Strangers "
            "must be people whom the model does not know."
        )
    concepts = _shared_concepts(forget, retain)
    if concepts:
        notes.append(
            f"{len(concepts)} concepts are in the forget set and in the retain set: "
            f"{_listed(concepts)}. Keep each in one of them, unless only a part is to be forgotten."
        )
    texts = _shared_texts(forget, retain)
    if texts:
        notes.append(
            f"{len(texts)} text rows are in the forget set and in the retain set: "
            f"{_listed(texts)}. Remove them from one of the sets."
        )
    return notes


def _distinct(samples: Sequence[Sample]) -> list[Picture]:
    return list({p.source: p for sample in samples for p in sample.pictures}.values())


def _key(text: str) -> str:
    return " ".join(text.casefold().split())


def _shared_concepts(forget: Sequence[Sample], retain: Sequence[Sample]) -> list[str]:
    kept = Counter(_key(s.concept) for s in retain if s.concept)
    names = {_key(s.concept): s.concept for s in forget if s.concept}
    return [f"'{name}' ({kept[key]} retain samples)" for key, name in names.items() if key in kept]


def _shared_texts(forget: Sequence[Sample], retain: Sequence[Sample]) -> list[str]:
    """Pairs of ids of text-only samples with the same question and answer."""
    ids = {(_key(s.question), _key(s.answer)): s.id for s in retain if s.picture is None}
    keys = ((s.id, (_key(s.question), _key(s.answer))) for s in forget if s.picture is None)
    return [f"forget '{name}' is retain '{ids[key]}'" for name, key in keys if key in ids]


def _named(pairs: Sequence[tuple[Picture, Picture]]) -> str:
    return _listed([f"{other.source} is like {picture.source}" for picture, other in pairs])


def _listed(texts: Sequence[str], most: int = 5) -> str:
    more = f"; and {len(texts) - most} more" if len(texts) > most else ""
    return printable("; ".join(texts[:most]) + more)
