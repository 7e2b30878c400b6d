"""Overlaps between what is to be forgotten and what is kept: near-duplicates, names and texts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace

import numpy as np

from unsee.errors import counted, printable
from unsee.types import Picture, Sample

# Two pictures are near-duplicates if their thumbnails differ by at most this much, on average over
# 16 x 16 pixels and three channels of 0..255, and are correlated by at least this much. The 824
# drawn pictures of the pocket benchmark differ by 4.8 or more; their own copies as JPEG 95 or WebP,
# or at a third of the size, by 3.1 or less.
MAX_DIFFERENCE, MIN_CORRELATION = 3.2, 0.95

# Most pictures of one person that are compared each with each: a second on one core.
MOST_COMPARED = 5000

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


def photograph_groups(pictures: Iterable[Picture]) -> list[list[Picture]]:
    """Returns pictures in groups that show one photograph: equal, or encoded or sized otherwise.

    Of more than `MOST_COMPARED` different pictures only equal ones are together.

    Args:
        pictures: Pictures; each joins the first group whose first picture it is like.

    Raises:
        DataError: If a picture cannot be opened.
    """
    equal: dict[str, list[Picture]] = {}
    for picture in pictures:
        equal.setdefault(picture.digest, []).append(picture)
    alike = _alike([same[0] for same in equal.values()])
    groups: dict[int, list[Picture]] = {}
    for row, same in enumerate(equal.values()):
        head = next((other for other in alike.get(row, ()) if other in groups), row)
        groups.setdefault(head, []).extend(same)
    return list(groups.values())


def _alike(pictures: Sequence[Picture]) -> dict[int, list[int]]:
    """The numbers of the near-duplicates before each picture that has some, in order."""
    if not 1 < len(pictures) <= MOST_COMPARED:
        return {}
    values, normed = _thumbnails(pictures)
    alike: dict[int, list[int]] = {}
    for start in range(0, len(pictures), 256):
        correlated = normed[start : start + 256] @ normed[: start + 256].T >= MIN_CORRELATION
        for row, some in enumerate(correlated, start):
            others = np.flatnonzero(some[:row])
            differences = np.abs(values[others] - values[row]).mean(axis=1)
            if near := others[differences <= MAX_DIFFERENCE].tolist():
                alike[row] = near
    return alike


def distinct_photographs(pictures: Iterable[Picture]) -> int:
    """Returns the number of photographs: copies, and marked faces of one photograph, count as one.

    Raises:
        DataError: If a picture cannot be opened.
    """
    whole = (p if p.region is None else replace(p, region=None) for p in pictures)
    return len(photograph_groups(whole))


def copies(samples: Iterable[Sample]) -> dict[str, str]:
    """Returns the photographs that are given twice of one person: each by its source, and which.

    Args:
        samples: Samples; a photograph that several people share is given once of each of them.

    Returns:
        The source of the photograph that counts, by the source of its copy.

    Raises:
        DataError: If a picture cannot be opened.
    """
    people: dict[str | None, dict[str, Picture]] = {}
    for sample in samples:
        for picture in sample.pictures:
            people.setdefault(sample.concept, {})[picture.source] = picture
    return {
        copy.source: group[0].source
        for pictures in people.values()
        for group in photograph_groups(pictures.values())
        for copy in group[1:]
    }


def without_copies(samples: Sequence[Sample]) -> list[Sample]:
    """Returns samples without those that show a copy of a photograph of the same person.

    Else a copy of what is trained on could be held out to test on.

    Args:
        samples: Photographs without questions.
    """
    twice = copies(samples)
    return [s for s in samples if s.picture is None or s.picture.source not in twice]


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
            f"{_are(len(pairs), 'retain picture')} near-duplicates of forget pictures, so the same "
            f"person is forgotten and kept: {_named(pairs)}. Remove them from one of the sets."
        )
    pairs = near_duplicates(to_forget, strangers)
    if pairs:
        notes.append(
            f"{_are(len(pairs), 'stranger')} among the forget pictures: {_named(pairs)}. Strangers "
            "must be people whom the model does not know."
        )
    concepts = _shared_concepts(forget, retain)
    if concepts:
        notes.append(
            f"{_are(len(concepts), 'concept')} in the forget set and in the retain set: "
            f"{_listed(concepts)}. Keep each in one of them, unless only a part is to be forgotten."
        )
    texts = _shared_texts(forget, retain)
    if texts:
        notes.append(
            f"{_are(len(texts), 'text row')} in the forget set and in the retain set: "
            f"{_listed(texts)}. Remove them from one of the sets."
        )
    return notes


def _are(count: int, noun: str) -> str:
    return f"{counted(count, noun)} {'is' if count == 1 else 'are'}"


def _distinct(samples: Sequence[Sample]) -> list[Picture]:
    return list({p.source: p for sample in samples for p in sample.pictures}.values())


def _key(text: str) -> str:
    return " ".join(text.casefold().split())


def _shared_concepts(forget: Sequence[Sample], retain: Sequence[Sample]) -> list[str]:
    kept = Counter(_key(s.concept) for s in retain if s.concept)
    names = {_key(s.concept): s.concept for s in forget if s.concept}
    return [
        f"'{name}' ({counted(kept[key], 'retain sample')})"
        for key, name in names.items()
        if key in kept
    ]


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
