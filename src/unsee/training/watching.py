"""Watchers of a run: callbacks of the API, and trackers; told every step and the results."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from unsee.errors import CallbackError, ConfigError, first_line, quoted
from unsee.records.schema import Measures, Summary
from unsee.training.loop import Progress, StepObserver, StepReport


class Callback:
    """Base class of callbacks of `unsee.unlearn` and `unsee.run`; override what you need.

    They are called in the main process alone, in the order of the list. An exception in one ends
    the run with a `CallbackError`; the same call resumes it from the last saved state.

    Example:
        >>> class Printer(Callback):
        ...     def on_step(self, step, losses):
        ...         print(step, sorted(losses))
        >>> Printer().on_step(1, {"forget": 0.5})
        1 ['forget']
    """

    def on_step(self, step: int, losses: Mapping[str, float]) -> None:
        """Called after every training step, once log and state are written.

        Args:
            step: The number of steps done, from 1.
            losses: The loss terms of the step by name, weighted as they enter the sum.
        """

    def on_evaluate(self, measures: Measures) -> None:
        """Called once the unlearned model was evaluated; not if there was nothing to ask.

        Args:
            measures: By "split/modality/metric", as in `run.summary.measures`: `value` (0..1),
                `low`, `high`, `n`.
        """


class Watcher:
    """Interface of objects that are told what happens in a run."""

    def step(self, report: StepReport) -> None:
        """Called after every training step."""

    def evaluated(self, measures: Mapping[str, Measures]) -> None:
        """Called with the measures of every evaluated model, by "unlearned", "target" and so on."""

    def finished(self, summary: Summary) -> None:
        """Called with the record of the run, as it is written."""

    def close(self) -> None:
        """Called at the end of the run, also of one that fails."""


class CallbackWatcher(Watcher):
    """Tells a user's callback."""

    def __init__(self, callback: object) -> None:
        """Keeps the callback, which need not derive from `Callback`."""
        self._callback = callback

    def step(self, report: StepReport) -> None:
        """See `Watcher.step`."""
        self._call("on_step", f"step {report.step}", report.step, dict(report.losses))

    def evaluated(self, measures: Mapping[str, Measures]) -> None:
        """See `Watcher.evaluated`."""
        if "unlearned" in measures:
            self._call("on_evaluate", "the evaluation", dict(measures["unlearned"]))

    def _call(self, name: str, when: str, *arguments: Any) -> None:
        function: Callable[..., Any] | None = getattr(self._callback, name, None)
        if function is None:
            return
        try:
            function(*arguments)
        except Exception as error:
            kind = type(self._callback).__name__
            raise CallbackError(
                f"the callback {kind}.{name} failed after {when} "
                f"({type(error).__name__}: {first_line(error)}). Mend it; the same call then "
                "resumes the run from its last state."
            ) from error


class WatchedProgress(StepObserver):
    """A progress bar with watchers."""

    def __init__(self, bar: Progress, watchers: Sequence[Watcher]) -> None:
        """Tells `bar`, then every watcher."""
        self._bar, self._watchers = bar, tuple(watchers)

    def update(self, step: int, steps: int, terms: Mapping[str, float]) -> None:
        """Tells the bar alone: watchers are told whole reports."""
        self._bar.update(step, steps, terms)

    def observe(self, report: StepReport) -> None:
        """See `StepObserver.observe`."""
        self._bar.update(report.step, report.steps, report.losses)
        for watcher in self._watchers:
            watcher.step(report)


def check_callbacks(callbacks: object) -> tuple[object, ...]:
    """Returns the callbacks as a tuple, after checking that each can be called.

    Raises:
        ConfigError: If it is no list, or an item has neither method of `Callback`.
    """
    if not isinstance(callbacks, list | tuple):
        raise ConfigError(
            f"callbacks={quoted(callbacks)} is not allowed: give a list of unsee.Callback objects."
        )
    for callback in callbacks:
        methods = [getattr(callback, name, None) for name in ("on_step", "on_evaluate")]
        if isinstance(callback, type) or not any(callable(method) for method in methods):
            raise ConfigError(
                f"callbacks: {quoted(callback)} is not allowed: give objects, each with a method "
                "on_step(step, losses) or on_evaluate(measures), such as of a class that derives "
                "from unsee.Callback."
            )
    return tuple(callbacks)
