"""Runs tasks in processes of their own: one that fails or is killed does not affect the others.

The peak memory in a run's record is then that of the run alone.
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
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from unsee.errors import UnseeError, without_secrets
from unsee.files import NO_SPACE, RETRY, make_folder, read_text, write_atomically

# The exit code of a task that could not write, not even why.
DISK_FULL = 74

# How a process starts: with nothing of its parent's memory, as CUDA requires.
START = "spawn"

# Called with the name of each task that ended, and why it failed or None.
OnDone = Callable[[str, str | None], None]


def ignore_done(name: str, error: str | None) -> None:
    """An `OnDone` that does nothing."""


@dataclass(frozen=True)
class Task:
    """A function of a module and its arguments; both must be picklable."""

    work: Callable[..., Any]
    arguments: tuple[Any, ...]


def run_in_processes(
    tasks: Mapping[str, Task], jobs: int, logs: Path, on_done: OnDone = ignore_done
) -> dict[str, str]:
    """Runs tasks, `jobs` at a time, each in a new process.

    Args:
        tasks: The tasks, by name.
        jobs: Number of processes side by side; they share the machine's cores.
        logs: The folder that gets what each task prints, and why it failed.
        on_done: Called whenever a task has ended.

    Returns:
        Why each task that failed did, by name.
    """
    make_folder(logs)
    context: Any = multiprocessing.get_context(START)
    threads = max(1, int(os.environ.get("OMP_NUM_THREADS") or (os.cpu_count() or 1) // jobs))
    waiting, running, failed = list(tasks), dict[Any, tuple[str, BaseProcess]](), dict[str, str]()
    try:
        while waiting or running:
            while waiting and len(running) < jobs:
                name = waiting.pop(0)
                (logs / f"{name}.error").unlink(missing_ok=True)
                process = context.Process(target=_run_task, args=(tasks[name], logs, name, threads))
                process.start()
                running[process.sentinel] = (name, process)
            for sentinel in wait(list(running)):
                name, process = running.pop(sentinel)
                process.join()
                if process.exitcode:
                    failed[name] = _failure(logs, name, process.exitcode)
                process.close()
                on_done(name, failed.get(name))
    finally:
        for _, process in running.values():
            process.terminate()
            process.join()
    return failed


def _failure(logs: Path, name: str, code: int) -> str:
    """Why a task's process ended with an exit code other than 0."""
    path = logs / f"{name}.error"
    if path.exists():
        return read_text(path)
    if code == DISK_FULL:
        return f"a file of the run cannot be written: the disk is full. {RETRY}"
    if code < 0:
        return f"killed by signal {-code} (9 is often a lack of memory: try fewer --jobs)."
    return f"ended with code {code}; see {logs / name}.log."


def _run_task(task: Task, logs: Path, name: str, threads: int) -> None:
    """The body of the process: its output goes to a log file, and its error to another."""
    import torch

    threading.Thread(target=_end_with_parent, daemon=True).start()
    torch.set_num_threads(threads)
    error_file = logs / f"{name}.error"
    try:
        with (logs / f"{name}.log").open("a", encoding="utf-8", buffering=1) as log:
            sys.stdout = sys.stderr = log
            try:
                task.work(*task.arguments)
            except UnseeError as error:
                write_atomically(error_file, str(error))
                sys.exit(2)
            except Exception as error:
                if isinstance(error, OSError) and error.errno in NO_SPACE:
                    raise
                log.write(without_secrets(traceback.format_exc()))
                text = f"{type(error).__name__}: {error} (see {logs / name}.log)"
                write_atomically(error_file, without_secrets(text))
                sys.exit(1)
            finally:
                sys.stdout, sys.stderr = sys.__stdout__, sys.__stderr__
    except OSError as error:
        # The disk is full, perhaps also for the file that would say so.
        if error.errno not in NO_SPACE:
            raise
        sys.exit(DISK_FULL)


def _end_with_parent() -> None:
    """Ends this process if its parent is killed, so that no two processes write one run folder."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        wait([parent.sentinel])
        os._exit(1)
