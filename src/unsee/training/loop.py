"""The training loop: seeded, resumable to the bit, and the only one in the package."""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Protocol

from torch import Tensor, nn

from unsee.errors import TrainingError
from unsee.training.distributed import DistributedContext
from unsee.training.optimizer import DeepSpeedStep, OptimizerStep
from unsee.training.sampling import seed_step
from unsee.training.settings import TrainingSettings
from unsee.training.state import STATE, TrainingHistory, load_state, save

ALONE = DistributedContext()


class Progress(Protocol):
    """What the loop tells whoever shows it."""

    def update(self, step: int, steps: int, terms: Mapping[str, float]) -> None:
        """Called after every step with the number of steps done and the loss terms."""


def fit(
    parameters: Mapping[str, nn.Parameter],
    step: Callable[[int], Mapping[str, Tensor]],
    settings: TrainingSettings,
    *,
    engine: DistributedContext = ALONE,
    folder: Path | None = None,
    log: Path | None = None,
    progress: Progress | None = None,
    gradient: Callable[[Mapping[str, nn.Parameter]], None] | None = None,
    after: Callable[[int], None] | None = None,
) -> TrainingHistory:
    """Trains `parameters` with AdamW on the loss that `step` returns.

    Resuming: with a `folder`, parameters and optimiser are saved every `save_every` steps, and a
    run that finds such a state goes on from it. Every draw is seeded from (seed, step), so the
    final weights equal those of an unbroken run bit for bit on the same machine and thread count.

    Args:
        parameters: What to train, by name. Only these change; all else is frozen by the caller.
        step: Given the number of a (micro-)batch, the named, already weighted loss terms; their
            sum is minimised. Must depend on nothing but that number and the weights.
        settings: Steps, rate and so on.
        engine: How steps are computed, and with which other processes; of these the first alone
            writes and is told of progress.
        folder: Where to keep the resumable state.
        log: A JSONL file that gets one line a step.
        progress: Told about every step.
        gradient: Edits the gradients in place before each update, such as a mask.
        after: Called with the number of steps done after each update.

    Raises:
        TrainingError: If a term is not finite (the last saved state stays), or nothing trains.
    """
    if not parameters:
        raise TrainingError("no parameters to train: the chosen part or layers are empty.")
    for parameter in parameters.values():
        parameter.requires_grad_(True)
    kind = DeepSpeedStep if engine.parallel == "zero" else OptimizerStep
    update = kind(engine, step, parameters, settings)
    history = TrainingHistory()
    if folder is not None:
        load_state(folder, settings, update, set(parameters), history)
    if engine.rank:
        log = progress = None
    if log is not None:
        _trim(log, history.steps)
    started, before = time.perf_counter(), history.seconds
    for index in range(history.steps, settings.steps):
        rate = settings.rate(index)
        update.begin(rate)
        terms: dict[str, float] = {}
        mine = engine.share(settings.accumulate)
        for micro in mine:
            number = index * settings.accumulate + micro
            seed_step(settings.seed, number)
            with engine.gradient_sync(update.objective, last=micro == mine[-1]):
                losses, total = update.objective(number)
                for name, value in losses.items():
                    terms[name] = terms.get(name, 0.0) + value.item() / settings.accumulate
                if engine.processes == 1:
                    _require_finite(terms, index, folder)
                update.backward(total)
        terms = engine.add(terms)
        _require_finite(terms, index, folder)
        _require_finite({"gradient norm": update.finish(gradient)}, index, folder)
        history.trained = update.reached()
        if not history.trained and index == history.steps == 0:
            raise TrainingError(
                "no trained parameter received a gradient: every loss term is constant. Check the "
                "weights of the terms (w_forget, w_erase, ...) and the trained layers."
            )
        update.step()
        history.steps, history.last = index + 1, terms
        history.seconds = before + time.perf_counter() - started
        if log is not None:
            _append(log, history, rate)
        last = index + 1 == settings.steps
        if folder is not None and (last or (index + 1) % (settings.save_every or math.inf) == 0):
            save(folder, settings, update, history, write=engine.rank == 0)
        if progress is not None:
            progress.update(index + 1, settings.steps, terms)
        if after is not None:
            after(index + 1)
    update.end()
    return history


def _require_finite(terms: Mapping[str, float], step: int, folder: Path | None) -> None:
    bad = [name for name, value in terms.items() if not math.isfinite(value)]
    if bad:
        kept = f" The last good state is kept in {folder / STATE}." if folder else ""
        raise TrainingError(
            f"step {step + 1}: loss term '{bad[0]}' is {terms[bad[0]]}; stopped before the update."
            f"{kept} Lower the learning rate (--set lr=...) or that term's weight."
        )


def _append(log: Path, history: TrainingHistory, rate: float) -> None:
    line = {
        "step": history.steps,
        "loss": sum(history.last.values()),
        "terms": history.last,
        "lr": rate,
        "seconds": round(history.seconds, 4),
    }
    with log.open("a", encoding="utf-8") as file:
        file.write(json.dumps(line) + "\n")


def _trim(log: Path, steps: int) -> None:
    """Drops the lines of steps that a resumed run will take again, and any half-written one."""
    if not log.exists():
        log.parent.mkdir(parents=True, exist_ok=True)
        return
    kept = [
        line
        for number, line in enumerate(log.read_text("utf-8").splitlines(keepends=True))
        if number < steps and line.endswith("\n")
    ]
    partial = log.with_suffix(".partial")
    partial.write_text("".join(kept), "utf-8")
    os.replace(partial, log)
