"""How many photographs a run unlearned from, for its record."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from unsee.data.boxes import is_marked
from unsee.data.widening import FEW, how_far, photograph_counts
from unsee.records.photographs import PhotographCounts
from unsee.types import Sample


def count_photographs(
    forget: Sequence[Sample], choices: Mapping[str, Any] | None
) -> PhotographCounts | None:
    """Returns the number of photographs of each person; None if no person has one.

    Args:
        forget: The samples that were unlearned.
        choices: The method's choices, of which "widened_to" is read.
    """
    counts = sorted(photograph_counts(forget).values())
    if not counts:
        return None
    widened_to = (choices or {}).get("widened_to")
    marked = {s.picture.source for s in forget if s.picture is not None and is_marked(s)}
    return PhotographCounts(
        per_person=tuple(counts),
        widened_to=widened_to,
        marked=len(marked),
        how_far=how_far(counts[0]) if counts[0] < FEW else None,
    )
