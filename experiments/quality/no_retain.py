"""What is kept when no photographs of other people are given; into docs/few-photographs.md.

    python -m experiments.quality.no_retain [--seed 0] [--out FILE.jsonl]

Pocket's four people are unlearned by VKD from their pictures alone. The stand-ins that ship with
the package are drawn by the same code as pocket's pictures, which flatters them: here they are made
grey and inverted, as unlike pocket's pictures as drawings are unlike photographs. Every variant is
one row of the JSONL file; existing rows are not measured again. Scored on pocket's validation
splits, on questions without options, answered exactly.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from experiments.pages import DOCS, append_row, machines, read_rows, replace_section, table, titles
from experiments.quality.pictures_alone import (
    MEASURES,
    measure,
    score,
    stand_ins,
    without_answers,
)
from experiments.quality.renaming import inverted
from unsee.benchmarks.pocket import Pocket
from unsee.models.vlm import VLM
from unsee.types import Data

ROWS = Path(__file__).with_name("no_retain.jsonl")
PAGE = DOCS / "few-photographs.md"

# The fields that variants start from: those of the preset `paper`, in 60 steps; and the default.
PAPER = {"paper": True, "steps": 60}
DEFAULT = {"paper": False, "steps": 400}

# Fields of VKD beside population=generated, by what is kept.
VARIANTS: Mapping[str, Mapping[str, Any]] = {
    "nothing": {"w_keep": 0.0},
    "256 composites": {},
    "photographs of the others given": {"population": "kept"},
    "256 composites, the default": DEFAULT,
    "256 composites, the default, w_keep=640": {**DEFAULT, "w_keep": 640.0},
    "256 composites, the default, w_keep=640, lr=5e-4": {**DEFAULT, "w_keep": 640.0, "lr": 5e-4},
}


def run_all(path: Path, seed: int) -> list[dict[str, Any]]:
    """Measures what has no row yet; returns all rows.

    Args:
        path: The JSONL file.
        seed: Seed of the runs.
    """
    pocket, rows = Pocket.open(), read_rows(path)
    data = pocket.data()
    forget, drawn = without_answers(data.forget), [inverted(p) for p in data.strangers]
    if not any(row["kept"] == "target" for row in rows):
        target = score(pocket, VLM.load(pocket.checkpoint("target")))
        append_row(path, rows, {"kept": "target", "seed": seed, **target})
    for name, values in VARIANTS.items():
        if any(row["kept"] == name and row["seed"] == seed for row in rows):
            continue
        values = {**PAPER, "population": "generated", **values}
        given = values["population"] == "kept"
        retain = without_answers(data.retain) if given else stand_ins(drawn)
        some = Data(forget, retain, [] if given else drawn)
        row = {"kept": name, "seed": seed, **measure(pocket, some, values, seed, None)}
        append_row(path, rows, row)
    return rows


def section(rows: Sequence[Mapping[str, Any]]) -> str:
    """Returns the table of all rows as markdown."""
    known = {row["kept"]: row for row in rows}
    lines = [
        [title, *(f"{known[name][key]:.3f}" for key in MEASURES)]
        for name, title in titles(rows, "kept", ["target", *VARIANTS]).items()
    ]
    measured = [row for row in rows if row["kept"] != "target"]
    return f"{table(['kept', *MEASURES], lines)}\n\nMachine: {machines(measured)}."


def main() -> None:
    """Measures what is missing and writes the section of the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=ROWS)
    given = parser.parse_args()
    rows = run_all(given.out, given.seed)
    if given.out == ROWS:
        replace_section(PAGE, "no-retain", section(rows))


if __name__ == "__main__":
    main()
