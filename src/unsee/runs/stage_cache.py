"""Typed results of a run's stages, kept so that a resumed run does not compute them again."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError

from unsee.errors import RunError
from unsee.records.folder import RunFolder
from unsee.runs.reference_cache import ReferenceCache

T = TypeVar("T")


class StageCache:
    """Computes each result of a stage once: it is read from the run folder if it is there.

    Results about reference models are also read from a cache that runs of other methods share.
    """

    def __init__(
        self,
        folder: RunFolder,
        shared: ReferenceCache | None = None,
        references: Collection[str] = (),
    ) -> None:
        """Keeps results in `folder`, and those about `references` in `shared` too."""
        self.folder = folder
        self.shared = shared
        self.references = references

    def get_or_compute(
        self,
        result_type: TypeAdapter[T],
        stage: str,
        model: str,
        compute: Callable[[], T],
        attack: object = "",
        personal: bool = False,
    ) -> T:
        """Returns a result from the cache, or computes and keeps it.

        Args:
            result_type: Writes the result as JSON and reads it back.
            stage: Which result it is, such as "scores"; unique within the run.
            model: The model that it is about, such as "unlearned"; "" if `stage` says it all.
            compute: Makes the result.
            attack: The attack that it is about; part of the key of results of references.
            personal: Whether it is answers, or has people's names as keys: a redacted run does not
                keep such results, and computes them again if it is resumed.

        Raises:
            RunError: If a kept result is not of this version.
        """
        if personal and self.folder.redactor is not None:
            return compute()
        name = f"{stage}-{model}" if model else stage

        def content() -> Any:
            return result_type.dump_python(
                compute(), mode="json", by_alias=True, exclude_unset=True
            )

        shared = self.shared if model in self.references else None
        if shared is None:
            value = self.folder.get_or_compute(name, content)
        else:
            value = self.folder.get_or_compute(
                name, lambda: shared.get_or_compute(f"{name} {attack}", content)
            )
        try:
            return result_type.validate_python(value)
        except ValidationError as error:
            raise RunError(
                f"{self.folder.path}: the kept result '{name}' is not of this version "
                f"({error.errors()[0]['msg']}). Remove the folder and run again."
            ) from error
