"""Files and folders written whole or not at all, room on the disk, and hashes."""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from safetensors import SafetensorError

from unsee.errors import ConfigError, ModelError, RunError, first_line


def hash_file(path: Path) -> str:
    """SHA-256 of a file's bytes, read a piece at a time."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while piece := file.read(1 << 20):
            digest.update(piece)
    return digest.hexdigest()


def hash_folder(folder: Path) -> str:
    """SHA-256 over the names and bytes of the files in a folder itself, in name order."""
    return combine_digests({p.name: hash_file(p) for p in folder.iterdir() if p.is_file()})


def combine_digests(digests: Mapping[str, str]) -> str:
    """SHA-256 over the names and digests of tensors, in name order.

    Built from digests, so that tensors can be hashed one at a time, from wherever they lie.
    """
    lines = "".join(f"{name}|{digests[name]}\n" for name in sorted(digests))
    return hashlib.sha256(lines.encode()).hexdigest()


def require_empty(folder: Path) -> None:
    """Refuses a place to write to that holds something.

    Raises:
        ModelError: If it is a file, or a folder that is not empty.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        what = "is not empty" if folder.is_dir() else "is a file"
        raise ModelError(f"folder {folder} {what}. Name another with --out, or remove it.")


@contextmanager
def atomic_folder(folder: Path) -> Iterator[Path]:
    """A folder that appears under its name only when the block ends well.

    Raises:
        ModelError: If the folder has something in it already, or cannot be written.
    """
    require_empty(folder)
    partial: Path | None = None
    made = [parent for parent in folder.parents if not parent.exists()]
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        partial = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
        yield partial
        partial.chmod(0o755)
        if folder.exists():
            folder.rmdir()
        os.replace(partial, folder)
    except (OSError, SafetensorError) as error:
        raise ModelError(
            f"folder {folder}: cannot be written ({first_line(error)}). Free some space or name "
            "another place with --out; nothing was left behind."
        ) from error
    finally:
        if partial is not None:
            shutil.rmtree(partial, ignore_errors=True)
        for parent in made:
            # Deepest first; those that something has been put into stay.
            with suppress(OSError):
                parent.rmdir()


def require_free_space(
    setting: str, folder: str | Path, needed: float, claim: str, lower: str = ""
) -> None:
    """Refuses a folder whose disk has too little room for what a setting keeps there.

    Args:
        setting: Its name.
        folder: The folder; it need not exist.
        needed: Bytes.
        claim: What the setting does with them, up to how many are free.
        lower: How to need fewer.

    Raises:
        ConfigError: If so, or it is a file.
    """
    folder = Path(folder)
    if folder.exists() and not folder.is_dir():
        raise ConfigError(f"{setting} {folder} is a file. Name a folder: --set {setting}=DIR.")
    place, free = free_space(folder)
    if free < needed:
        raise ConfigError(
            f"{setting} {folder}{claim} {free / 1e9:.1f} GB are free in {place}. Free some space, "
            f"{lower}name another folder (--set {setting}=DIR), or leave {setting} out."
        )


def free_space(path: Path) -> tuple[Path, int]:
    """The folder that a new file or folder would come to lie in, and the bytes free there."""
    place = next(p for p in (path.absolute(), *path.absolute().parents) if p.is_dir())
    return place, shutil.disk_usage(place).free


def write_atomically(path: Path, text: str) -> None:
    """Writes a file so that it is there whole or not at all.

    Raises:
        RunError: If it cannot be written, such as on a full disk.
    """
    partial = path.with_name(f".{path.name}.partial")
    try:
        partial.write_text(text, "utf-8")
        os.replace(partial, path)
    except OSError as error:
        partial.unlink(missing_ok=True)
        raise RunError(
            f"{path} cannot be written ({error}). Free some space and resume."
        ) from error
