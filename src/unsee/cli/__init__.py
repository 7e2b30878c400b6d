"""The command line: parse, call, print. Everything heavy is imported when a command runs."""

from __future__ import annotations

import logging
import os
import re
import signal
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any, TextIO

import typer
from typer.main import get_command

# Importing a module registers its commands, in the order that --help shows.
from unsee.cli import unlearning, requesting  # noqa: F401  # isort: skip
from unsee.cli import finetuning, comparing, evaluating, checkpoints, listing, data  # noqa: F401  # isort: skip
from unsee.cli import past_runs, publishing, purging, serving  # noqa: F401  # isort: skip
from unsee.cli import certifying  # noqa: F401  # isort: skip
from unsee.cli.shared import PRINTED, app, command, echo, is_redacted, without_typed
from unsee.errors import UnseeError, WorkerFinished, printable, suggestion, without_secrets
from unsee.files import NO_SPACE, RETRY
from unsee.training.launcher import is_main_process, world_size

__all__ = ["app", "main"]

PACKAGE = Path(__file__).parents[1]

# Commands whose training several processes share.
SHARED = ("run", "unlearn")

# The exit code of a process that SIGTERM ended, as a shell reports it.
TERMINATED = 143


def main() -> None:
    """Runs the command line; an error is printed as a sentence, without a traceback."""
    code = 0
    PRINTED.clear()
    warnings.showwarning = _show_warning
    logger = logging.getLogger("unsee")
    logger.handlers, logger.propagate = [_NoteHandler()], False
    logger.setLevel(logging.INFO)
    try:
        _refuse_processes()
        # typer returns the code of an exit, and takes Ctrl-C for an exit with 130.
        with _terminable():
            code = _group()(standalone_mode=False) or 0
    except WorkerFinished:
        # Of several processes of a launcher the first goes on, and the others have done their part.
        pass
    except UnseeError as error:
        _fail(str(error), 2, type(error).__name__)
    except (KeyboardInterrupt, _Terminated) as stop:
        code = TERMINATED if isinstance(stop, _Terminated) else 130
    except Exception as error:
        if isinstance(error, OSError) and error.errno in NO_SPACE:
            place = f"{error.filename}: " if error.filename else ""
            _fail(f"{place}cannot be written ({error.strerror}). {RETRY}", 2, "OSError")
        usage: Callable[[], str] | None = getattr(error, "format_message", None)
        if usage is not None:
            _fail(f"{usage()}{_nearest_choice(usage())} Try --help.", 2, "UsageError")
        if os.environ.get("UNSEE_TRACEBACK"):
            raise
        what = f"{type(error).__name__}: {error}"
        advice = "Set UNSEE_TRACEBACK=1 to see where, and report it."
        _fail(f"unexpected error ({what}). {advice}", 1, type(error).__name__)
    if code in (130, TERMINATED):
        again = " the same command again." if is_redacted() else f":\n  {command()}"
        _fail(f"stopped. Nothing is lost; to continue, type{again}", code, "Stopped")
    sys.exit(code)


@cache
def _group() -> Any:
    """The commands with their options, whose making takes longer than most refusals."""
    return get_command(app)


def _nearest_choice(message: str) -> str:
    """The nearest of the choices that a message about an option lists, as a question."""
    found = re.search(r"'([^']*)' is not one of (.*)", message)
    return suggestion(found[1], re.findall(r"'([^']*)'", found[2])) if found else ""


class _Terminated(BaseException):
    """The process was asked to end by SIGTERM, as schedulers and `kill` do."""


@contextmanager
def _terminable() -> Iterator[None]:
    """Makes SIGTERM end a command as Ctrl-C does: what is half-written is removed."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(number: int, frame: object) -> None:
        raise _Terminated

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _refuse_processes() -> None:
    """Refuses several processes for a command that one runs: all would write the same folder."""
    count, word = world_size(), "".join(sys.argv[1:2])
    if count > 1 and word not in SHARED:
        raise UnseeError(
            f"{count} processes were started, but `unsee {word}` runs in one. Type it "
            f"without the launcher; only {' and '.join(SHARED)} train in several processes."
        )


class _NoteHandler(logging.Handler):
    """Prints the notes that the library logs."""

    def emit(self, record: logging.LogRecord) -> None:
        """Prints one on standard error; what a run works with is no note."""
        before = "Note: " if record.levelno > logging.INFO else ""
        typer.echo(f"{before}{printable(record.getMessage())}", err=True)


def _show_warning(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    """Prints a warning of this package as a note, and any other as Python does."""
    if issubclass(category, FutureWarning) and Path(filename).is_relative_to(PACKAGE):
        typer.echo(f"Note: {message}", err=True)
    else:
        text = warnings.formatwarning(message, category, filename, lineno, line)
        typer.echo(text, err=True, nl=False)


def _fail(message: str, code: int, kind: str) -> None:
    """Prints an error, with --json also as an object on standard output, and ends the process.

    Args:
        message: What is wrong, and what to type.
        code: The exit code.
        kind: The error's class.
    """
    shown = without_typed(without_secrets(message))
    typer.echo(f"unsee: {shown}", err=True)
    if "--json" in sys.argv and is_main_process() and not PRINTED.is_set():
        echo({"error": shown, "kind": kind, "exit_code": code}, as_json=True)
    sys.exit(code)
