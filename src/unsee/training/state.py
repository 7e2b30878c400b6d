"""The resumable state of a training run: weights, optimizer and history in one file."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors import safe_open
from safetensors.torch import load_file, save_file

from unsee.errors import RunError
from unsee.files import atomic_file
from unsee.training.optimizer import OptimizerStep

if TYPE_CHECKING:
    from unsee.training.settings import TrainingSettings


@dataclass
class TrainingHistory:
    """Progress of a training run: steps, time and last loss terms.

    Attributes:
        steps: Steps done in total, including those before a resume.
        seconds: Wall-clock time in the loop, including that before a resume.
        trained: Number of parameter values that received a gradient.
        last: The loss terms of the last step.
    """

    steps: int = 0
    seconds: float = 0.0
    trained: int = 0
    last: dict[str, float] = field(default_factory=dict)


STATE = "state"


# Settings that may differ when a run is resumed, because they do not change the result.
MAY_DIFFER_ON_RESUME = ("save_every", "parallel", "offload", "workers")


def save_state(
    folder: Path,
    settings: TrainingSettings,
    optimizer_step: OptimizerStep,
    history: TrainingHistory,
    write: bool = True,
) -> None:
    """Writes the resumable state atomically.

    Args:
        folder: Where to write it.
        settings: The training settings.
        optimizer_step: Holds weights and optimizer.
        history: What was done so far.
        write: Whether this process writes; the others only contribute their shards.

    Raises:
        RunError: If it cannot be written.
    """
    tensors = optimizer_step.state_dict()
    if not write:
        return
    meta = {
        "settings": json.dumps(asdict(settings), sort_keys=True),
        "history": json.dumps(asdict(history)),
        "scaler": json.dumps(optimizer_step.scaler_state()),
    }
    folder.mkdir(parents=True, exist_ok=True)
    with atomic_file(folder / STATE) as partial:
        save_file(tensors, partial, metadata=meta)


def load_state(
    folder: Path,
    settings: TrainingSettings,
    optimizer_step: OptimizerStep,
    trained: set[str],
    history: TrainingHistory,
) -> None:
    """Restores the state in a folder, if there is one.

    Args:
        folder: Where it is.
        settings: The training settings.
        optimizer_step: Holds weights and optimizer, which are overwritten.
        trained: The names of the trained parameters.
        history: The history whose fields are overwritten.

    Raises:
        RunError: If the state belongs to another run.
    """
    path = folder / STATE
    if not path.exists():
        return
    with safe_open(path, "pt") as file:
        meta = file.metadata()
    saved: dict[str, Any] = json.loads(meta["settings"])
    now = asdict(settings)
    changed = [k for k in now if k not in MAY_DIFFER_ON_RESUME and now[k] != saved.get(k)]
    tensors = load_file(path)
    stored = {n.removeprefix("parameter/") for n in tensors if n.startswith("parameter/")}
    if changed or stored != trained:
        what = f"setting '{changed[0]}'" if changed else "the set of trained parameters"
        raise RunError(
            f"{folder} holds the state of another run: {what} differs. Resume with the same "
            "options, or start afresh in another folder (--out)."
        )
    optimizer_step.load_state(tensors, json.loads(meta["scaler"]))
    stored_history = json.loads(meta["history"])
    for name in asdict(history).keys() & stored_history.keys():
        setattr(history, name, stored_history[name])
