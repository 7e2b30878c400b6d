"""The training loop: seeded, resumable to the bit, and the only one in the package."""

from __future__ import annotations

import json
import math
import os
import random
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated, Any, Protocol

import numpy as np
import torch
from pydantic import Field
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from unsee.errors import RunError, TrainingError

STATE = "state"


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
    names = list(parameters)
    values = [parameters[name] for name in names]
    optimizer = torch.optim.AdamW(values, lr=settings.lr, weight_decay=settings.weight_decay)
    history = History()
    if folder is not None:
        _restore(folder, settings, parameters, optimizer, history)
    if log is not None:
        _trim(log, history.steps)
    started, before = time.perf_counter(), history.seconds
    for index in range(history.steps, settings.steps):
        rate = settings.rate(index)
        for group in optimizer.param_groups:
            group["lr"] = rate
        optimizer.zero_grad(set_to_none=True)
        terms: dict[str, float] = {}
        for micro in range(settings.accumulate):
            number = index * settings.accumulate + micro
            seed_step(settings.seed, number)
            losses = step(number)
            for name, value in losses.items():
                terms[name] = terms.get(name, 0.0) + value.item() / settings.accumulate
            _require_finite(terms, index, folder)
            total = sum(losses.values(), torch.zeros(()))
            if total.requires_grad:
                (total / settings.accumulate).backward()
        if gradient is not None:
            gradient(parameters)
        grads = [p.grad for p in values if p.grad is not None]
        if not grads and index == history.steps == 0:
            raise TrainingError(
                "no trained parameter received a gradient: every loss term is constant. Check the "
                "weights of the terms (w_forget, w_erase, ...) and the trained layers."
            )
        if settings.clip > 0 and grads:
            norm = nn.utils.clip_grad_norm_(values, settings.clip)
            _require_finite({"gradient norm": float(norm)}, index, folder)
        optimizer.step()
        history.trained = sum(p.numel() for p in values if p.grad is not None)
        history.steps, history.last = index + 1, terms
        history.seconds = before + time.perf_counter() - started
        if log is not None:
            _append(log, history, rate)
        last = index + 1 == settings.steps
        if folder is not None and (last or (index + 1) % (settings.save_every or math.inf) == 0):
            _save(folder, settings, parameters, optimizer, history)
        if progress is not None:
            progress.update(index + 1, settings.steps, terms)
        if after is not None:
            after(index + 1)
    optimizer.zero_grad(set_to_none=True)
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


def _save(
    folder: Path,
    settings: Settings,
    parameters: Mapping[str, nn.Parameter],
    optimizer: torch.optim.Optimizer,
    history: History,
) -> None:
    tensors = {f"parameter/{n}": p.detach().contiguous() for n, p in parameters.items()}
    state = optimizer.state_dict()["state"]
    for index, slots in state.items():
        for slot, value in slots.items():
            tensors[f"optimizer/{index}/{slot}"] = torch.as_tensor(value).clone().contiguous()
    meta = {
        "settings": json.dumps(asdict(settings), sort_keys=True),
        "history": json.dumps(asdict(history)),
    }
    folder.mkdir(parents=True, exist_ok=True)
    partial = folder / f".{STATE}.partial"
    try:
        save_file(tensors, partial, metadata=meta)
        os.replace(partial, folder / STATE)
    except Exception as error:
        partial.unlink(missing_ok=True)
        raise RunError(
            f"the state in {folder} cannot be written ({error}). Free some space and resume."
        ) from error


def _restore(
    folder: Path,
    settings: Settings,
    parameters: Mapping[str, nn.Parameter],
    optimizer: torch.optim.Optimizer,
    history: History,
) -> None:
    path = folder / STATE
    if not path.exists():
        return
    from safetensors import safe_open

    with safe_open(path, "pt") as file:
        meta = file.metadata()
    saved: dict[str, Any] = json.loads(meta["settings"])
    now = asdict(settings)
    changed = [k for k in now if k != "save_every" and now[k] != saved.get(k)]
    tensors = load_file(path)
    stored = {n.removeprefix("parameter/") for n in tensors if n.startswith("parameter/")}
    if changed or stored != set(parameters):
        what = f"setting '{changed[0]}'" if changed else "the set of trained parameters"
        raise RunError(
            f"{folder} holds the state of another run: {what} differs. Resume with the same "
            "options, or start afresh in another folder (--out)."
        )
    with torch.no_grad():
        for name, parameter in parameters.items():
            parameter.copy_(tensors[f"parameter/{name}"])
    slots: dict[int, dict[str, Tensor]] = {}
    for key, value in tensors.items():
        if key.startswith("optimizer/"):
            _, index, slot = key.split("/")
            slots.setdefault(int(index), {})[slot] = value
    state = optimizer.state_dict()
    state["state"] = slots
    optimizer.load_state_dict(state)
    for name, value in json.loads(meta["history"]).items():
        setattr(history, name, value)
