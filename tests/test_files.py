"""Atomic writing: a file appears whole or not at all."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import unsee
from unsee import VLM
from unsee.artifacts.manifest import read_manifest
from unsee.errors import ConfigError, DataError, ModelError, PatchError, RunError
from unsee.files import atomic_file, atomic_folder, path_text, read_text, write_atomically
from unsee.recipes.sources import read_samples


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


NO_PATHS = [5, None, True, b"x", ["x"], "", "a\0b", "\ud800", "x" * 256, "ä" * 128, "a/" * 3000]


@pytest.mark.parametrize("value", NO_PATHS, ids=lambda value: ascii(value)[:10])
def test_path_text_refuses_what_is_no_path(value: object) -> None:
    with pytest.raises(
        ConfigError, match=r"^place .* is not allowed: .*give a folder\.$"
    ) as caught:
        path_text("place ", value, "give a folder.")
    assert len(str(caught.value)) < 400


def test_path_text_keeps_paths() -> None:
    for text in (".", "a b/ä", "x" * 255, "owner/name", "/", "\udcff", "a/" * 1900):
        assert path_text("place ", text, "") == text
    assert path_text("place ", Path("a/b"), "") == "a/b"


@pytest.mark.parametrize("value", NO_PATHS, ids=lambda value: ascii(value)[:10])
def test_public_functions_refuse_what_is_no_path(
    value: Any, tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every public function that takes a path, called as a caller may do by mistake."""
    monkeypatch.chdir(tmp_path)
    vlm = VLM.load(tiny_folder)
    calls: list[tuple[type[Exception], Callable[[], object]]] = [
        (RunError, lambda: unsee.read_run(value)),
        (DataError, lambda: read_samples(value)),
        (ModelError, lambda: VLM.load(value)),
        (ModelError, lambda: vlm.save(value)),
        (PatchError, lambda: read_manifest(value)),
        (PatchError, lambda: unsee.apply_patch([value], tiny_folder, tmp_path / "out")),
        (ModelError, lambda: unsee.write_patch(vlm, value, tmp_path / "out")),
        (ModelError, lambda: unsee.write_patch(vlm, tiny_folder, value)),
        (ConfigError, lambda: unsee.run(value, out=tmp_path / "out")),
        (ConfigError, lambda: unsee.verify(tiny_folder, value)),
    ]
    for error, call in calls:
        with pytest.raises(error, match="is not allowed"):
            call()
    assert not list(tmp_path.iterdir())


def test_read_text_names_a_file_that_cannot_be_looked_at(tmp_path: Path) -> None:
    path = tmp_path / ("x" * 256)
    with pytest.raises(RunError, match=r"x cannot be read \(.*File name too long"):
        read_text(path)


RUNNING = """
import sys
from pathlib import Path
from unsee.files import atomic_folder
with atomic_folder(Path(sys.argv[1])) as partial:
    print("begun", flush=True)
    sys.stdin.read()
"""


def test_atomic_folder_refuses_a_second_process(tmp_path: Path) -> None:
    folder = tmp_path / "m"
    with subprocess.Popen(
        [sys.executable, "-c", RUNNING, str(folder)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as first:
        assert first.stdout is not None and first.stdout.readline() == "begun\n"
        message = f"m is in use: process {first.pid} writes it. Wait .*--out"
        with pytest.raises(ModelError, match=message), atomic_folder(folder):
            pytest.fail("two processes write one folder")
        with atomic_folder(tmp_path / "other"):
            pass
        first.communicate("")
    assert first.returncode == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["m", "other"]


def test_atomic_folder_names_a_folder_that_was_filled_meanwhile(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="m is not empty"), atomic_folder(tmp_path / "m"):
        (tmp_path / "m").mkdir()
        (tmp_path / "m" / "theirs").touch()
    assert [path.name for path in tmp_path.rglob("*")] == ["m", "theirs"]
