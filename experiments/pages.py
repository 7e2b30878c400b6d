"""Pages."""

from __future__ import annotations

import json
import multiprocessing
import os
import statistics
import subprocess
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path
from typing import Any


def read(out: Path) -> list[dict[str, Any]]:
    """The lines of a JSONL file; none where there is no file."""
    text = out.read_text("utf-8") if out.exists() else ""
    return [json.loads(line) for line in text.splitlines()]


def fill(
    measure: Callable[..., dict[str, Any]],
    missing: Sequence[Sequence[Any]],
    jobs: int,
    out: Path,
    lines: list[dict[str, Any]],
) -> None:
    """Adds what `measure` makes of each arguments, so many processes side by side."""
    fresh = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(jobs, mp_context=fresh) as pool:
        for made in as_completed([pool.submit(measure, *some) for some in missing]):
            append(out, lines, made.result())


def append(out: Path, lines: list[dict[str, Any]], line: dict[str, Any]) -> None:
    """Adds a line to those read and to the file, and prints it."""
    lines.append(line)
    with out.open("a", encoding="utf-8") as file:
        file.write(json.dumps(line) + "\n")
    print(json.dumps(line), flush=True)


ROOT = Path(__file__).parent.parent


def command(words: list[str], threads: int | None = None) -> None:
    """Runs `unsee` with these words, on all cores or on so many threads."""
    print("unsee", *words, flush=True)
    environment = os.environ | ({"OMP_NUM_THREADS": str(threads)} if threads else {})
    subprocess.run([sys.executable, "-m", "unsee", *words], cwd=ROOT, check=True, env=environment)


def value(measures: dict[str, Any] | None, key: str) -> str:
    """One score; empty where there is none."""
    found = (measures or {}).get(key, {}).get("value")
    return "" if found is None else f"{found:.3f}"


def _spread(values: list[float], digits: int = 3) -> str:
    mean = f"{statistics.mean(values):.{digits}f}"
    if len(values) == 1:
        return mean
    return f"{mean} ({min(values):.{digits}f} to {max(values):.{digits}f})"
