"""Writes docs/results.md: published numbers, and ours beside them where a run's record has them.

    python -m experiments.quality.published [RUN ...]

Each RUN is a finished run folder of a recipe on one of the benchmarks. A cell of ours is filled
from such a record and from nothing else.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parent.parent.parent


DOC, NUMBERS = ROOT / "docs" / "results.md", Path(__file__).with_name("published.yaml")


INTRO = """# Published results, and ours

The published numbers are their papers'; base models, splits and prompts differ between papers, so
that even the model before unlearning is given as 48 to 57. A cell of ours is filled by
`python -m experiments.quality.published RUN ...` from the record of a run, and by nothing else; it
is empty where no such run was made, as here: none of these models of 7 and 8 billion parameters was
at hand. Recipes that ship with the package make the runs ([published benchmarks](benchmarks.md)).
"""


def read_runs(folders: Sequence[Path]) -> list[dict[str, Any]]:
    """The summaries of finished runs."""
    return [json.loads((folder / "summary.json").read_text("utf-8")) for folder in folders]


def ours(table: dict[str, Any], method: str, runs: Sequence[dict[str, Any]]) -> list[str]:
    """Our cells of a row, from the last run of that method on that benchmark and share."""
    cells = ["" for _ in table["columns"]]
    for run in runs:
        benchmark = run.get("benchmark") or {}
        fits = benchmark.get("name") == table["benchmark"] and (
            "ratio" not in table or benchmark.get("ratio") == table["ratio"]
        )
        measures = run.get("measures") or {}
        if method in ("vanilla", "retain-only"):
            measures = run.get({"vanilla": "target"}.get(method, "retain_only")) or {}
        elif (run.get("method") or {}).get("name") != method:
            continue
        if fits:
            found = [measures.get(column["key"], {}).get("value") for column in table["columns"]]
            # The papers' unit: a table in % is one with a number above 1 in that column.
            largest = [max(row[i] for row in table["rows"].values()) for i in range(len(found))]
            for i, value in enumerate(found):
                if value is not None:
                    cells[i] = f"{100 * value:.1f}" if largest[i] > 1 else f"{value:.3f}"
    return cells


def page(runs: Sequence[dict[str, Any]]) -> str:
    """docs/results.md."""
    parts = [INTRO]
    for table in yaml.safe_load(NUMBERS.read_text("utf-8")):
        names = [column["name"] for column in table["columns"]]
        titles = ["method", *(f"{n}{end}" for n in names for end in ("", " (ours)"))]
        lines = ["| " + " | ".join(titles) + " |", "| --- " * len(titles) + "|"]
        for method, numbers in table["rows"].items():
            pairs = zip(numbers, ours(table, method, runs), strict=True)
            cells = [cell for number, own in pairs for cell in (str(number), own)]
            lines.append(f"| {method} | " + " | ".join(cells) + " |")
        about = f"Source: {table['source']}; {table['note']}."
        parts.append(f"## {table['title']}\n\n{about}\n\n" + "\n".join(lines) + "\n")
    return "\n".join(parts)


def main() -> None:
    """Writes the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("runs", nargs="*", type=Path)
    DOC.write_text(page(read_runs(parser.parse_args().runs)), "utf-8")


if __name__ == "__main__":
    main()
