"""The resumable state of a training run: weights, optimizer and history in one file."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file

from unsee.errors import RunError, first_line
from unsee.files import (
    append_text,
    atomic_file,
    combine_digests,
    make_folder,
    read_text,
    refuse_odd_file,
    write_atomically,
)
from unsee.models.checkpoint import tensor_digest
from unsee.training.optimizer import OptimizerStep

if TYPE_CHECKING:
    from torch import Tensor

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


MOST_LOG_BYTES = 4_000_000_000

# Settings that may differ when a run is resumed, because they do not change the result.
MAY_DIFFER_ON_RESUME = ("save_every", "parallel", "offload", "workers")


class TrainingLog:
    """The JSONL file that gets one line a step; a state keeps the hash of the lines before it."""

    def __init__(self, path: Path) -> None:
        """Refers to a file; `resume` prepares it."""
        self.path = path
        self._digest = hashlib.sha256()

    @property
    def sha256(self) -> str:
        """SHA-256 of the lines so far."""
        return self._digest.hexdigest()

    def resume(self, steps: int, sha256: str | None) -> None:
        """Drops the lines of steps that a resumed run repeats, and any half-written line.

        Args:
            steps: Number of steps that the state has done.
            sha256: The state's hash of their lines; None if it was made without a log.

        Raises:
            RunError: If the lines are not those that were written, or the file cannot be written.
        """
        if not steps and not self.path.exists():
            make_folder(self.path.parent)
            return
        try:
            lines = read_text(self.path, MOST_LOG_BYTES).splitlines(keepends=True) if steps else []
        except FileNotFoundError:
            lines = []
        kept = "".join(line for line in lines[:steps] if line.endswith("\n"))
        self._digest = hashlib.sha256(kept.encode())
        if steps and sha256 is not None and sha256 != self.sha256:
            raise RunError(
                f"{self.path} is damaged: its first {steps} lines are not those that the run "
                "wrote. Restore it, or start afresh in another folder (--out)."
            )
        write_atomically(self.path, kept)

    def append(self, history: TrainingHistory, rate: float) -> None:
        """Adds the line of the last step.

        Args:
            history: What was done so far.
            rate: The learning rate of the step.

        Raises:
            RunError: If it cannot be written, such as on a full disk.
        """
        content = {
            "step": history.steps,
            "loss": sum(history.last.values()),
            "terms": history.last,
            "lr": rate,
            "seconds": round(history.seconds, 4),
        }
        line = json.dumps(content) + "\n"
        append_text(self.path, line)
        self._digest.update(line.encode())


def save_state(
    folder: Path,
    settings: TrainingSettings,
    optimizer_step: OptimizerStep,
    history: TrainingHistory,
    write: bool = True,
    log: TrainingLog | None = None,
) -> None:
    """Writes the resumable state atomically, with the hash of all that is in it.

    Args:
        folder: Where to write it.
        settings: The training settings.
        optimizer_step: Holds weights and optimizer.
        history: What was done so far.
        write: Whether this process writes; the others only contribute their shards.
        log: The log, whose lines so far the state belongs to.

    Raises:
        RunError: If it cannot be written.
    """
    tensors = optimizer_step.state_dict()
    if not write:
        return
    meta = {
        "settings": json.dumps(_compared(settings), sort_keys=True),
        "history": json.dumps(asdict(history)),
        "scaler": json.dumps(optimizer_step.scaler_state()),
        "log": json.dumps(log.sha256 if log is not None else None),
    }
    meta["sha256"] = _digest(tensors, meta)
    make_folder(folder)
    with atomic_file(folder / STATE) as partial:
        save_file(tensors, partial, metadata=meta)


def saved_steps(folder: Path) -> int:
    """The number of steps that the state in a folder has done; 0 without one, or if it is damaged.

    Only the header is read; `load_state` refuses a damaged state.
    """
    path = folder / STATE
    if not path.is_file():
        return 0
    try:
        with safe_open(path, "pt") as file:
            steps: int = json.loads((file.metadata() or {})["history"])["steps"]
    except (SafetensorError, OSError, ValueError, KeyError):
        return 0
    return steps


def load_state(
    folder: Path,
    settings: TrainingSettings,
    optimizer_step: OptimizerStep,
    trained: set[str],
    history: TrainingHistory,
) -> str | None:
    """Restores the state in a folder, if there is one.

    Args:
        folder: Where it is.
        settings: The training settings.
        optimizer_step: Holds weights and optimizer, which are overwritten.
        trained: The names of the trained parameters.
        history: The history whose fields are overwritten.

    Returns:
        SHA-256 of the log's lines at that state; None without a state or a log.

    Raises:
        RunError: If the state is damaged, or belongs to another run.
    """
    path = folder / STATE
    if not path.exists():
        return None
    meta, tensors = _read(path)
    saved: dict[str, Any] = json.loads(meta["settings"])
    now = _compared(settings)
    changed = [k for k in now if now[k] != saved.get(k)]
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
    sha256: str | None = json.loads(meta["log"])
    return sha256


def _compared(settings: TrainingSettings) -> dict[str, Any]:
    """The settings that must be the same when a run is resumed; folders are none of them."""
    return {k: v for k, v in asdict(settings).items() if k not in MAY_DIFFER_ON_RESUME}


def _read(path: Path) -> tuple[dict[str, str], dict[str, Tensor]]:
    """Metadata and tensors of a state, compared with the hash in it."""
    refuse_odd_file(path)
    try:
        with safe_open(path, "pt") as file:
            meta = dict(file.metadata() or {})
        tensors = load_file(path)
        reason = "it is not what was written"
        if meta.pop("sha256", None) == _digest(tensors, meta):
            return meta, tensors
    except (SafetensorError, OSError, ValueError) as error:
        reason = first_line(error)
    raise RunError(
        f"{path} is damaged ({reason}). Restore it, or remove it and type the same command again, "
        "which trains from the first step."
    )


def _digest(tensors: Mapping[str, Tensor], meta: Mapping[str, str]) -> str:
    """SHA-256 of all that is in a state."""
    digests = {f"tensor {name}": tensor_digest(tensor) for name, tensor in tensors.items()}
    texts = {f"text {key}": hashlib.sha256(v.encode()).hexdigest() for key, v in meta.items()}
    return combine_digests(digests | texts)
