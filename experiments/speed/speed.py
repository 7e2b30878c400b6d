"""What an image costs, by every way to unlearn, side by side: docs/speed.md and its charts.

    python -m experiments.speed.speed [--shapes pocket,7b] [--rounds 3] [--layers 1] [--out DIR]

Each measurement is a process of its own with one thread. The ways take turns, round by round, so
that a change of the machine's load affects all of them alike. "7b" is LLaVA-1.5-7B's shape in
bfloat16 with random weights, with `--layers` of its 32 language layers; the cost of all 32 is
extrapolated by FLOPs. Existing measurements are not repeated; `--write` measures nothing. With
`--only WAY ...`, only those are measured, and a table is printed instead.
"""

from __future__ import annotations

import argparse
import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from experiments.pages import ROOT, load_or_make, run_module
from experiments.speed import random_checkpoint
from experiments.speed.speed_page import tables, write
from experiments.speed.ways import ALL_WAYS, PLAIN, WAYS, arguments, measure
from unsee.benchmarks.pocket import Pocket

# How the cost grows: one size is changed at a time.
SIZES, DEPTHS, PEOPLE, PICTURES = (224, 336, 448), (6, 12, 24), (1, 2, 4, 8), (1, 2, 4, 8)
DEPTH = 12  # layers of the tower where the size of the pictures is changed

DTYPES = ("float32", "bfloat16")


def measure_once(name: str, given: dict[str, Any], out: Path) -> dict[str, Any]:
    """Returns a measurement, which a process of its own makes once."""

    def make() -> dict[str, Any]:
        print(name, flush=True)
        words = ["--measure", json.dumps(given)]
        return run_module("experiments.speed.speed", words, threads=1)

    return load_or_make(out / f"{name}.json", make)


def measure_in_turn(
    shape: str, ways: Mapping[str, int], rounds: int, layers: int, out: Path
) -> None:
    """Measures ways, one after another, `rounds` times.

    Args:
        shape: The model: "pocket" or "7b".
        ways: The ways, and their numbers in file names.
        rounds: How often each is measured.
        layers: Language layers of "7b".
        out: The folder of the measurements.
    """
    names = {
        f"{shape}-{number}-{turn}": way for turn in range(rounds) for way, number in ways.items()
    }
    if all((out / f"{name}.json").exists() for name in names):
        return
    model: Path = Pocket().checkpoint("target")
    if shape == "7b":
        model = out / "7b"
        if not model.exists():
            random_checkpoint.make(model, layers)
    for name, way in names.items():
        given = arguments(way, model, out, 16, 4, 8)
        if shape == "7b":
            given = arguments(way, model, out, 2, size=336)
        measure_once(name, given, out)
    if shape == "7b":
        shutil.rmtree(model)


def measure_growth(out: Path) -> None:
    """Measures how the cost of VKD from features alone grows."""
    target = Pocket().checkpoint("target")
    for people in PEOPLE:
        measure_once(f"people-{people}", arguments(PLAIN, target, out, 16, people, 4), out)
    for pictures in PICTURES:
        measure_once(f"pictures-{pictures}", arguments(PLAIN, target, out, 16, 4, pictures), out)
    for name, depth, size in [
        *((f"size-{size}", DEPTH, size) for size in SIZES),
        *((f"depth-{depth}", depth, 336) for depth in DEPTHS),
    ]:
        if not (out / f"{name}.json").exists():
            model = random_checkpoint.make(out / "grown", 0, depth, size)
            measure_once(name, arguments(PLAIN, model, out, 1, size=size), out)
            shutil.rmtree(model)


def measure_towers(out: Path) -> None:
    """Measures the vision tower alone, forward and backward, in 32 and in 16 bits."""
    missing = [dtype for dtype in DTYPES if not (out / f"tower-{dtype}.json").exists()]
    if missing:
        model = random_checkpoint.make(out / "tower", 0)
        for dtype in missing:
            measure_once(f"tower-{dtype}", {"model": str(model), "tower": dtype}, out)
        shutil.rmtree(model)


def main() -> None:
    """Measures what is missing, and writes the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shapes", default="pocket,7b")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--layers", type=int, default=1)
    parser.add_argument("--out", type=Path, default=ROOT / "runs" / "speed")
    parser.add_argument("--write", action="store_true")
    parser.add_argument("--only", nargs="+", choices=ALL_WAYS, metavar="WAY")
    parser.add_argument("--measure", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        print(json.dumps(measure(json.loads(options.measure))))
        return
    out = options.out.resolve()
    shapes = options.shapes.split(",")
    numbers = {way: number for number, way in enumerate(ALL_WAYS)}
    ways = {way: numbers[way] for way in options.only or WAYS}
    if not options.write:
        for shape in shapes:
            measure_in_turn(shape, ways, options.rounds, options.layers, out)
    if options.only:
        print("\n\n".join(tables(out, shape, ways) for shape in shapes))
        return
    if not options.write:
        measure_growth(out)
        measure_towers(out)
    command = "python -m experiments.speed.speed"
    write(out, ways, f"{command} --shapes {options.shapes} --rounds {options.rounds}")


if __name__ == "__main__":
    main()
