"""The training loop: seeded, resumable to the bit, and the only one in the package."""

from __future__ import annotations

import json
import math
import os
import random
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal, Protocol

import numpy as np
import torch
from pydantic import BeforeValidator, Field
from torch import Tensor, nn

from unsee.engine import Engine
from unsee.errors import TrainingError
from unsee.state import STATE, restore, save
from unsee.update import Update, ZeroUpdate

ALONE = Engine()


def _spelled(value: object) -> object:
    """YAML reads a plain `no` as false."""
    return "no" if value is False else value


@dataclass(frozen=True)
class Settings:
    """How to train: what is not a method's own hyperparameter.

    Attributes:
        steps: Optimiser steps.
        batch_size: Samples a step from each set that the method needs.
        lr: Peak learning rate of AdamW.
        weight_decay: AdamW's decoupled decay.
        warmup: Share of the steps over which the rate rises from 0.
        schedule: After the warm-up: "constant", "cosine" or "linear" to 0.
        clip: Largest gradient norm; 0 is no limit.
        accumulate: Batches whose gradients are averaged into one step.
        save_every: Steps between resumable states; 0 keeps the last alone.
        seed: Decides data order, augmentation and every other draw.
        lora: Rank of LoRA adapters that are trained in place of the weights; 0 trains the weights.
        lora_alpha: Scale of the adapters times their rank.
        lora_dropout: Share of an adapter's inputs that are dropped while training.
        precision: What forward and backward passes compute in where that is safe: "bf16", "fp16"
            (GPUs), or "no" other than the weights are in. "fp32" holds a model that is stored in
            fewer bits in 32, and computes in them.
        checkpointing: Forget what blocks computed, and compute it again for the gradient: less
            memory, more time.
        offload: Folder whose disk holds AdamW's state between the updates, on a CPU in one process:
            less memory, the same result. None keeps it in memory.
        workers: Threads that read and augment pictures while the step before is computed; "auto" is
            none on a CPU. The result is the same.
        compile: Compile the blocks' attention and MLP with torch.compile.
        attention: "sdpa", "flash_attention_2" or "eager"; "auto" is what the model was loaded with.
        parallel: What several processes hold of the trained weights: all of them ("ddp"), or a
            share each ("fsdp"); "auto" is what the launcher says.
    """

    steps: Annotated[int, Field(ge=0)] = 200
    batch_size: Annotated[int, Field(ge=1)] = 16
    lr: Annotated[float, Field(gt=0)] = 3e-4
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    warmup: Annotated[float, Field(ge=0, le=1)] = 0.05
    schedule: Annotated[str, Field(pattern="^(constant|cosine|linear)$")] = "cosine"
    clip: Annotated[float, Field(ge=0)] = 1.0
    accumulate: Annotated[int, Field(ge=1)] = 1
    save_every: Annotated[int, Field(ge=0)] = 50
    seed: Annotated[int, Field(ge=0)] = 0
    lora: Annotated[int, Field(ge=0)] = 0
    lora_alpha: Annotated[float, Field(gt=0)] = 16.0
    lora_dropout: Annotated[float, Field(ge=0, lt=1)] = 0.05
    precision: Annotated[Literal["no", "bf16", "fp16", "fp32"], BeforeValidator(_spelled)] = "no"
    checkpointing: bool = False
    offload: str | None = None
    workers: Literal["auto"] | Annotated[int, Field(ge=0)] = "auto"
    compile: bool = False
    attention: Literal["auto", "eager", "sdpa", "flash_attention_2"] = "auto"
    parallel: Literal["auto", "ddp", "fsdp"] = "auto"

    def rate(self, step: int) -> float:
        """The learning rate at a step, counted from 0."""
        warm = max(1, round(self.warmup * self.steps))
        if self.warmup > 0 and step < warm:
            return self.lr * (step + 1) / warm
        if self.schedule == "constant":
            return self.lr
        done = (step - warm) / max(1, self.steps - warm)
        factor = 0.5 * (1 + math.cos(math.pi * done)) if self.schedule == "cosine" else 1 - done
        return self.lr * max(factor, 0.0)


class Progress(Protocol):
    """What the loop tells whoever shows it."""

    def update(self, step: int, steps: int, terms: Mapping[str, float]) -> None:
        """Called after every step with the number of steps done and the loss terms."""


@dataclass
class History:
    """What a training run did.

    Attributes:
        steps: Steps done in all, earlier sittings included.
        seconds: Time in the loop, earlier sittings included.
        samples: Samples seen, if the caller counts them.
        trained: Number of parameters that received a gradient.
        last: The last step's loss terms.
    """

    steps: int = 0
    seconds: float = 0.0
    samples: int = 0
    trained: int = 0
    last: dict[str, float] = field(default_factory=dict)


def seed_step(seed: int, step: int) -> None:
    """Seeds every generator from (seed, step), so that a step does not depend on those before."""
    value = (seed * 1_000_003 + step * 7919 + 1) % 2**31
    torch.manual_seed(value)
    np.random.seed(value)
    random.seed(value)


def batch_indices(count: int, size: int, step: int, seed: int) -> list[int]:
    """The indices of the batch at a step: epoch after epoch of seeded permutations.

    A function of its arguments alone. Every index comes once an epoch; a batch may span two.
    """
    if count < 1:
        raise TrainingError("there is nothing to draw batches from: a set is empty.")
    indices: list[int] = []
    position = step * size
    while len(indices) < size:
        epoch, offset = divmod(position, count)
        order = np.random.default_rng([seed, epoch]).permutation(count)
        take = order[offset : offset + size - len(indices)]
        indices += [int(i) for i in take]
        position += len(take)
    return indices


def fit(
    parameters: Mapping[str, nn.Parameter],
    step: Callable[[int], Mapping[str, Tensor]],
    settings: Settings,
    *,
    engine: Engine = ALONE,
    folder: Path | None = None,
    log: Path | None = None,
    progress: Progress | None = None,
    gradient: Callable[[Mapping[str, nn.Parameter]], None] | None = None,
    after: Callable[[int], None] | None = None,
) -> History:
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
    kind = ZeroUpdate if engine.parallel == "zero" else Update
    update = kind(engine, step, parameters, settings)
    history = History()
    if folder is not None:
        restore(folder, settings, update, set(parameters), history)
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
            with engine.exchange(update.objective, last=micro == mine[-1]):
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


def _append(log: Path, history: History, rate: float) -> None:
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
