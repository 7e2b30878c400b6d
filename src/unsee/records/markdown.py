"""Tables in markdown, for every page and card that is written from records."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Table:
    """A table of texts.

    Attributes:
        head: The column titles.
        rows: The cells, row by row, as many as there are columns.
        title: The heading above the table; "" for none.
    """

    head: Sequence[str]
    rows: Sequence[Sequence[str]]
    title: str = ""

    def markdown(self) -> str:
        r"""Returns the table as markdown, below its heading, and ending in a newline.

        Example:
            >>> print(Table(["model", "score"], [["a|b", "0.5"]]).markdown(), end="")
            | model | score |
            | --- | --- |
            | a\|b | 0.5 |
        """
        lines = [self.head, ["---"] * len(self.head), *self.rows]
        body = "".join(f"| {' | '.join(map(escape_cell, line))} |\n" for line in lines)
        return f"### {self.title}\n\n{body}" if self.title else body


def escape_cell(text: str) -> str:
    """Returns a text on one line, with pipes escaped, so that it stays within its table cell."""
    return " ".join(text.split()).replace("|", "\\|")
