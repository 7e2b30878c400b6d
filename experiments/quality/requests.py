"""Up to twenty deletion requests one after another on pocket; writes a table into docs/requests.md.

    python -m experiments.quality.requests [--requests 20] [--set KEY=VALUE ...] [--out FILE.jsonl]

Of pocket's forty people, twenty ask one after another to be forgotten, each with their own pictures
alone, in one ledger (`unsee request`). The pictures of the other twenty are its retain set. After
every request the deployed model is asked about held-out pictures of everyone, in held-out wordings.
Every request is one row of the JSONL file; existing rows are not measured again.
"""

from __future__ import annotations

import argparse
import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from experiments.pages import DOCS, ROOT, append_row, machines, read_rows, replace_section, table
from unsee.api import create_ledger, open_ledger
from unsee.benchmarks.pocket import Pocket
from unsee.benchmarks.pocket.world import picture_questions
from unsee.evaluation.evaluate import evaluate
from unsee.models.vlm import VLM
from unsee.recipes.parsing import parse_overrides
from unsee.records.provenance import describe_this_machine
from unsee.requests.models import deployed_model
from unsee.types import Sample

PEOPLE = 20
SEED = 19
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


def main() -> None:
    """Answers the requests that have no row yet, and writes the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--requests", type=int, default=PEOPLE)
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--out", type=Path, default=Path(__file__).with_suffix(".jsonl"))
    parser.add_argument("--folder", type=Path, default=ROOT / "runs" / "requests")
    options = parser.parse_args()
    # The same result on every machine with these versions.
    os.environ["OMP_NUM_THREADS"] = "1"
    pocket, rows, folder = Pocket(), read_rows(options.out), options.folder
    requested, others = order_of(pocket)
    target, photos = str(pocket.checkpoint("target")), folder / "photos"
    fields = parse_overrides(options.set)
    if not (folder / "ledger").exists():
        write_pictures(pocket, others, folder / "others")
        for number, index in enumerate(requested, 1):
            write_pictures(pocket, [index], photos / str(number))
        create_ledger(
            folder / "ledger",
            "pocket:target",
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
        append_row(options.out, rows, {"requests": 0, **common, **measure(Path(target), pocket, 0)})
    for number in range(len(rows), options.requests + 1):
        name = f"R{number}"
        if name not in ledger.state.requests:
            ledger.new(photos / str(number), id=name)
        if ledger.state.requests[name].status != "accepted":
            ledger.run(name, photos=photos / str(number))
        state = ledger.state
        step = state.steps[state.requests[name].steps[-1]]
        model = deployed_model(ledger.folder, state, target)
        row = {
            "requests": number,
            "status": step.status,
            "seconds": step.decided.seconds if step.decided is not None else None,
            **common,
            **measure(model, pocket, number),
        }
        append_row(options.out, rows, row)
    page, last = DOCS / "requests.md", rows[-1]["requests"]
    settings = " ".join(f"--set {text}" for text in options.set)
    body = (
        f"Accuracy on held-out pictures after each number of requests, {last} in all; written by "
        f"`python -m experiments.quality.requests{' ' * bool(settings)}{settings}`. Machine: "
        f"{machines(rows)}. One order of the people, seed {SEED}.\n\n{results_table(rows)}"
    )
    replace_section(page, "requests", body)
    print(results_table(rows))


if __name__ == "__main__":
    main()
