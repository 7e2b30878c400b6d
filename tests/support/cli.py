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
    assert ended == code, errors.getvalue()
    if code or stderr:
        return errors.getvalue()
    return json.loads(output.getvalue()) if "--json" in arguments else output.getvalue()
