"""The resumable state of a training run: weights, optimiser and history in one file."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors import safe_open
from safetensors.torch import load_file, save_file

from unsee.errors import RunError
from unsee.training.optimizer import OptimizerStep

if TYPE_CHECKING:
    from unsee.training.settings import TrainingSettings


@dataclass
class TrainingHistory:
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


STATE = "state"


# What may differ between two sittings of one run: it does not change the result.
MAY_DIFFER_ON_RESUME = ("save_every", "parallel", "offload", "workers")


def save(
    folder: Path,
    settings: TrainingSettings,
    update: OptimizerStep,
    history: TrainingHistory,
    write: bool = True,
) -> None:
    """Writes the state, whole or not at all.

    Args:
        folder: Where to.
        settings: Of the training.
        update: What holds weights and optimiser.
        history: What was done so far.
        write: Whether this process does; the others hand over their shares.

    Raises:
        RunError: If it cannot be written.
    """
    tensors = update.state()
    if not write:
        return
    meta = {
        "settings": json.dumps(asdict(settings), sort_keys=True),
        "history": json.dumps(asdict(history)),
        "scaler": json.dumps(update.scaler()),
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


def load_state(
    folder: Path,
    settings: TrainingSettings,
    update: OptimizerStep,
    trained: set[str],
    history: TrainingHistory,
) -> None:
    """Puts the state back, if there is one.

    Args:
        folder: Where it is.
        settings: Of the training.
        update: What gets weights and optimiser.
        trained: The names of the trained parameters.
        history: Gets what was done so far.

    Raises:
        RunError: If it is that of another run.
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
    update.put(tensors, json.loads(meta["scaler"]))
    for name, value in json.loads(meta["history"]).items():
        setattr(history, name, value)
