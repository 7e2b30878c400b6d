"""Commands in processes of their own, to be killed."""

from __future__ import annotations

import faulthandler
import json
import multiprocessing
import os
import signal
import socket
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from accelerate import PartialState

from unsee.cli import main


class Running:
    """The command line in a forked process, so that torch need not be imported again."""

    def __init__(self, command: list[str], folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.out, self.err = folder / "stdout", folder / "stderr"
        self.process = multiprocessing.get_context("fork").Process(
            target=self._main, args=(command,)
        )
        self.process.start()

    def _main(self, command: list[str]) -> None:
        for stream, path in ((1, self.out), (2, self.err)):
            os.dup2(os.open(path, os.O_CREAT | os.O_TRUNC | os.O_WRONLY), stream)
        sys.stdout, sys.stderr = open(1, "w"), open(2, "w")  # noqa: SIM115
        sys.argv = ["unsee", *command]
        signal.signal(signal.SIGINT, signal.default_int_handler)
        faulthandler.enable(sys.stderr)
        try:
            main()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()

    def until(self, reached: Callable[[], bool]) -> None:
        while self.process.is_alive() and not reached():
            time.sleep(0.0005)

    def stop(self, number: int) -> None:
        if self.process.is_alive():
            os.kill(self.process.pid or 0, number)

    def wait(self) -> tuple[int | None, str, str]:
        self.process.join(240)
        if self.process.is_alive():
            # A process that hangs says where, on its standard error.
            self.stop(signal.SIGABRT)
            self.process.join()
        return self.process.exitcode, self.out.read_text(), self.err.read_text()


def finish(command: list[str], folder: Path) -> dict[str, object]:
    code, output, errors = Running(command, folder).wait()
    assert code == 0, errors
    summary: dict[str, object] = json.loads(output)
    return summary


def lines(path: Path) -> int:
    return len(path.read_text().splitlines()) if path.exists() else 0


def in_two(work: Callable[[int], None]) -> list[int | None]:
    """Runs `work` in two forked processes with a launcher's environment; their exit codes."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]

    def child(rank: int) -> None:
        os.environ |= {
            "RANK": str(rank),
            "LOCAL_RANK": str(rank),
            "WORLD_SIZE": "2",
            "LOCAL_WORLD_SIZE": "2",
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": str(port),
        }
        torch.set_num_threads(1)
        # What this process has noted of itself says that it is alone.
        PartialState._reset_state()
        work(rank)

    context = multiprocessing.get_context("fork")
    both = [context.Process(target=child, args=(rank,)) for rank in range(2)]
    for process in both:
        process.start()
    for process in both:
        process.join(200)
        process.kill()
        process.join()
    return [process.exitcode for process in both]
