"""The training loop: seeded, resumable to the bit, and the only one in the package."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from torch import nn

from unsee.errors import TrainingError
from unsee.training.distributed import DistributedContext, Step
from unsee.training.optimizer import DeepSpeedStep, OptimizerStep
from unsee.training.sampling import seed_step
from unsee.training.settings import TrainingSettings
from unsee.training.state import STATE, TrainingHistory, TrainingLog, load_state, save_state

SINGLE_PROCESS = DistributedContext()


class Progress(Protocol):
    """Interface of objects that are called after every step, such as a progress bar."""

    def update(self, step: int, steps: int, terms: Mapping[str, float]) -> None:
        """Called after every step.

        Args:
            step: The number of steps done.
            steps: The number of all steps.
            terms: The loss terms of the step, by name.
        """


class AfterStep(Progress):
    """A `Progress` that calls a function with the number of steps done."""

    def __init__(self, function: Callable[[int], None]) -> None:
        """Calls `function` after every step."""
        self._function = function

    def update(self, step: int, steps: int, terms: Mapping[str, float]) -> None:
        """See `Progress.update`."""
        self._function(step)


@dataclass(frozen=True)
class StepReport:
    """One step of a training.

    Attributes:
        step: The number of steps done, from 1.
        steps: The number of all steps.
        losses: The loss terms by name, weighted as they enter the sum.
        lr: The learning rate.
        gradient_norm: The gradients' norm before clipping; None if nothing was clipped.
        seconds: Wall-clock time in the loop, including that before a resume.
    """

    step: int
    steps: int
    losses: Mapping[str, float]
    lr: float
    gradient_norm: float | None
    seconds: float


class StepObserver(Progress):
    """A `Progress` that is told everything about a step."""

    def observe(self, report: StepReport) -> None:
        """Called after every step, in place of `update`."""
        self.update(report.step, report.steps, report.losses)


def fit(
    parameters: Mapping[str, nn.Parameter],
    step: Step,
    settings: TrainingSettings,
    *,
    context: DistributedContext = SINGLE_PROCESS,
    folder: Path | None = None,
    log: Path | None = None,
    progress: Progress | None = None,
    gradient: Callable[[Mapping[str, nn.Parameter]], None] | None = None,
) -> TrainingHistory:
    """Trains `parameters` with AdamW on the loss that `step` returns.

    Resuming: with a `folder`, parameters and optimizer are saved every `save_every` steps, and a
    run that finds such a state continues from it. Every draw is seeded from (seed, step), so the
    final weights equal those of an uninterrupted run bit for bit on the same machine and thread
    count.

    Args:
        parameters: What to train, by name. Only these change; the caller freezes the rest.
        step: Given the number of a (micro-)batch, the named, already weighted loss terms; their
            sum is minimised. Must depend on nothing but that number and the weights.
        settings: Steps, learning rate and so on.
        context: How steps are computed, and with which other processes; only process 0 writes the
            log and reports progress.
        folder: Where to keep the resumable state.
        log: A JSONL file that gets one line a step.
        progress: Called after every step, once log and state are written.
        gradient: Edits the gradients in place before each update, such as a mask.

    Raises:
        TrainingError: If a term is not finite (the last saved state stays), or if no parameter
            receives a gradient.
    """
    if not parameters:
        raise TrainingError("no parameters to train: the chosen part or layers are empty.")
    for parameter in parameters.values():
        parameter.requires_grad_(True)
    kind = DeepSpeedStep if context.strategy == "zero" else OptimizerStep
    optimizer_step = kind(context, step, parameters, settings)
    history, log_sha256 = TrainingHistory(), None
    if folder is not None:
        log_sha256 = load_state(folder, settings, optimizer_step, set(parameters), history)
    if context.rank:
        log = progress = None
    written = TrainingLog(log) if log is not None else None
    if written is not None:
        written.resume(history.steps, log_sha256)
    started, seconds_before = time.perf_counter(), history.seconds
    for index in range(history.steps, settings.steps):
        rate = settings.rate(index)
        optimizer_step.start_step(rate)
        terms = _accumulate_gradients(optimizer_step, index, settings, context, folder)
        norm = optimizer_step.clip_gradients(gradient)
        _require_finite({"gradient norm": norm}, index, folder)
        history.trained = optimizer_step.count_with_gradient()
        if not history.trained and index == history.steps == 0:
            raise TrainingError(
                "no trained parameter received a gradient: every loss term is constant. Check the "
                "weights of the terms (w_forget, w_erase, ...) and the trained layers."
            )
        optimizer_step.step()
        if _saves_after(index + 1, settings):
            _require_finite_weights(parameters, index, folder)
        history.steps, history.last = index + 1, terms
        history.seconds = seconds_before + time.perf_counter() - started
        if written is not None:
            written.append(history, rate)
        if folder is not None and _saves_after(index + 1, settings):
            save_state(folder, settings, optimizer_step, history, context.rank == 0, written)
        _tell(progress, history, settings, rate, norm)
    optimizer_step.release()
    return history


def _tell(
    progress: Progress | None,
    history: TrainingHistory,
    settings: TrainingSettings,
    rate: float,
    norm: float,
) -> None:
    """Reports a step."""
    if isinstance(progress, StepObserver):
        losses = history.last
        report = StepReport(
            history.steps, settings.steps, losses, rate, norm or None, history.seconds
        )
        progress.observe(report)
    elif progress is not None:
        progress.update(history.steps, settings.steps, history.last)


def _accumulate_gradients(
    optimizer_step: OptimizerStep,
    index: int,
    settings: TrainingSettings,
    context: DistributedContext,
    folder: Path | None,
) -> dict[str, float]:
    """Computes a step's gradients; its loss terms, averaged over the batches of all processes."""
    terms: dict[str, float] = {}
    local = context.local_microbatches(settings.accumulate)
    for micro in local:
        number = index * settings.accumulate + micro
        seed_step(settings.seed, number)
        with context.gradient_sync(optimizer_step.objective, last=micro == local[-1]):
            losses, total = optimizer_step.objective(number)
            for name, value in losses.items():
                terms[name] = terms.get(name, 0.0) + value.item() / settings.accumulate
            if context.world_size == 1:
                _require_finite(terms, index, folder)
            optimizer_step.backward(total)
    terms = context.sum_over_processes(terms)
    _require_finite(terms, index, folder)
    return terms


def _saves_after(done: int, settings: TrainingSettings) -> bool:
    return done == settings.steps or done % (settings.save_every or math.inf) == 0


def _require_finite(terms: Mapping[str, float], step: int, folder: Path | None) -> None:
    bad = [name for name, value in terms.items() if not math.isfinite(value)]
    if bad:
        raise TrainingError(
            f"step {step + 1}: loss term '{bad[0]}' is {terms[bad[0]]}; stopped before the update."
            f"{_kept(folder)} Lower the learning rate (--set lr=...) or that term's weight."
        )


def _require_finite_weights(
    parameters: Mapping[str, nn.Parameter], step: int, folder: Path | None
) -> None:
    """Refuses weights that the last update has made infinite, before they are saved."""
    for name, parameter in parameters.items():
        if not bool(parameter.detach().isfinite().all()):
            raise TrainingError(
                f"step {step + 1}: the update made weights of {name} that are not finite; nothing "
                f"was saved.{_kept(folder)} Lower the learning rate (--set lr=...)."
            )


def _kept(folder: Path | None) -> str:
    """Where the last state is, if there is one."""
    exists = folder is not None and (folder / STATE).exists()
    return f" The last good state is kept in {folder / STATE}." if folder and exists else ""
