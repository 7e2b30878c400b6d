"""Atomic writing: a file appears whole or not at all."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from unsee.errors import RunError
from unsee.files import atomic_file, write_atomically


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
