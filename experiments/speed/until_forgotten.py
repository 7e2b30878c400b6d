"""How long a method trains until the forgotten faces are as unknown as to the reference model.

    python -m experiments.speed.until_forgotten METHOD [key=value ...] --goal 0.1

Prints one JSON line: seconds of training (without scoring), steps, peak memory of this process,
trainable parameters, and the accuracies afterwards. The learning rate is constant.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import time
from collections.abc import Mapping

from unsee.benchmarks.pocket import Pocket
from unsee.evaluation.evaluate import evaluate
from unsee.models.vlm import VLM
from unsee.recipes.parsing import parse_overrides
from unsee.recipes.unlearn import make_recipe
from unsee.records.provenance import peak_memory
from unsee.training.trainer import Trainer

EVERY = 10  # steps between two evaluations


class Reached(Exception):
    """The goal is reached."""


class ForgetAccuracy:
    """A progress bar that measures the forget accuracy every few steps, outside the timed part."""

    def __init__(self, vlm: VLM, pocket: Pocket, goal: float) -> None:
        """Raises `Reached` in `update` once the forget accuracy is at most `goal`."""
        self.vlm, self.goal = vlm, goal
        self.samples = [s for s in pocket.load("forget") if s.modality == "vqa"]
        self.started, self.paused, self.steps = time.perf_counter(), 0.0, 0
        self.value = 1.0

    def update(self, step: int, steps: int, terms: Mapping[str, float]) -> None:
        """Measures after every `EVERY` steps; see `unsee.training.loop.Progress`."""
        self.steps = step
        if step % EVERY:
            return
        before = time.perf_counter()
        measures = evaluate(self.vlm, {"forget": self.samples}, metrics=["accuracy"]).measures
        self.value = measures["forget/vqa/accuracy"].value or 0.0
        self.paused += time.perf_counter() - before
        if self.value <= self.goal:
            raise Reached


def main() -> None:
    """Trains one method until the goal."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("method")
    parser.add_argument("overrides", nargs="*")
    parser.add_argument("--goal", type=float, required=True)
    options = parser.parse_args()
    changes = parse_overrides(options.overrides)
    chosen = {"steps": 600, "save_every": 0, "schedule": "constant", **changes}
    recipe = make_recipe({"method": options.method, "set": chosen})
    pocket = Pocket()
    vlm = VLM.load(pocket.checkpoint("target"))
    data = pocket.data()
    accuracy = ForgetAccuracy(vlm, pocket, options.goal)
    with contextlib.suppress(Reached):
        recipe.method.unlearn(vlm, data, Trainer(recipe.training, progress=accuracy))
    seconds = time.perf_counter() - accuracy.started - accuracy.paused
    memory = peak_memory() or 0
    splits = {n: pocket.load(n) for n in ("forget", "forget_holdout", "retain_holdout", "general")}
    measures = evaluate(vlm, splits, metrics=["accuracy"]).measures
    trained = sum(p.numel() for p in vlm.parameters().values() if p.requires_grad)
    row = {
        "method": " ".join([options.method, *options.overrides]),
        "reached": accuracy.value <= options.goal,
        "seconds": round(seconds, 1),
        "steps": accuracy.steps,
        "peak_memory_mb": round(memory / 2**20),
        "trainable_parameters": trained,
        **{key: round(e.value or 0.0, 3) for key, e in measures.items()},
    }
    print(json.dumps(row))


if __name__ == "__main__":
    main()
