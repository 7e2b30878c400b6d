"""The gallery of a record: one question about some people, with every model's answer."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

from unsee.records.schema import GalleryEntry, SampleResult
from unsee.types import Picture


def gallery(
    rows: Mapping[str, Sequence[SampleResult]],
    forgetting: Collection[str] = (),
    kept: int = 4,
    pictures: Mapping[str, Picture] | None = None,
) -> tuple[GalleryEntry, ...]:
    """Returns one question about every forgotten person and about `kept` others.

    Args:
        rows: Results by model: "unlearned", "target" and "reference".
        forgetting: The splits that ask about what is to be forgotten.
        kept: Number of people beside the forgotten ones.
        pictures: The pictures by their source, to record their hashes.
    """
    opened = pictures or {}
    pictured = [row for row in rows.get("unlearned", ()) if row.picture]
    answers = {
        model: {(row.split, row.id): row.output for row in results}
        for model, results in rows.items()
    }
    forgotten = [row for row in pictured if row.split in forgetting]
    others = [row for row in pictured if row.split not in forgetting]
    chosen = _one_each(forgotten, "forget_holdout") + _one_each(others, "retain_holdout")[:kept]
    return tuple(
        GalleryEntry(
            concept=row.concept,
            split=row.split,
            picture=str(Path(row.picture or "").resolve()),
            **_digest(opened.get(row.picture or "")),
            question=row.question,
            truth=row.truth,
            before=answers.get("target", {}).get((row.split, row.id)),
            after=row.output,
            reference=answers.get("reference", {}).get((row.split, row.id)),
        )
        for row in chosen
    )


def _digest(picture: Picture | None) -> dict[str, str]:
    """The field with a picture's hash; none if the picture is not known."""
    return {"picture_sha256": picture.digest} if picture is not None else {}


def _one_each(rows: Sequence[SampleResult], preferred: str) -> list[SampleResult]:
    """Returns one row per concept of one split, generated answers first.

    The split is `preferred`, or the first where there is no row of that.
    """
    splits = list(dict.fromkeys(row.split for row in rows))
    split = preferred if preferred in splits or not splits else splits[0]
    by_concept: dict[str, SampleResult] = {}
    candidates = [row for row in rows if row.split == split]
    for row in sorted(candidates, key=lambda row: row.task != "generation"):
        by_concept.setdefault(str(row.concept), row)
    return list(by_concept.values())
