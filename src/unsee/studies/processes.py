"""Work in processes of its own, so that one that fails, or is killed, leaves the others alone.

A process each also makes the peak memory in a record that of its own run.
"""

from __future__ import annotations

import multiprocessing
import os
import sys
import threading
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from multiprocessing.connection import wait
from multiprocessing.context import SpawnProcess
from pathlib import Path
from typing import Any

from unsee.errors import UnseeError


@dataclass(frozen=True)
class Task:
    """A function of the package's own and its arguments; both must be picklable."""

    work: Callable[..., Any]
    arguments: tuple[Any, ...]


def run_in_processes(
    tasks: Mapping[str, Task], jobs: int, logs: Path, told: Callable[[str, str | None], None]
) -> dict[str, str]:
    """Runs tasks, `jobs` at a time.

    Args:
        tasks: What to do, by name.
        jobs: How many run side by side; they share the machine's cores.
        logs: A folder that gets what each task prints, and why it failed.
        told: Is told each name that is done, and what failed it if anything did.

    Returns:
        Why each task that failed did.
    """
    logs.mkdir(parents=True, exist_ok=True)
    fresh = multiprocessing.get_context("spawn")
    threads = max(1, int(os.environ.get("OMP_NUM_THREADS") or (os.cpu_count() or 1) // jobs))
    waiting, running, failed = list(tasks), dict[Any, tuple[str, SpawnProcess]](), dict[str, str]()
    try:
        while waiting or running:
            while waiting and len(running) < jobs:
                name = waiting.pop(0)
                (logs / f"{name}.error").unlink(missing_ok=True)
                process = fresh.Process(target=_child, args=(tasks[name], logs, name, threads))
                process.start()
                running[process.sentinel] = (name, process)
            for sentinel in wait(list(running)):
                name, process = running.pop(sentinel)
                process.join()
                if process.exitcode:
                    failed[name] = _why(logs, name, process.exitcode)
                process.close()
                told(name, failed.get(name))
    finally:
        for _, process in running.values():
            process.terminate()
            process.join()
    return failed


def _why(logs: Path, name: str, code: int) -> str:
    said = logs / f"{name}.error"
    if said.exists():
        return said.read_text("utf-8")
    if code < 0:
        return f"killed by signal {-code} (9 is often a lack of memory: try fewer --jobs)."
    return f"ended with code {code}; see {logs / name}.log."


def _child(task: Task, logs: Path, name: str, threads: int) -> None:
    """The body of the process: what it prints goes to a log, why it failed to a file."""
    import torch

    threading.Thread(target=_end_with_parent, daemon=True).start()
    torch.set_num_threads(threads)
    with (logs / f"{name}.log").open("a", encoding="utf-8", buffering=1) as log:
        sys.stdout = sys.stderr = log
        try:
            task.work(*task.arguments)
        except UnseeError as error:
            (logs / f"{name}.error").write_text(str(error), "utf-8")
            sys.exit(2)
        except Exception as error:
            traceback.print_exc()
            text = f"{type(error).__name__}: {error} (see {logs / name}.log)"
            (logs / f"{name}.error").write_text(text, "utf-8")
            sys.exit(1)
        finally:
            sys.stdout, sys.stderr = sys.__stdout__, sys.__stderr__


def _end_with_parent() -> None:
    """Ends the process when its parent was killed: two must not write one run folder."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        wait([parent.sentinel])
        os._exit(1)
