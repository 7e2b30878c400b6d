"""Commands that run lm-evaluation-harness, in a process of their own.

lm-eval warns a lot, and warnings are errors in these tests. All commands of a test share a process,
since importing lm-eval takes seconds.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

needs_lm_eval = pytest.mark.skipif(
    find_spec("lm_eval") is None, reason="lm-eval is not installed: pip install 'unsee[lm-eval]'"
)

DRIVER = """
import contextlib, io, json, sys
from unsee.cli import main
results = []
for arguments in json.load(sys.stdin):
    out, err, code = io.StringIO(), io.StringIO(), 0
    sys.argv = ["unsee", *arguments]
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            main()
        except SystemExit as stop:
            code = int(stop.code or 0)
    results.append({"code": code, "out": out.getvalue(), "err": err.getvalue()})
print(json.dumps(results))
"""


def run_script(script: str, cwd: Path, stdin: str = "") -> list[str]:
    """Returns the lines that a Python script prints, without the hub and without warnings."""
    offline = {"HF_HUB_OFFLINE": "1", "HF_HOME": str(cwd / "hf")}
    process = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", script],
        input=stdin,
        capture_output=True,
        text=True,
        check=False,
        cwd=cwd,
        env=os.environ | offline,
    )
    assert process.returncode == 0, process.stderr
    return process.stdout.splitlines()


def run_commands(commands: Sequence[Sequence[object]], cwd: Path) -> list[dict[str, Any]]:
    """Runs commands of `unsee` one after another; returns the exit code and output of each."""
    arguments = json.dumps([[str(argument) for argument in command] for command in commands])
    results: list[dict[str, Any]] = json.loads(run_script(DRIVER, cwd, arguments)[-1])
    return results


def read_scores(run: Path) -> list[dict[str, Any]]:
    """Returns the rows of a run's scores."""
    return [json.loads(line) for line in (run / "scores.jsonl").read_text("utf-8").splitlines()]
