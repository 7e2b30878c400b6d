"""How far 1, 2, 5 and 10 photographs of a person carry; written into docs/few-photographs.md.

    python -m experiments.quality.photograph_count [--seeds 0,1] [--only NAME ...] [--out FILE]

Pocket's four people are unlearned by VKD's default from so many of their pictures alone, with all
pictures of the other people to keep: without views, with widened views, and with other settings as
well. Every run is one row of the JSONL file; existing rows are not measured again. Scored on
pocket's validation splits, on pictures that were not trained on: questions without options,
answered exactly.
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
from unsee.models.vlm import VLM
from unsee.types import Data

ROWS = Path(__file__).with_name("photograph_count.jsonl")
PAGE = DOCS / "few-photographs.md"
COUNTS = (1, 2, 5, 10)

# Fields of VKD, by what the table calls them.
SETTINGS: Mapping[str, Mapping[str, Any]] = {
    "no views": {"widen": 0},
    "24 views": {"widen": 24},
    "24 views, erase_strength 3, w_erase 10": {
        "widen": 24,
        "erase_strength": 3.0,
        "w_erase": 10.0,
    },
}


def run_all(path: Path, seeds: Sequence[int], names: Sequence[str]) -> list[dict[str, Any]]:
    """Measures what has no row yet; returns all rows.

    Args:
        path: The JSONL file.
        seeds: Seeds of the runs.
        names: Names of settings.
    """
    pocket, rows = Pocket.open(), read_rows(path)
    data = pocket.data()
    if not any(row["photographs"] == 0 for row in rows):
        target = score(pocket, VLM.load(pocket.checkpoint("target")))
        append_row(path, rows, {"photographs": 0, "settings": "", "seed": 0, **target})
    known = {(row["photographs"], row["settings"], row["seed"]) for row in rows}
    for seed in seeds:
        for count in COUNTS:
            for name in names:
                if (count, name, seed) in known:
                    continue
                some = Data(without_answers(data.forget, count), without_answers(data.retain))
                row = measure(pocket, some, SETTINGS[name], seed, None)
                row = {"photographs": count, "settings": name, "seed": seed, **row}
                append_row(path, rows, row)
    return rows


def section(rows: Sequence[Mapping[str, Any]]) -> str:
    """Returns the table of all rows as markdown."""
    lines = []
    for count in (0, *COUNTS):
        for name in ("", *SETTINGS):
            some = [r for r in rows if r["photographs"] == count and r["settings"] == name]
            if not some:
                continue
            title = str(count) if name else "target"
            cells = [mean_and_range([row[key] for row in some]) for key in MEASURES]
            lines.append([title, name, str(len(some)) if name else "", *cells])
    head = table(["photographs a person", "settings", "seeds", *MEASURES], lines)
    return f"{head}\n\nMachine: {machines(r for r in rows if r['photographs'])}."


def main() -> None:
    """Measures what is missing and writes the section of the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", default="0", help="separated by commas")
    parser.add_argument("--only", nargs="*", default=list(SETTINGS), choices=list(SETTINGS))
    parser.add_argument("--out", type=Path, default=ROWS)
    given = parser.parse_args()
    rows = run_all(given.out, [int(seed) for seed in given.seeds.split(",")], given.only)
    if given.out == ROWS:
        replace_section(PAGE, "photographs", section(rows))


if __name__ == "__main__":
    main()
