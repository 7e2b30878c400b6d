"""Progress of long work: a bar with loss terms and remaining time, or calls of a function."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

# Called with the stage, the steps done, the steps in all and the loss terms by name.
ProgressCallback = Callable[[str, int, int, Mapping[str, float]], None]


class Bar:
    """A progress bar on standard error for the stages of a run, one after another.

    Results go to standard output, so they can be piped without the bar.
    """

    def __init__(self, progress: Progress | None) -> None:
        """Shows stages on `progress`; None shows nothing."""
        self._progress = progress
        self._task = progress.add_task("", total=None, terms="") if progress is not None else None

    def stage(self, name: str) -> Bar:
        """Resets the bar for the next stage, and returns the bar."""
        if self._progress is not None and self._task is not None:
            self._progress.reset(self._task, total=None, description=name, terms="")
        return self

    def update(self, step: int, steps: int, terms: Mapping[str, float]) -> None:
        """Shows the progress of the stage.

        Args:
            step: The number of steps done.
            steps: The number of all steps.
            terms: The loss terms of the last step, by name.
        """
        if self._progress is not None and self._task is not None:
            text = "  ".join(f"{name} {value:.3f}" for name, value in terms.items())
            self._progress.update(self._task, completed=step, total=steps, terms=text)

    def count(self, done: int, total: int) -> None:
        """Shows the progress of a stage without loss terms."""
        self.update(done, total, {})


class CallbackBar(Bar):
    """Passes progress on to a function."""

    def __init__(self, callback: ProgressCallback) -> None:
        """Calls `callback` when a stage starts, and after each of its steps."""
        super().__init__(None)
        self._callback = callback
        self._stage = ""

    def stage(self, name: str) -> Bar:
        """Starts the next stage, with 0 of 0 steps done."""
        self._stage = name
        self.update(0, 0, {})
        return self

    def update(self, step: int, steps: int, terms: Mapping[str, float]) -> None:
        """Calls the function."""
        self._callback(self._stage, step, steps, terms)


def as_bar(progress: Bar | ProgressCallback | None) -> Bar:
    """Returns a bar for any form of progress.

    Args:
        progress: A bar; a function that is called with the stage, the number of steps done, the
            number of all steps and the loss terms by name; or None to show nothing.

    Example:
        >>> bar = as_bar(lambda stage, done, total, terms: print(stage, done, total, terms))
        >>> bar.stage("unlearning").update(1, 2, {"forget": 0.5})
        unlearning 0 0 {}
        unlearning 1 2 {'forget': 0.5}
    """
    if progress is None:
        return Bar(None)
    return progress if isinstance(progress, Bar) else CallbackBar(progress)


@contextmanager
def bar(quiet: bool = False) -> Iterator[Bar]:
    """Shows a progress bar inside the block.

    Args:
        quiet: Show nothing, even on a terminal.
    """
    console = Console(stderr=True)
    if quiet or not console.is_terminal:
        yield Bar(None)
        return
    columns = (
        TextColumn("{task.description:<28}"),
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[terms]}", style="dim"),
    )
    with Progress(*columns, console=console, transient=True) as progress:
        yield Bar(progress)
