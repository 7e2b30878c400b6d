"""Whether of group photographs only the marked face is forgotten; into docs/few-photographs.md.

    python -m experiments.quality.group_photographs [--seed 0] [--steps N] [--out FILE.jsonl]

Every training picture of pocket's four people to forget is joined with one of a person to keep,
side by side, so that four couples are on all the photographs. VKD unlearns from these alone: with a
box around the one to forget, and without. Every run is one row of the JSONL file; existing rows are
not measured again. Scored on pocket's validation splits, where everyone is alone on a picture.
"""

from __future__ import annotations

import argparse
import io
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from PIL import Image

from experiments.pages import DOCS, append_row, machines, read_rows, replace_section, table
from experiments.quality.pictures_alone import (
    SPLITS,
    measure,
    score,
    share_right,
    stand_ins,
    without_answers,
)
from experiments.quality.renaming import inverted
from unsee.benchmarks.pocket import Pocket
from unsee.data.boxes import separate
from unsee.models.vlm import VLM
from unsee.pixels.regions import Box, Region
from unsee.types import Data, Picture, Sample

ROWS = Path(__file__).with_name("group_photographs.jsonl")
PAGE = DOCS / "few-photographs.md"
BESIDE = "the others on the photographs"
MEASURES = ("forgotten", BESIDE, *list(SPLITS)[1:])


def couples(pocket: Pocket) -> tuple[list[Sample], list[str]]:
    """The joined photographs, each with a box around the one to forget, and who is beside them."""
    data = pocket.data()
    forget, others = without_answers(data.forget), without_answers(data.retain)
    named = [s.concept for s in others if s.concept]
    beside = list(dict.fromkeys(named))[: len(pocket.forgotten)]
    partners = dict(zip(pocket.forgotten, beside, strict=True))
    joined = []
    for number, sample in enumerate(forget):
        mine = [s for s in others if s.concept == partners[sample.concept or ""]]
        partner = mine[number % len(mine)]
        joined.append(_join(sample, partner, is_left=number % 2 == 0))
    return joined, beside


def _join(sample: Sample, partner: Sample, is_left: bool) -> Sample:
    """Two people side by side, and a box around the one to forget."""
    if sample.picture is None or partner.picture is None:
        raise ValueError("a sample has no picture.")
    one, other = sample.picture.open(), partner.picture.open()
    left, right = (one, other) if is_left else (other, one)
    image = Image.new("RGB", (left.width + right.width, left.height))
    image.paste(left, (0, 0))
    image.paste(right, (left.width, 0))
    with io.BytesIO() as file:
        image.save(file, "PNG")
        name = f"{sample.picture.source}+{partner.picture.source}"
        picture = Picture(name, data=file.getvalue())
    # The face without what is around it, as a person would mark it.
    x0 = 0.1 if is_left else 0.6
    return replace(sample, picture=picture.of(Region(Box(x0, 0.15, x0 + 0.3, 0.85))))


def run_all(path: Path, seed: int, steps: int | None) -> list[dict[str, Any]]:
    """Measures what has no row yet; returns all rows.

    Args:
        path: The JSONL file.
        seed: Seed of the runs.
        steps: Number of steps; None is that of the preset `paper`.
    """
    pocket, rows = Pocket.open(), read_rows(path)
    marked, names = couples(pocket)
    drawn = [inverted(p) for p in pocket.data().strangers]
    asked = [s for s in pocket.load("retain_validation") if s.concept in names]

    def beside(vlm: VLM) -> dict[str, float]:
        return {BESIDE: round(share_right(vlm, asked), 4)}

    if not any(row["boxes"] == "target" for row in rows):
        target = VLM.load(pocket.checkpoint("target"))
        scores = score(pocket, target) | beside(target)
        append_row(path, rows, {"boxes": "target", "seed": seed, **scores})
    whole = [
        replace(s, picture=replace(s.picture, source=f"{s.id} whole", region=None))
        for s in marked
        if s.picture is not None
    ]
    for name, (forget, kept) in {"marked": separate(marked), "not marked": (whole, [])}.items():
        if any(row["boxes"] == name and row["seed"] == seed for row in rows):
            continue
        data = Data(forget, [*stand_ins(drawn), *kept], drawn)
        values = {"paper": True, "population": "generated"}
        row = measure(pocket, data, values, seed, steps, beside)
        append_row(path, rows, {"boxes": name, "seed": seed, **row})
    return rows


def section(rows: Sequence[Mapping[str, Any]]) -> str:
    """Returns the table of all rows as markdown."""
    lines = [[row["boxes"], *(f"{row[key]:.3f}" for key in MEASURES)] for row in rows]
    measured = [row for row in rows if row["boxes"] != "target"]
    return f"{table(['faces', *MEASURES], lines)}\n\nMachine: {machines(measured)}."


def main() -> None:
    """Measures what is missing and writes the section of the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, help="other than the preset's")
    parser.add_argument("--out", type=Path, default=ROWS)
    given = parser.parse_args()
    rows = run_all(given.out, given.seed, given.steps)
    if given.out == ROWS:
        replace_section(PAGE, "groups", section(rows))


if __name__ == "__main__":
    main()
