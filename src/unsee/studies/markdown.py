"""Markdown."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Table:
    """A titled table of texts."""

    title: str
    head: Sequence[str]
    rows: Sequence[Sequence[str]]

    def markdown(self) -> str:
        """The table as markdown."""
        lines = [self.head, ["---"] * len(self.head), *self.rows]
        body = "\n".join("| " + " | ".join(_cell(c) for c in line) + " |" for line in lines)
        return f"### {self.title}\n\n{body}\n"


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")
