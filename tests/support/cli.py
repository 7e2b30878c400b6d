"""Commands run in this process."""

from __future__ import annotations

import io
import json
import os
import sys
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

from unsee.cli import main

# A short training, as options.
SHORT = ["--set", "steps=4", "--set", "batch_size=4", "--set", "lr=1e-3"]


def unsee(
    *arguments: str | Path, code: int = 0, cwd: Path | None = None, stderr: bool = False
) -> Any:
    """Runs a command in this process.

    Returns:
        Its standard output, parsed where it is JSON; its standard error if `code` is not 0 or
        `stderr` is asked for.
    """
    ended, output, errors = _run(arguments, cwd)
    assert ended == code, errors
    if code or stderr:
        return errors
    return json.loads(output) if "--json" in arguments else output


def refused(*arguments: str | Path, cwd: Path | None = None) -> tuple[int, str, str]:
    """Runs a command that is to fail.

    Returns:
        Its exit code, standard output and standard error.
    """
    ended, output, errors = _run(arguments, cwd)
    assert ended, output
    return ended, output, errors


def _run(arguments: tuple[str | Path, ...], cwd: Path | None) -> tuple[int, str, str]:
    """The exit code, standard output and standard error of a command."""
    output, errors = io.StringIO(), io.StringIO()
    before, folder, ended = sys.argv, Path.cwd(), 0
    sys.argv = ["unsee", *map(str, arguments)]
    os.chdir(cwd or folder)
    try:
        with redirect_stdout(output), redirect_stderr(errors):
            main()
    except SystemExit as stop:
        ended = int(stop.code or 0)
    finally:
        sys.argv = before
        os.chdir(folder)
    return ended, output.getvalue(), errors.getvalue()
