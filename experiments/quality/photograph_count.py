"""How far 1, 2, 5 and 10 photographs of a person carry; written into docs/few-photographs.md.

    python -m experiments.quality.photograph_count [--seeds 0,1] [--steps N] [--out FILE.jsonl]

Pocket's four people are unlearned by VKD from so many of their pictures alone, with all pictures
of the other people to keep: with VKD's defaults, and with widened views and the other settings for
few photographs. Every run is one row of the JSONL file; existing rows are not measured again.
Scored on pocket's validation splits, on pictures that were not trained on: questions without
options, answered exactly.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from experiments.pages import (
    DOCS,
    append_row,
    machines,
    mean_and_range,
    read_rows,
    replace_section,
    table,
)
from experiments.quality.pictures_alone import MEASURES, measure, score, without_answers
from unsee.benchmarks.pocket import Pocket
from unsee.data.widening import FOR_FEW, WIDENED
from unsee.models.vlm import VLM
from unsee.types import Data

ROWS = Path(__file__).with_name("photograph_count.jsonl")
PAGE = DOCS / "few-photographs.md"
COUNTS = (1, 2, 5, 10)


def run_all(path: Path, seeds: Sequence[int], steps: int | None) -> list[dict[str, Any]]:
    """Measures what has no row yet; returns all rows.

    Args:
        path: The JSONL file.
        seeds: Seeds of the runs.
        steps: Number of steps; None is VKD's default.
    """
    pocket, rows = Pocket.open(), read_rows(path)
    data = pocket.data()
    if not any(row["photographs"] == 0 for row in rows):
        target = score(pocket, VLM.load(pocket.checkpoint("target")))
        append_row(path, rows, {"photographs": 0, "widen": 0, "seed": 0, **target})
    known = {(row["photographs"], row["widen"], row["seed"]) for row in rows}
    for seed in seeds:
        for count in COUNTS:
            for widen in (0, WIDENED):
                if (count, widen, seed) in known:
                    continue
                some = Data(without_answers(data.forget, count), without_answers(data.retain))
                row = measure(pocket, some, FOR_FEW if widen else {}, seed, steps)
                row = {"photographs": count, "widen": widen, "seed": seed, **row}
                append_row(path, rows, row)
    return rows


def section(rows: Sequence[Mapping[str, Any]]) -> str:
    """Returns the table of all rows as markdown."""
    lines = []
    for count in (0, *COUNTS):
        for widen in (0, WIDENED):
            some = [r for r in rows if r["photographs"] == count and r["widen"] == widen]
            if not some:
                continue
            title = "target" if count == 0 else str(count)
            views = "" if count == 0 else str(widen or "none")
            cells = [mean_and_range([row[key] for row in some]) for key in MEASURES]
            lines.append([title, views, "" if count == 0 else str(len(some)), *cells])
    head = table(["photographs a person", "widened to", "seeds", *MEASURES], lines)
    return f"{head}\n\nMachine: {machines(r for r in rows if r['photographs'])}."


def main() -> None:
    """Measures what is missing and writes the section of the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", default="0", help="separated by commas")
    parser.add_argument("--steps", type=int, help="other than VKD's default")
    parser.add_argument("--out", type=Path, default=ROWS)
    given = parser.parse_args()
    rows = run_all(given.out, [int(seed) for seed in given.seeds.split(",")], given.steps)
    if given.out == ROWS:
        replace_section(PAGE, "photographs", section(rows))


if __name__ == "__main__":
    main()
