"""Experiment trackers, such as TensorBoard, by the adapters of accelerate."""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from unsee.errors import CallbackError, ConfigError, UnknownNameError, first_line, quoted
from unsee.files import remove
from unsee.records.schema import Measures, Summary
from unsee.training.loop import StepReport
from unsee.training.outcome_values import outcome_values
from unsee.training.watching import Watcher

# accelerate's names of trackers, with the module that each needs and what pip calls it.
TRACKERS = {
    "tensorboard": ("tensorboard", "'unsee[tensorboard]'"),
    "wandb": ("wandb", "wandb"),
    "trackio": ("trackio", "trackio"),
    "mlflow": ("mlflow", "mlflow"),
    "comet_ml": ("comet_ml", "comet_ml"),
    "aim": ("aim", "aim"),
    "clearml": ("clearml", "clearml"),
    "dvclive": ("dvclive", "dvclive"),
    "swanlab": ("swanlab", "swanlab"),
}

PROJECT = "unsee"

# Trackers whose adapter takes text among the values.
TAKES_TEXT = ("tensorboard", "wandb", "trackio", "comet_ml")


@dataclass(frozen=True)
class Tracked:
    """A run, as trackers know it.

    Attributes:
        folder: The run folder, where trackers of local files write.
        name: Its name in the tracker.
        id: Text of its own, which a run that is resumed keeps.
        resumed: Whether it was begun before.
        resumed_at: The number of training steps that were done before.
        logged: The number of training steps that were logged before; a resumed run repeats those
            after `resumed_at`.
        config: The run's settings: numbers, texts and flags by name.
        private: Keep the command line, machine and repository out of the tracker, too.
    """

    folder: Path
    name: str
    id: str
    resumed: bool
    resumed_at: int
    logged: int
    config: Mapping[str, Any]
    private: bool = False


def tracker_names(value: object) -> object:
    """Names of trackers as text with commas; None for none.

    Args:
        value: Text with commas, or a list.

    Example:
        >>> tracker_names(["tensorboard", "wandb"]), tracker_names("")
        ('tensorboard,wandb', None)

    Raises:
        ConfigError: If a name is unknown.
    """
    if value is None:
        return None
    items = value.split(",") if isinstance(value, str) else value
    if not isinstance(items, list | tuple) or not all(isinstance(item, str) for item in items):
        raise ConfigError(
            f"log_with={quoted(value)} is not allowed: give names of trackers, such as tensorboard."
        )
    names = dict.fromkeys(item.strip() for item in items if item.strip())
    for name in names:
        if name not in TRACKERS:
            raise UnknownNameError("tracker", name, TRACKERS)
    return ",".join(names) or None


def require_trackers(names: Sequence[str]) -> None:
    """Checks that the packages of trackers are installed.

    Raises:
        ConfigError: If one is not.
    """
    for name in names:
        module, package = TRACKERS[name]
        if find_spec(module) is None:
            raise ConfigError(
                f"log_with={name} needs the package {module}, which is not installed. Type: pip "
                f"install {package}."
            )


class Tracker(Watcher):
    """One of accelerate's trackers, told what happens in a run."""

    def __init__(self, name: str, run: Tracked) -> None:
        """Starts the tracker, and logs the settings of a new run.

        Args:
            name: A name among `TRACKERS`.
            run: The run.

        Raises:
            CallbackError: If it cannot be started, such as without a login.
        """
        from accelerate import PartialState

        self._name, self._run, self._last = name, run, run.resumed_at
        # TensorBoard replaces repeated steps; the others would show them twice.
        self._logged = 0 if name == "tensorboard" else run.logged
        with self._guarded("started"):
            # accelerate's trackers log debug messages, which ask it which process this is.
            PartialState()
            self._tracker = _TRACKERS.get(name, _other)(name, run)
            self._tracker.start()
            if not run.resumed:
                self._tracker.store_init_configuration(dict(run.config))

    def step(self, report: StepReport) -> None:
        """See `Watcher.step`."""
        values = {f"train/{name}": value for name, value in report.losses.items()}
        values |= {"train/loss": sum(report.losses.values()), "train/lr": report.lr}
        if report.gradient_norm is not None:
            values["train/gradient_norm"] = report.gradient_norm
        self._last = report.step
        if report.step > self._logged:
            self._log(values)

    def evaluated(self, measures: Mapping[str, Measures]) -> None:
        """See `Watcher.evaluated`."""
        for model, scores in measures.items():
            before = "eval" if model == "unlearned" else f"eval_{model}"
            values = {f"{before}/{key}": score.value for key, score in scores.items()}
            self._log({key: value for key, value in values.items() if value is not None})

    def finished(self, summary: Summary) -> None:
        """See `Watcher.finished`."""
        values = outcome_values(summary)
        if self._name not in TAKES_TEXT:
            values = {key: value for key, value in values.items() if not isinstance(value, str)}
        self._log(values)

    def close(self) -> None:
        """See `Watcher.close`."""
        with self._guarded("closed"):
            self._tracker.finish()
            if self._run.private:
                # wandb's own logs of this process name the folder; what it sends does not.
                for log in [
                    *self._run.folder.glob("wandb/*/logs"),
                    *self._run.folder.glob("wandb/*.log"),
                ]:
                    remove(log)

    def _log(self, values: Mapping[str, float | str]) -> None:
        finite = {
            key: value
            for key, value in values.items()
            if isinstance(value, str) or math.isfinite(value)
        }
        if finite:
            with self._guarded("written"):
                self._tracker.log(finite, step=self._last)

    @contextmanager
    def _guarded(self, deed: str) -> Iterator[None]:
        """Keeps what trackers print off the standard output, and names them in errors."""
        try:
            with redirect_stdout(sys.stderr):
                yield
        except Exception as error:
            raise CallbackError(
                f"the tracker {self._name} could not be {deed} ({type(error).__name__}: "
                f"{first_line(error)}). Mend that, or leave it out of log_with; the same command "
                "then resumes the run."
            ) from error


@contextmanager
def opened_trackers(names: Sequence[str], run: Tracked) -> Iterator[list[Watcher]]:
    """Starts trackers for the length of the block.

    Args:
        names: Names among `TRACKERS`.
        run: The run.

    Yields:
        The trackers, in the order of the names.

    Raises:
        CallbackError: If one cannot be started, written or closed.
    """
    trackers: list[Watcher] = []
    try:
        for name in names:
            trackers.append(Tracker(name, run))
        yield trackers
    except BaseException:
        for tracker in trackers:
            # The first error is the one to report.
            try:
                tracker.close()
            except CallbackError:
                continue
        raise
    for tracker in trackers:
        tracker.close()


def _tensorboard(name: str, run: Tracked) -> Any:
    from accelerate.tracking import TensorBoardTracker

    # Steps that a resumed run repeats take the place of those that it lost.
    again = {"purge_step": run.resumed_at + 1} if run.resumed else {}
    return TensorBoardTracker(run_name=name, logging_dir=str(run.folder), **again)


def _wandb(name: str, run: Tracked) -> Any:
    import wandb
    from accelerate.tracking import WandBTracker

    settings: dict[str, Any] = {"console": "off"}
    if run.private:
        settings |= {
            "disable_git": True,
            "disable_code": True,
            "x_disable_meta": True,
            "x_disable_machine_info": True,
            "x_disable_stats": True,
        }
    return WandBTracker(
        run_name=PROJECT,
        name=run.name,
        id=run.id,
        resume="allow",
        dir=str(run.folder),
        settings=wandb.Settings(**settings),
    )


def _trackio(name: str, run: Tracked) -> Any:
    from accelerate.tracking import TrackioTracker

    # trackio continues a run of the same name.
    return TrackioTracker(
        run_name=PROJECT, name=f"{run.name}-{run.id}", resume="allow", embed=False
    )


def _other(name: str, run: Tracked) -> Any:
    from accelerate.tracking import LOGGER_TYPE_TO_CLASS

    kind = LOGGER_TYPE_TO_CLASS[name]
    where = {"logging_dir": os.fspath(run.folder)} if kind.requires_logging_directory else {}
    return kind(PROJECT, **where)


_TRACKERS: dict[str, Callable[[str, Tracked], Any]] = {
    "tensorboard": _tensorboard,
    "wandb": _wandb,
    "trackio": _trackio,
}
