"""Writes docs/results.md: published numbers, and ours beside them where a run's record has them.

    python -m experiments.quality.published [RUN ...]

Each RUN is the folder of a finished run of a recipe on one of the benchmarks. A cell of ours is
filled from such a record and from nothing else.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from experiments.pages import DOCS, table
from unsee.records.reader import read_run
from unsee.records.schema import Measures, Summary

NUMBERS = Path(__file__).with_name("published.yaml")

INTRO = """# Published results, and ours

The published numbers are their papers'; base models, splits and prompts differ between papers, so
that even the model before unlearning is given as 48 to 57. A cell of ours is filled by
`python -m experiments.quality.published RUN ...` from the record of a run, and by nothing else; it
is empty where no such run was made, as here: none of these models of 7 and 8 billion parameters was
at hand. Recipes that ship with the package make the runs ([published benchmarks](benchmarks.md)).
"""


def own_cells(paper: dict[str, Any], method: str, runs: Sequence[Summary]) -> list[str]:
    """Returns our cells of a row, from the last run of that method on that benchmark and share.

    Args:
        paper: A table of published.yaml.
        method: The row: a registered method, "vanilla" or "retain-only".
        runs: The records.
    """
    cells = ["" for _ in paper["columns"]]
    # The papers' unit: a column is in % if one of its numbers is above 1.
    largest = [max(row[i] for row in paper["rows"].values()) for i in range(len(cells))]
    for run in runs:
        measures = _measures(run, method)
        if not _is_of(run, paper) or measures is None:
            continue
        for i, column in enumerate(paper["columns"]):
            measure = measures.get(column["key"])
            if measure is not None and measure.value is not None:
                value = measure.value
                cells[i] = f"{100 * value:.1f}" if largest[i] > 1 else f"{value:.3f}"
    return cells


def _is_of(run: Summary, paper: dict[str, Any]) -> bool:
    return (
        run.benchmark is not None
        and run.benchmark.name == paper["benchmark"]
        and ("ratio" not in paper or run.benchmark.ratio == paper["ratio"])
    )


def _measures(run: Summary, method: str) -> Measures | None:
    """What a run measured of a row's model; None if it did not measure that model."""
    if method == "vanilla":
        return run.target
    if method == "retain-only":
        return run.retain_only
    return run.measures if run.method is not None and run.method.name == method else None


def page(runs: Sequence[Summary]) -> str:
    """Returns docs/results.md."""
    parts = [INTRO]
    for paper in yaml.safe_load(NUMBERS.read_text("utf-8")):
        names = [column["name"] for column in paper["columns"]]
        head = ["method", *(f"{name}{end}" for name in names for end in ("", " (ours)"))]
        rows = []
        for method, numbers in paper["rows"].items():
            pairs = zip(numbers, own_cells(paper, method, runs), strict=True)
            rows.append([method, *(cell for number, own in pairs for cell in (str(number), own))])
        source = f"Source: {paper['source']}; {paper['note']}."
        parts.append(f"## {paper['title']}\n\n{source}\n\n{table(head, rows)}\n")
    return "\n".join(parts)


def main() -> None:
    """Writes the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("runs", nargs="*", type=Path, metavar="RUN")
    runs = [read_run(folder).summary for folder in parser.parse_args().runs]
    (DOCS / "results.md").write_text(page(runs), "utf-8")


if __name__ == "__main__":
    main()
