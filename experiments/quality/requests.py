"""Up to twenty deletion requests one after another; writes a table into docs/requests.md.

    python -m experiments.quality.requests [--faces DIR] [--set KEY=VALUE ...] [--out FILE.jsonl]

Of pocket's forty people, twenty ask one after another to be forgotten, each with their own pictures
alone, in one ledger (`unsee request`). The pictures of the others are its retain set, and those of
the people who asked before are held at their erased features. After every
request the deployed model is asked about held-out pictures of everyone, in held-out wordings. With
`--faces`, a pocket benchmark is built from photographs first (one subfolder a person), thirty of
whose people get a name. Every request is one row of the JSONL file; existing rows are not measured
again.
"""

from __future__ import annotations

import argparse
import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from experiments.pages import (
    DOCS,
    ROOT,
    append_row,
    machines,
    read_rows,
    replace_section,
    set_options,
    table,
)
from experiments.quality.photos import DATABASE, build_pocket
from unsee.api import create_ledger, open_ledger
from unsee.benchmarks.pocket import Pocket
from unsee.benchmarks.pocket.world import picture_questions
from unsee.evaluation.evaluate import evaluate
from unsee.models.vlm import VLM
from unsee.recipes.parsing import parse_overrides
from unsee.records.provenance import describe_this_machine
from unsee.requests.models import deployed_model
from unsee.types import Sample

PAGE = DOCS / "requests.md"
DRAWN, PHOTOS = "requests", "requests_photos"

PEOPLE = 20
SEED = 19

# Of the people on photographs, so that ten of them keep their name when twenty have asked.
PHOTOGRAPHED = 30
SHOWN = (0, 1, 2, 5, 10, 15, 19, 20)

COLUMNS = {
    "requested": "this request's person",
    "earlier": "everyone forgotten before",
    "others": "the others",
    "waiting": "people who ask later",
    "general": "what strangers' pictures show",
    "seconds": "seconds of training",
}


def order_of(pocket: Pocket) -> tuple[list[int], list[int]]:
    """Returns the people who ask to be forgotten, in order, and the others."""
    order = np.random.default_rng(SEED).permutation(len(pocket.world.people)).tolist()
    return order[:PEOPLE], order[PEOPLE:]


def write_pictures(pocket: Pocket, people: Sequence[int], folder: Path) -> None:
    """Writes the training pictures of people as a user has them: one subfolder for each person."""
    for index in people:
        own = folder / pocket.world.people[index].slug
        own.mkdir(parents=True, exist_ok=True)
        for shot in pocket.world.shots_of([index], "train"):
            shutil.copy(pocket.folder / shot.file, own)


def questions(pocket: Pocket, people: Sequence[int]) -> list[Sample]:
    """Returns questions about the held-out pictures of people, in held-out wordings."""
    world = pocket.world
    shots = world.shots_of(people, "holdout")
    return picture_questions(world, shots, np.random.default_rng(3), held_out=True, forms=1)


def measure(model: Path, pocket: Pocket, answered: int) -> dict[str, float]:
    """Returns the accuracies of the model that has answered some of the requests.

    Args:
        model: The deployed checkpoint.
        pocket: The benchmark.
        answered: Number of requests that were answered.
    """
    requested, others = order_of(pocket)
    groups = {
        "requested": requested[max(answered - 1, 0) : answered],
        "earlier": requested[: max(answered - 1, 0)],
        "others": others,
        "waiting": requested[answered:],
    }
    splits = {name: questions(pocket, people) for name, people in groups.items() if people}
    splits["general"] = pocket.load("general")
    scores = evaluate(VLM.load(model), splits, metrics=["accuracy"]).measures
    return {name: scores[f"{name}/vqa/accuracy"].value or 0.0 for name in splits}


def results_table(rows: Sequence[dict[str, Any]]) -> str:
    """Returns the accuracies after some of the requests as markdown."""
    last = max(row["requests"] for row in rows)
    lines = [
        [str(row["requests"]), *(_shown(row.get(key), key) for key in COLUMNS)]
        for row in rows
        if row["requests"] in SHOWN or row["requests"] == last
    ]
    return table(["requests", *COLUMNS.values()], lines)


def _shown(value: float | None, key: str) -> str:
    return "" if value is None else f"{value:.0f}" if key == "seconds" else f"{value:.3f}"


def section(rows: Sequence[dict[str, Any]], name: str) -> str:
    """Returns the table with what it is of, and the command that writes it.

    Args:
        rows: The measurements.
        name: Name of their file without its ending, and of the section: `PHOTOS` if the people are
            photographed, not drawn.
    """
    command, people = "python -m experiments.quality.requests", ""
    if name == PHOTOS:
        command += " --faces DIR"
        people = (
            f" {DATABASE}; {PHOTOGRAPHED} of its people have an invented name and profile that a "
            "pocket model was taught."
        )
    command = f"{command} {set_options(rows[0]['set'])}".rstrip()
    if name not in (DRAWN, PHOTOS):
        command += f" --out experiments/quality/{name}.jsonl"
    return (
        f"Accuracy on held-out pictures after each number of requests, {rows[-1]['requests']} in "
        f"all; written by `{command}`. Machine: {machines(rows)}. One order of the people, seed "
        f"{SEED}.{people}\n\n{results_table(rows)}"
    )


def main() -> None:
    """Answers the requests that have no row yet, and writes the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--requests", type=int, default=PEOPLE)
    parser.add_argument("--faces", type=Path, help="photographs; pocket's drawings if left out")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--out", type=Path, help="file of the rows; by default beside this one")
    parser.add_argument("--folder", type=Path, help="of the ledger; by default in runs/")
    options = parser.parse_args()
    # The same result on every machine with these versions.
    os.environ["OMP_NUM_THREADS"] = "1"
    name = DRAWN if options.faces is None else PHOTOS
    out = options.out or Path(__file__).with_name(f"{name}.jsonl")
    # Rows of other settings are of another ledger.
    folder = options.folder or ROOT / "runs" / out.stem
    pocket, rows = Pocket(), read_rows(out)
    if options.faces is not None:
        pocket = build_pocket(options.faces, 0, folder, PHOTOGRAPHED)
    requested, others = order_of(pocket)
    target, photos = str(pocket.checkpoint("target")), folder / "photos"
    fields = parse_overrides(options.set)
    if not (folder / "ledger").exists():
        write_pictures(pocket, others, folder / "others")
        for number, index in enumerate(requested, 1):
            write_pictures(pocket, [index], photos / str(number))
        create_ledger(
            folder / "ledger",
            "pocket:target" if options.faces is None else target,
            retain=folder / "others",
            attacks=(),
            # Every result is deployed, and nothing is held out: the rows measure it.
            fields={"ask": "none", "holdout_share": 0, **fields},
            forget_margin=0.99,
            keep_margin=0.99,
        )
    ledger = open_ledger(folder / "ledger")
    common = {"machine": describe_this_machine(), "set": fields}
    if not rows:
        append_row(out, rows, {"requests": 0, **common, **measure(Path(target), pocket, 0)})
    for number in range(len(rows), options.requests + 1):
        request = f"R{number}"
        if request not in ledger.state.requests:
            ledger.new(photos / str(number), id=request)
        if ledger.state.requests[request].status != "accepted":
            ledger.run(request, photos=photos)
        state = ledger.state
        step = state.steps[state.requests[request].steps[-1]]
        model = deployed_model(ledger.folder, state, target)
        row = {
            "requests": number,
            "status": step.status,
            "seconds": step.decided.seconds if step.decided is not None else None,
            **common,
            **measure(model, pocket, number),
        }
        append_row(out, rows, row)
    name = out.stem
    if f"<!-- {name}:begin -->" in PAGE.read_text("utf-8"):
        replace_section(PAGE, name, section(rows, name))
    print(results_table(rows))


if __name__ == "__main__":
    main()
