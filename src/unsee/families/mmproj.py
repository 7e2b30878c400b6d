"""The visual part of a family as llama.cpp reads it, from a file that it calls `mmproj`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Mmproj:
    """How a family's visual part is written for llama.cpp.

    The names of most tensors are those of the `gguf` package's own table.

    Attributes:
        projector: llama.cpp's name of the projector, such as "mlp".
        layers: Number of encoder layers that it runs.
        facts: Further keys of the file, such as "clip.use_gelu", with their values.
        names: The file's names of parameters that the table has otherwise, or has not.
        left_out: Prefixes of parameters that llama.cpp does not read.
        added: Numbers to be added to parameters, by name, which llama.cpp does not add.
        half: Names of parameters that are always stored in 16 bits.
        note: What llama.cpp is known to compute otherwise, for the user; None if nothing.
    """

    projector: str
    layers: int
    facts: Mapping[str, Any] = field(default_factory=dict)
    names: Mapping[str, str] = field(default_factory=dict)
    left_out: tuple[str, ...] = ()
    added: Mapping[str, float] = field(default_factory=dict)
    half: tuple[str, ...] = ()
    note: str | None = None


def gelu_facts(act: str) -> dict[str, Any] | None:
    """llama.cpp's keys for an encoder's activation; None if it has none like it."""
    known: dict[str, dict[str, Any]] = {
        "quick_gelu": {"clip.use_gelu": False},
        "gelu": {"clip.use_gelu": True},
    }
    return known.get(act)
