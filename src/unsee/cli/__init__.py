"""The command line: parse, call, print. Everything heavy is imported when a command runs."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable

import typer

# Importing a module registers its commands, in the order that --help shows.
from unsee.cli import unlearning, teaching, comparing, judging, checkpoints, listing, data  # noqa: F401  # isort: skip
from unsee.cli.shared import app, command
from unsee.errors import UnseeError
from unsee.training.launcher import world_size

__all__ = ["app", "main"]

# Commands whose training several processes share.
SHARED = ("run", "unlearn")


def main() -> None:
    """Runs the command line; errors are told in a sentence, without a traceback."""
    code = 0
    try:
        _refuse_processes()
        # typer returns the code of an exit, and takes Ctrl-C for an exit with 130.
        code = app(standalone_mode=False) or 0
    except UnseeError as error:
        _fail(str(error), 2)
    except KeyboardInterrupt:
        code = 130
    except Exception as error:
        usage: Callable[[], str] | None = getattr(error, "format_message", None)
        if usage is not None:
            _fail(f"{usage()} Try --help.", 2)
        if os.environ.get("UNSEE_TRACEBACK"):
            raise
        what = f"{type(error).__name__}: {error}"
        _fail(f"unexpected error ({what}). Set UNSEE_TRACEBACK=1 to see where, and report it.", 1)
    if code == 130:
        _fail(f"stopped. Nothing is lost; to go on, type:\n  {command()}", 130)
    sys.exit(code)


def _refuse_processes() -> None:
    """Refuses a launcher's many processes for what one does alone: all would write one folder."""
    count, word = world_size(), "".join(sys.argv[1:2])
    if count > 1 and word not in SHARED:
        raise UnseeError(
            f"{count} processes were started, and `unsee {word}` is the work of one. Type it "
            f"without the launcher; {' and '.join(SHARED)} train on several."
        )


def _fail(message: str, code: int) -> None:
    typer.echo(f"unsee: {message}", err=True)
    sys.exit(code)
