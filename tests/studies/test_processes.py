"""Tasks in processes of their own, some of which fail or are killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from unsee.errors import ConfigError
from unsee.studies.processes import Task, run_in_processes


def _write_pid(path: Path) -> None:
    print("said")
    path.write_text(str(os.getpid()))


def _raise_config_error() -> None:
    raise ConfigError("not like this.")


def _raise_value_error() -> None:
    raise ValueError("a fault")


def _kill_itself() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def test_run_in_processes_finishes_the_other_tasks_when_some_fail(tmp_path: Path) -> None:
    done: dict[str, str | None] = {}
    tasks = {
        "dies": Task(_kill_itself, ()),
        "refuses": Task(_raise_config_error, ()),
        "breaks": Task(_raise_value_error, ()),
        "writes": Task(_write_pid, (tmp_path / "pid",)),
    }
    failed = run_in_processes(tasks, 2, tmp_path / "logs", done.__setitem__)
    assert set(failed) == {"dies", "refuses", "breaks"} and set(done) == set(tasks)
    assert failed["refuses"] == "not like this."
    assert "killed by signal 9" in failed["dies"]
    assert failed["breaks"].startswith("ValueError: a fault (see ")
    assert "a fault" in (tmp_path / "logs" / "breaks.log").read_text()
    assert (tmp_path / "logs" / "writes.log").read_text() == "said\n"
    assert int((tmp_path / "pid").read_text()) != os.getpid()


ORPHAN = """
import os, sys, time
from pathlib import Path
from unsee.studies.processes import Task, run_in_processes

def waits(path):
    path.write_text(str(os.getpid()))
    time.sleep(600)

if __name__ == "__main__":
    folder = Path(sys.argv[1])
    run_in_processes({"waits": Task(waits, (folder / "pid",))}, 1, folder, print)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_run_in_processes_ends_a_task_whose_parent_is_killed(tmp_path: Path) -> None:
    """Else two processes would write one run folder once the command is typed again."""
    (tmp_path / "orphan.py").write_text(ORPHAN)
    parent = subprocess.Popen([sys.executable, tmp_path / "orphan.py", tmp_path])
    pid = tmp_path / "pid"
    wait_for(lambda: pid.exists() and pid.read_text() != "", 120)
    parent.kill()
    parent.wait()
    wait_for(lambda: not alive(int(pid.read_text())), 30)


def wait_for(condition: Callable[[], bool], seconds: float) -> None:
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.1)


def alive(pid: int) -> bool:
    """Whether a process runs; one that ended and is only not collected yet does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False
