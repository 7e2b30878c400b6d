"""Opens a run's watchers: the callbacks of the API, and the trackers that its recipe names."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any
from uuid import uuid4

from unsee.files import read_text
from unsee.recipes.job import Job
from unsee.records.folder import PARTS, STATE, TRAIN, RunFolder
from unsee.records.schema import Measures, Summary
from unsee.training.loop import StepReport
from unsee.training.state import MOST_LOG_BYTES, saved_steps
from unsee.training.tracking import Tracked, opened_trackers
from unsee.training.watching import CallbackWatcher, Watcher

# Settings whose text is one of a few words.
WORDS = ("schedule", "precision", "attention", "parallel")


@contextmanager
def watching(job: Job, folder: RunFolder) -> Iterator[list[Watcher]]:
    """Opens the watchers of a run for the length of the block.

    Args:
        job: The job.
        folder: The run folder, which keeps the run's id in the trackers until it is finished.

    Yields:
        The trackers, then the callbacks.
    """
    callbacks: list[Watcher] = [CallbackWatcher(callback) for callback in job.callbacks]
    if not job.log_with:
        yield callbacks
        return
    # Another folder, or the same after it was emptied, is another run.
    resumed = (folder.path / PARTS / "tracking.json").exists()
    identity: str = folder.get_or_compute("tracking", lambda: uuid4().hex[:12])
    run = Tracked(
        folder=folder.path,
        name=identity if job.redact else folder.path.name,
        id=identity,
        resumed=resumed,
        resumed_at=saved_steps(folder.path / STATE),
        logged=_lines(folder.path / TRAIN) if resumed else 0,
        config=tracked_config(job, private=job.redact),
        private=job.redact,
    )
    with opened_trackers(job.log_with, run) as trackers:
        once = [
            _ToldOnce(tracker, name, folder)
            for name, tracker in zip(job.log_with, trackers, strict=True)
        ]
        yield [*once, *callbacks]


class _ToldOnce(Watcher):
    """A tracker that a resumed run does not tell results again: it would show them twice."""

    def __init__(self, tracker: Watcher, name: str, folder: RunFolder) -> None:
        """Tells `tracker`; the run folder keeps which results were told to the one of that name."""
        self._tracker, self._name, self._folder = tracker, name, folder

    def step(self, report: StepReport) -> None:
        """See `Watcher.step`."""
        self._tracker.step(report)

    def evaluated(self, measures: Mapping[str, Measures]) -> None:
        """See `Watcher.evaluated`."""
        self._once("evaluated", lambda: self._tracker.evaluated(measures))

    def finished(self, summary: Summary) -> None:
        """See `Watcher.finished`."""
        self._once("finished", lambda: self._tracker.finished(summary))

    def _once(self, what: str, tell: Callable[[], None]) -> None:
        def told() -> bool:
            tell()
            return True

        self._folder.get_or_compute(f"tracking-{self._name}-{what}", told)


def _lines(path: Path) -> int:
    """The number of complete lines in a file."""
    try:
        return read_text(path, MOST_LOG_BYTES).count("\n")
    except FileNotFoundError:
        return 0


def tracked_config(job: Job, private: bool) -> dict[str, Any]:
    """The settings of a run as trackers take them: numbers, flags and texts by name.

    Args:
        job: The job.
        private: Leave out every text that may hold a name or a path.
    """
    fields = asdict(job.method) if job.method is not None else {}
    fields |= asdict(job.settings)
    values: dict[str, Any] = {
        "method": job.method.name if job.method is not None else "none",
        "benchmark": (job.benchmark or {}).get("name", "none"),
        "forget_samples": len(job.data.forget),
        "retain_samples": len(job.data.retain),
    }
    if not private:
        values |= {"model": str(job.model), "command": job.command}
    for name, value in fields.items():
        if isinstance(value, bool | int | float):
            values[name] = value
        elif value is not None and (not private or name in WORDS):
            values[name] = str(value)
    return values
