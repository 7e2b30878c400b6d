"""Atomic writing: a file appears whole or not at all."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from unsee.errors import RunError
from unsee.files import atomic_file, atomic_folder, write_atomically


@pytest.mark.parametrize("concurrent", [False, True])
@pytest.mark.parametrize(
    ("content", "stored"), [("a\nß", "a\nß".encode()), (b"\x00\xff", b"\x00\xff")]
)
def test_write_atomically_replaces_the_file(
    content: str | bytes, stored: bytes, concurrent: bool, tmp_path: Path
) -> None:
    path = tmp_path / "summary.json"
    path.write_text("old")
    write_atomically(path, content, concurrent)
    assert path.read_bytes() == stored
    assert list(tmp_path.iterdir()) == [path]


def test_atomic_file_keeps_the_old_file_when_the_block_raises(tmp_path: Path) -> None:
    path = tmp_path / "state"
    path.write_text("old")
    with pytest.raises(KeyError), atomic_file(path) as partial:
        partial.write_text("half")
        raise KeyError
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_atomic_file_reports_a_full_disk_with_advice(tmp_path: Path) -> None:
    with (
        pytest.raises(RunError, match=r"state cannot be written .*No space.*Leave cache out\."),
        atomic_file(tmp_path / "state", advice="Leave cache out.") as partial,
    ):
        partial.write_text("half")
        raise OSError(errno.ENOSPC, "No space left on device")
    assert not list(tmp_path.iterdir())


def test_atomic_file_gives_concurrent_writers_different_paths(tmp_path: Path) -> None:
    with (
        atomic_file(tmp_path / "page", concurrent=True) as first,
        atomic_file(tmp_path / "page", concurrent=True) as second,
    ):
        assert first != second
        first.touch()
        second.touch()
    assert [path.name for path in tmp_path.iterdir()] == ["page"]


KILLED = """
import os, sys
from pathlib import Path
from unsee.files import atomic_folder
with atomic_folder(Path(sys.argv[1])) as partial:
    (partial / "half").touch()
    os.kill(os.getpid(), 9)
"""


def test_atomic_folder_removes_what_a_killed_writer_left(tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-c", KILLED, str(tmp_path / "m")], check=False)
    assert len(list(tmp_path.iterdir())) == 1
    with atomic_folder(tmp_path / "m") as partial:
        (partial / "whole").touch()
    assert [path.name for path in tmp_path.iterdir()] == ["m"]


def test_atomic_folder_keeps_the_umask(tmp_path: Path) -> None:
    mask = os.umask(0o027)
    try:
        with atomic_folder(tmp_path / "m") as partial:
            (partial / "weights").touch(0o600)
    finally:
        os.umask(mask)
    assert (tmp_path / "m").stat().st_mode & 0o777 == 0o750
    assert (tmp_path / "m" / "weights").stat().st_mode & 0o777 == 0o640
