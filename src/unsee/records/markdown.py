"""Tables in markdown and LaTeX, for every page and card that is written from records."""

from __future__ import annotations

import re
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
        return f"### {escape_tags(self.title)}\n\n{body}" if self.title else body

    def latex(self) -> str:
        r"""Returns the table as LaTeX of the package booktabs, ending in a newline.

        Example:
            >>> print(Table(["model", "score"], [["vkd_a", "50 %"]], "All").latex(), end="")
            \begin{table}
            \centering
            \caption{All}
            \begin{tabular}{ll}
            \toprule
            model & score \\
            \midrule
            vkd\_a & 50 \% \\
            \bottomrule
            \end{tabular}
            \end{table}
        """
        head, *body = (
            f"{' & '.join(map(escape_latex, line))} \\\\" for line in (self.head, *self.rows)
        )
        caption = [f"\\caption{{{escape_latex(self.title)}}}"] if self.title else []
        lines = [
            "\\begin{table}",
            "\\centering",
            *caption,
            f"\\begin{{tabular}}{{{'l' * len(self.head)}}}",
            "\\toprule",
            head,
            "\\midrule",
            *body,
            "\\bottomrule",
            "\\end{tabular}",
            "\\end{table}",
        ]
        return "\n".join(lines) + "\n"


def escape_cell(text: str) -> str:
    """Returns a text on one line, with pipes escaped, so that it stays within its table cell."""
    return escape_tags(" ".join(text.split())).replace("|", "\\|")


def escape_tags(text: str) -> str:
    """Returns a text in which nothing is an HTML tag, as names from data could be.

    Example:
        >>> escape_tags("<b>Ada</b>, 1 < 2")
        '&lt;b>Ada&lt;/b>, 1 < 2'
    """
    return re.sub(r"<(?=[A-Za-z/!?])", "&lt;", text)


_LATEX = str.maketrans(
    {
        "\\": r"\textbackslash{}",
        "~": r"\textasciitilde{}",
        "^": r"\textasciicircum{}",
        "\N{MINUS SIGN}": "$-$",
        **{character: f"\\{character}" for character in "&%$#_{}"},
    }
)


def escape_latex(text: str) -> str:
    r"""Returns a text on one line, with the characters escaped that LaTeX would interpret.

    Example:
        >>> escape_latex("5 % of a_b")
        '5 \\% of a\\_b'
    """
    return " ".join(text.split()).translate(_LATEX)
