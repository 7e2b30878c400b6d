"""The law that every command keeps, whatever it is given.

It ends with exit code 0 or 2; a refusal is a short message that names the input, without a
traceback and without control characters; nothing is half-written, nothing is written outside the
output folder; and it takes at most a minute and three gigabytes.
"""

from __future__ import annotations

import io
import os
import resource
import signal
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path
from types import FrameType

from unsee.cli import main
from unsee.errors import UnseeError

SECONDS, BYTES, MESSAGE = 60, 3_000_000_000, 3000


def cases(default: int) -> int:
    """The number of cases of each kind: a short run by default, and a long one by hand."""
    return int(os.environ.get("UNSEE_FUZZ", default))


def command(*arguments: str | Path) -> tuple[int, str]:
    """Runs a command in this process, within the limits of the law.

    Returns:
        Its exit code and its standard error.
    """
    errors, code = io.StringIO(), 0
    before = sys.argv
    sys.argv = ["unsee", *map(str, arguments)]
    try:
        with (
            time_limit(),
            redirect_stdout(io.StringIO()),
            redirect_stderr(errors),
            warnings.catch_warnings(),
        ):
            # Old names of fields are warned about on the command line, which is no error.
            warnings.simplefilter("default", FutureWarning)
            main()
    except SystemExit as stop:
        code = int(stop.code or 0)
    finally:
        sys.argv = before
    check_memory()
    return code, errors.getvalue()


def refusal(call: Callable[[], object]) -> str | None:
    """Calls the library within the limits of the law.

    Returns:
        The message of its refusal; None if there was none.
    """
    try:
        with time_limit():
            call()
    except UnseeError as error:
        return str(error)
    finally:
        check_memory()
    return None


def check_memory() -> None:
    """Holds the memory that this process has used so far to the law."""
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 < BYTES


@contextmanager
def time_limit() -> Iterator[None]:
    """Raises TimeoutError in the block after `SECONDS`, also where a pipe is waited for."""

    def stop(_signal: int, _frame: FrameType | None) -> None:
        raise TimeoutError(f"{' '.join(sys.argv)} took more than {SECONDS} seconds")

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def check_refusal(code: int, message: str, *names: str) -> None:
    """Holds a command's end to the law.

    Args:
        code: The exit code.
        message: The standard error.
        names: One of these must stand in a refusal.
    """
    assert code in (0, 2), message
    for word in ("Traceback", "unexpected error"):
        assert word not in message
    assert len(message) < MESSAGE, message[:MESSAGE]
    assert not any((c < " " and c not in "\n\t") or c == "\x7f" for c in message), repr(message)
    if code:
        # The terminal breaks lines, within names too.
        flat = "".join(message.split())
        assert any("".join(name.split()) in flat for name in names), message


def snapshot(folder: Path) -> dict[str, tuple[int, int, int]]:
    """Every path below a folder with its mode, size and time of change, links not followed."""
    paths = [folder, *sorted(folder.rglob("*"))]
    found = [(path, path.lstat()) for path in paths]
    return {
        str(p): (s.st_mode, 0 if p.is_dir() else s.st_size, 0 if p.is_dir() else s.st_mtime_ns)
        for p, s in found
    }
