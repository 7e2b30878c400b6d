"""The lock on an output folder: held by one process, and by none that is gone."""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from multiprocessing.connection import Connection
from pathlib import Path

import pytest

from unsee.errors import RunError
from unsee.records import lock
from unsee.records.folder import RunFolder
from unsee.records.lock import exclusive, is_empty, is_in_use


def _hold(folder: Path, connection: Connection) -> None:
    with exclusive(folder):
        (folder / "begun").write_text("")
        connection.send("locked")
        signal.pause()


@pytest.mark.parametrize("as_file", [False, True])
def test_exclusive_refuses_a_second_process_and_survives_a_killed_one(
    as_file: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if as_file:
        monkeypatch.setattr(lock, "_lock", lock._lock_file)
    out = tmp_path / "runs" / "a"
    ours, theirs = multiprocessing.Pipe()
    process = multiprocessing.get_context("fork").Process(target=_hold, args=(out, theirs))
    process.start()
    assert ours.recv() == "locked"
    assert is_in_use(out)
    with pytest.raises(RunError, match=f"{out} is in use: another unsee process"), exclusive(out):
        pytest.fail("two processes in one folder")
    assert process.pid is not None
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    assert not is_in_use(out)
    with exclusive(out):
        assert is_in_use(out)
    assert not is_in_use(out)
    assert [path.name for path in out.iterdir()] == ["begun"]


def test_exclusive_by_a_file_leaves_a_new_folder_new(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on Windows, where folders cannot be locked."""
    monkeypatch.setattr(lock, "_lock", lock._lock_file)
    with exclusive(tmp_path / "run"):
        assert is_empty(tmp_path / "run")
        RunFolder.open(tmp_path / "run", "# unsee\n")
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["recipe.yaml"]


def test_exclusive_leaves_no_empty_folders(tmp_path: Path) -> None:
    with exclusive(tmp_path / "a" / "b"):
        assert (tmp_path / "a" / "b").is_dir()
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(ValueError), exclusive(tmp_path / "a" / "b"):
        (tmp_path / "a" / "other").mkdir()
        raise ValueError
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["other"]


def test_exclusive_refuses_a_file_and_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("mine")
    with (
        pytest.raises(RunError, match="a is a file. Name a folder with --out"),
        exclusive(tmp_path / "a"),
    ):
        pass
    with pytest.raises(RunError, match="cannot be written.*--out"), exclusive(tmp_path / "a" / "b"):
        pass


def _ask(folder: Path, seconds: float) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        is_in_use(folder)


def test_exclusive_is_not_refused_by_one_who_only_asks(tmp_path: Path) -> None:
    process = multiprocessing.get_context("fork").Process(target=_ask, args=(tmp_path, 1.0))
    process.start()
    while process.is_alive():
        with exclusive(tmp_path):
            pass
    process.join()
    assert process.exitcode == 0
