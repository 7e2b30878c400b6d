"""The lineage of a checkpoint: the patches that were applied to its base, in order.

`unsee apply` writes it beside the weights as `unsee_lineage.json`, which transformers does not
read; a stacked patch's manifest holds that of its base. It names no person and no path.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from unsee import __version__
from unsee.artifacts.manifest import DIGEST, Step, parse_steps
from unsee.errors import PatchError, RunError, first_line
from unsee.files import read_text

LOGGER = logging.getLogger("unsee")

LINEAGE = "unsee_lineage.json"
FORMAT = 1


@dataclass(frozen=True)
class Lineage:
    """The content of `unsee_lineage.json`.

    Attributes:
        steps: The patches, in the order in which they were applied.
        tensors: SHA-256 of the bytes of every tensor that one of them replaced, by its name in the
            checkpoint's files.
    """

    steps: tuple[Step, ...] = ()
    tensors: Mapping[str, str] | None = None

    def matches(self, digest: Callable[[str], str | None]) -> bool:
        """Whether a checkpoint's tensors are those that the patches made.

        Args:
            digest: Returns the SHA-256 of a tensor's bytes; None if there is no such tensor.
        """
        return all(digest(name) == sha256 for name, sha256 in (self.tensors or {}).items())

    def text(self) -> str:
        """The content of the file."""
        content: dict[str, Any] = {
            "format": FORMAT,
            "unsee": __version__,
            "base_sha256": self.steps[0].base_sha256 if self.steps else None,
            "steps": [asdict(step) for step in self.steps],
            "tensors": dict(sorted((self.tensors or {}).items())),
        }
        return json.dumps(content, indent=1) + "\n"


def lineage_of(folder: Path, digest: Callable[[str], str | None]) -> Lineage:
    """The lineage of a checkpoint, unless its weights were changed since it was written.

    Args:
        folder: The checkpoint.
        digest: Returns the SHA-256 of a tensor's bytes; None if there is no such tensor.

    Raises:
        PatchError: If the file is damaged.
    """
    lineage = read_lineage(folder)
    if lineage.matches(digest):
        return lineage
    LOGGER.warning(
        f"{folder}: its weights are not those that the patches in its {LINEAGE} made, so it counts "
        "as a checkpoint without patches."
    )
    return Lineage()


def read_lineage(folder: Path) -> Lineage:
    """Reads the lineage of a checkpoint; an empty one where no patch was applied.

    Raises:
        PatchError: If the file is damaged, or of a newer format.
    """
    path = folder / LINEAGE
    try:
        raw = json.loads(read_text(path, most=50_000_000))
        if not isinstance(raw, dict) or raw["format"] != FORMAT:
            raise ValueError(f"its format is not {FORMAT}")
        tensors = raw["tensors"]
        if not isinstance(tensors, dict) or not all(
            isinstance(value, str) and DIGEST.fullmatch(value) for value in tensors.values()
        ):
            raise ValueError("its tensors have no hashes")
        return Lineage(parse_steps(raw["steps"]), tensors)
    except (FileNotFoundError, NotADirectoryError):
        return Lineage()
    except (RunError, ValueError, KeyError, TypeError, RecursionError) as error:
        reason = repr(error) if isinstance(error, KeyError) else first_line(error)
        raise PatchError(
            f"model {folder}: {LINEAGE} is damaged ({reason}). Restore it, or remove it: the "
            "checkpoint then counts as one without patches."
        ) from error
