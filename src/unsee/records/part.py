"""Base classes of the parts of a record, and the types of their numbers and texts."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, JsonValue


def _finite_or_none(value: object) -> object:
    return None if isinstance(value, float) and not math.isfinite(value) else value


def empty_for_none(value: object) -> object:
    """Returns an empty tuple for None, which older records hold in place of a list."""
    return () if value is None else value


def _valid_unicode(value: object) -> object:
    # JSON may hold half a surrogate pair ("\ud800"), which no UTF-8 file can.
    return value.encode("utf-8", "replace").decode() if isinstance(value, str) else value


# Counts and bytes: larger numbers are no counts, and cannot be divided as floats.
Int = Annotated[int, Field(strict=True, ge=-(2**63), lt=2**63)]
Float = Annotated[float, Field(strict=True)]
Bool = Annotated[bool, Field(strict=True)]
Text = Annotated[str, BeforeValidator(_valid_unicode)]
# A score: None is "unscored", which Python's JSON may spell NaN.
Number = Annotated[Float | None, BeforeValidator(_finite_or_none)]


class RecordPart(BaseModel):
    """A frozen part of a record; unknown keys are ignored."""

    model_config = ConfigDict(frozen=True, extra="ignore", protected_namespaces=())

    def to_dict(self) -> dict[str, Any]:
        """The part as JSON writes it: the fields that were set, under their documented keys."""
        return self.model_dump(mode="json", by_alias=True, exclude_unset=True)


class OpenRecordPart(RecordPart):
    """A part to which benchmarks, methods or later versions may add keys of their own."""

    model_config = ConfigDict(extra="allow")
    __pydantic_extra__: dict[str, JsonValue] = Field(init=False)

    @property
    def extras(self) -> Mapping[str, JsonValue]:
        """Keys beyond the documented ones, in the record's order."""
        return self.__pydantic_extra__ or {}
