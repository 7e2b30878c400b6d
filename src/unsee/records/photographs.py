"""The part of a record on how many photographs there were, and how far they carry."""

from __future__ import annotations

from pydantic import Field

from unsee.records.part import Int, RecordPart, Text


class PhotographCounts(RecordPart):
    """The photographs that were unlearned from; nobody is named."""

    per_person: tuple[Int, ...] = Field(
        default=(), description="Number of distinct photographs of each person, the fewest first."
    )
    widened_to: Int | None = Field(
        default=None,
        description="Number of pictures that each person was brought up to by widened views; null "
        "if views were not widened.",
    )
    marked: Int = Field(
        default=0, description="Number of group photographs of which one marked face was meant."
    )
    how_far: Text | None = Field(
        default=None,
        description="How far so few photographs carried in the documented study; null if nobody "
        "has few.",
    )
