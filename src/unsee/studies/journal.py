"""The journal of a search's trials: every line has a hash that covers it and all before it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from filelock import FileLock
from optuna.storages.journal import BaseJournalBackend

from unsee.errors import RunError
from unsee.files import append_text, read_text, refuse_odd_file

HASH = "sha256"


class CheckedJournal(BaseJournalBackend):
    """Optuna's journal in a file, which notices a line that was changed, lost or added.

    Differs: `optuna.storages.journal.JournalFileBackend` has no hashes. A last line that a killed
    process has not finished is dropped by the next writer.
    """

    def __init__(self, path: Path) -> None:
        """Refers to a file, which the first log creates."""
        self.path = path
        self._lock = FileLock(path.with_name(f".{path.name}.lock"))

    def read_logs(self, log_number_from: int) -> Iterator[dict[str, Any]]:
        """Yields the logs from a number on.

        Raises:
            RunError: If the file is not what was written.
        """
        logs, _ = self._read()
        yield from logs[log_number_from:]

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        """Adds logs, while no other process does.

        Raises:
            RunError: If the file is not what was written, or cannot be written.
        """
        with self._lock:
            _, digest = self._read(drop_unfinished=True)
            append_text(self.path, "".join(_lines(logs, digest)))

    def _read(self, drop_unfinished: bool = False) -> tuple[list[dict[str, Any]], str]:
        """All logs, and the hash of the last."""
        refuse_odd_file(self.path)
        text = read_text(self.path) if self.path.exists() else ""
        whole, _, unfinished = text.rpartition("\n")
        if unfinished and drop_unfinished:
            self.path.write_text(f"{whole}\n" if whole else "", "utf-8")
        logs: list[dict[str, Any]] = []
        digest = ""
        for number, line in enumerate(whole.split("\n") if whole else (), start=1):
            try:
                log = json.loads(line)
                if digest or HASH in log:
                    digest, expected = log.pop(HASH), _digest(log, digest)
                else:
                    expected = digest  # Journals of 0.1 have no hashes.
            except (ValueError, KeyError, AttributeError, TypeError, RecursionError):
                expected = None
            if digest != expected:
                raise RunError(
                    f"{self.path} is damaged: line {number} is not what was written. Restore it, "
                    "or remove it and type the same command again, which makes the trials again."
                )
            logs.append(log)
        return logs, digest


def _lines(logs: Iterable[dict[str, Any]], digest: str) -> Iterator[str]:
    for log in logs:
        plain = json.loads(json.dumps(log))
        digest = _digest(plain, digest)
        yield json.dumps({**plain, HASH: digest}, separators=(",", ":")) + "\n"


def _digest(log: dict[str, Any], before: str) -> str:
    return hashlib.sha256(f"{before}{json.dumps(log, sort_keys=True)}".encode()).hexdigest()
