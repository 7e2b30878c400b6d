"""Atomic writing of files and folders, what killed writers left, free disk space, and hashes."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import secrets
import shutil
import socket
import stat
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from unsee.errors import ConfigError, ModelError, RunError, UnseeError, first_line, quoted, shorten

# Digests of files by device, inode, size, and the times of the last changes of content and inode.
_digests: dict[tuple[int, ...], str] = {}
# A file that was written more recently (s) may be written again within the clock's resolution.
_SETTLED = 2.0


def hash_file(path: Path) -> str:
    """SHA-256 of a file's bytes, read in chunks; a file that has not changed is read once."""
    with path.open("rb") as file:
        status = os.fstat(file.fileno())
        key = (
            *(status.st_dev, status.st_ino, status.st_size),
            *(status.st_mtime_ns, status.st_ctime_ns),
        )
        if key in _digests:
            return _digests[key]
        digest = hashlib.sha256()
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    if time.time() - max(status.st_mtime, status.st_ctime) > _SETTLED:
        _digests[key] = digest.hexdigest()
    return digest.hexdigest()


def is_read_by_others(path: Path) -> bool:
    """Whether a file's permissions let anyone but its owner read or write it; on POSIX alone."""
    return os.name == "posix" and bool(path.stat().st_mode & 0o077)


def hash_folder(folder: Path) -> str:
    """SHA-256 over the names and bytes of the files in a folder itself, in name order."""
    return combine_digests({p.name: hash_file(p) for p in folder.iterdir() if p.is_file()})


def combine_digests(digests: Mapping[str, str]) -> str:
    """SHA-256 over the names and digests of tensors, in name order.

    Built from digests, so that tensors can be hashed one at a time.
    """
    lines = "".join(f"{name}|{digests[name]}\n" for name in sorted(digests))
    return hashlib.sha256(lines.encode()).hexdigest()


# The most bytes of one name in a path. Of a path as a whole, so many fit with a file's name behind.
MOST_IN_NAME, MOST_IN_PATH = 255, 3840


def path_text(label: str, value: object, advice: str, error: type[UnseeError] = ConfigError) -> str:
    """Returns a path that a caller gave, as text; it need not exist.

    Args:
        label: What it is, for messages, such as "run folder ".
        value: Text or a path; anything else is refused.
        advice: The end of the message: what to give instead.
        error: The error that is raised.

    Example:
        >>> path_text("run folder ", Path("runs/a"), "give the folder that --out named.")
        'runs/a'

    Raises:
        UnseeError: If it is neither text nor a path, empty, or longer than a path can be.
    """
    text = os.fspath(value) if isinstance(value, str | os.PathLike) else None
    try:
        encoded = os.fsencode(text) if isinstance(text, str) and "\0" not in text else b""
    except UnicodeEncodeError:
        # Half of a surrogate pair, which no file system takes.
        encoded = b""
    if not isinstance(text, str) or not encoded:
        raise error(f"{label}{quoted(value)} is not allowed: {advice}")
    for size, most, part in (
        (max(map(len, encoded.split(b"/"))), MOST_IN_NAME, "a name in it"),
        (len(encoded), MOST_IN_PATH, "it"),
    ):
        if size > most:
            raise error(
                f"{label}'{shorten(text, 200)}' is not allowed: {part} has more than {most:,} "
                f"bytes, which no file can have; {advice}"
            )
    return text


def is_regular(path: Path) -> bool:
    """Whether a path, after links, is an ordinary file: no folder, pipe, socket or device."""
    try:
        return stat.S_ISREG(path.stat().st_mode)
    except OSError:
        return False


def refuse_nested(
    out: Path,
    read: Iterable[tuple[str, object]],
    option: str = "--out",
    error: type[UnseeError] = ConfigError,
) -> None:
    """Refuses to write into a folder that is read: a model, photographs, a patch.

    Args:
        out: The folder or file to write; it need not exist.
        read: What is read, and where, such as ("model", "checkpoints/a"); what is no folder is
            passed over, such as a hub id.
        option: The option that names `out`.
        error: The error that is raised.

    Raises:
        UnseeError: If `out` is one of these folders, or lies in one.
    """
    place = Path(os.path.realpath(out))
    for what, value in read:
        if not isinstance(value, str | os.PathLike) or not os.path.isdir(value):
            continue
        folder = Path(os.path.realpath(value))
        if folder in (place, *place.parents):
            where = "is" if folder == place else "lies in"
            raise error(
                f"{option} {out} {where} the folder {os.fspath(value)!s}, which is read as {what} "
                f"and stays as it is. Name another with {option}, outside it."
            )


def require_empty(folder: Path) -> None:
    """Refuses an output folder that is not empty.

    Raises:
        ModelError: If `folder` is a file, or a folder that is not empty.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        reason = "is not empty" if folder.is_dir() else "is a file"
        raise ModelError(f"folder {folder} {reason}. Name another with --out, or remove it.")


@contextmanager
def atomic_folder(folder: Path) -> Iterator[Path]:
    """Yields a temporary folder that becomes `folder` when the block ends without an error.

    Raises:
        ModelError: If `folder` is not empty, or another process writes it, or it cannot be written.
    """
    if folder.parent.is_dir():
        remove_leftovers(folder.parent, folder.name)
    require_empty(folder)
    partial: Path | None = None
    created_parents = [parent for parent in folder.parents if not parent.exists()]
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        partial = _unique_partial(folder)
        partial.mkdir()
        _refuse_other_writers(folder, partial)
        yield partial
        _apply_umask(partial)
        # Another machine may have written it meanwhile.
        require_empty(folder)
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
        for parent in created_parents:
            # Deepest first; those that are not empty stay.
            with suppress(OSError):
                parent.rmdir()


def _refuse_other_writers(folder: Path, own: Path) -> None:
    """Refuses a folder for which a running process has a partial folder other than `own`.

    It is called when `own` exists, so that of two processes at most one goes on.

    Raises:
        ModelError: If there is one.
    """
    for path, process in _partials(folder.parent, folder.name):
        if path.name != own.name and _is_running(process):
            raise ModelError(
                f"folder {folder} is in use: process {process} writes it. Wait until that one "
                f"ends, or name another with --out. If it is no unsee process, remove {path}."
            )


def require_free_space(setting: str, folder: str | Path, needed: float, claim: str) -> None:
    """Refuses a folder on a disk with too little free space.

    Args:
        setting: The name of the setting that names the folder.
        folder: The folder; it need not exist.
        needed: Bytes that the setting needs there.
        claim: The part of the message before the number of free bytes.

    Raises:
        ConfigError: If fewer bytes are free, or `folder` is a file.
    """
    folder = Path(folder)
    if folder.exists() and not folder.is_dir():
        raise ConfigError(f"{setting} {folder} is a file. Name a folder: --set {setting}=DIR.")
    place, free = free_space(folder)
    if free < needed:
        raise ConfigError(
            f"{setting} {folder}{claim} {free / 1e9:.1f} GB are free in {place}. Free some space, "
            f"name another folder (--set {setting}=DIR), or leave {setting} out."
        )


def free_space(path: Path) -> tuple[Path, int]:
    """The nearest existing folder at or above `path`, and the bytes free on its disk."""
    place = next(p for p in (path.absolute(), *path.absolute().parents) if p.is_dir())
    return place, shutil.disk_usage(place).free


RETRY = "Free some space and type the same command again."


@contextmanager
def atomic_file(path: Path, concurrent: bool = False, advice: str = RETRY) -> Iterator[Path]:
    """Yields a temporary path beside `path` that replaces it when the block ends without an error.

    Args:
        path: The file to write; its folder must exist.
        concurrent: Whether several processes may write it at once, so that each needs a temporary
            file of its own. Otherwise the next writer replaces what a killed one has left.
        advice: The end of the error message: what to do about it.

    Raises:
        RunError: If it cannot be written, such as on a full disk.
    """
    partial = path.with_name(f".{path.name}.partial")
    if concurrent:
        if path.parent not in _tidied:
            # Once a process: a cache has many files.
            _tidied.add(path.parent)
            remove_leftovers(path.parent)
        partial = _unique_partial(path)
    try:
        yield partial
        _apply_umask(partial)
        os.replace(partial, path)
    except (OSError, SafetensorError) as error:
        raise RunError(f"{path} cannot be written ({first_line(error)}). {advice}") from error
    finally:
        with suppress(OSError):
            partial.unlink(missing_ok=True)


def write_atomically(
    path: Path, content: str | bytes, concurrent: bool = False, advice: str = RETRY
) -> None:
    """Writes a file so that it appears whole or not at all.

    Args:
        path: The file; its folder must exist.
        content: Text, written as UTF-8 with line ends as they are, or bytes.
        concurrent: Whether several processes may write it at once.
        advice: The end of the error message: what to do about it.

    Raises:
        RunError: If it cannot be written, such as on a full disk.
    """
    encoded = content.encode("utf-8") if isinstance(content, str) else content
    with atomic_file(path, concurrent, advice) as partial:
        partial.write_bytes(encoded)


def append_text(path: Path, text: str, advice: str = RETRY) -> None:
    """Appends to a text file, such as a log.

    Args:
        path: The file; its folder must exist.
        text: What to add, as UTF-8.
        advice: The end of the error message: what to do about it.

    Raises:
        RunError: If it cannot be written, such as on a full disk.
    """
    try:
        with path.open("a", encoding="utf-8", newline="") as file:
            file.write(text)
    except OSError as error:
        raise RunError(f"{path} cannot be written ({first_line(error)}). {advice}") from error


def make_folder(folder: Path, advice: str = RETRY) -> Path:
    """Creates a folder and its parents if they are missing, and returns it.

    Raises:
        RunError: If it cannot be created, such as on a full disk.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RunError(f"{folder} cannot be written ({first_line(error)}). {advice}") from error
    return folder


# What the operating system says of a disk that is full, or that cannot be written.
NO_SPACE = frozenset((errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO))

# The most bytes of a text file of a run folder, apart from logs, which are read line by line.
MOST_BYTES = 200_000_000


def read_text(path: Path, most: int = MOST_BYTES) -> str:
    """Returns the text of a file that unsee wrote; pipes, devices and links are not read.

    Args:
        path: The file.
        most: The most bytes that are read.

    Raises:
        FileNotFoundError: If it does not exist.
        RunError: If it is no ordinary file, larger, not UTF-8, or cannot be read.
    """
    refuse_odd_file(path)
    try:
        with path.open("rb") as file:
            content = file.read(most + 1)
        if len(content) > most:
            raise RunError(f"{path} has more than {most:,} bytes, and none like it is as large.")
        return content.decode("utf-8")
    except FileNotFoundError:
        raise
    except (OSError, UnicodeDecodeError) as error:
        raise RunError(f"{path} cannot be read ({first_line(error)}).") from error


def refuse_odd_file(path: Path) -> None:
    """Refuses a link, a pipe, a device or a folder where a run folder has an ordinary file.

    Raises:
        RunError: If it is one of these, or it cannot be looked at.
    """
    try:
        mode = path.lstat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        return
    except OSError as error:
        raise RunError(f"{path} cannot be read ({first_line(error)}).") from error
    if not stat.S_ISREG(mode):
        raise RunError(
            f"{path} is no ordinary file (a link, a pipe, a device or a folder), and is not "
            "read. Replace it by the file itself."
        )


def write_json_with_digest(path: Path, value: Any) -> None:
    """Writes a JSON value with its SHA-256, atomically; `read_json_with_digest` reads it.

    Raises:
        RunError: If it cannot be written, such as on a full disk.
    """
    content = {"sha256": json_digest(value), "value": value}
    write_atomically(path, json.dumps(content))


def read_json_with_digest(path: Path) -> Any:
    """Returns the value in a file of `write_json_with_digest`.

    Raises:
        FileNotFoundError: If it does not exist.
        RunError: If the file is not as it was written.
    """
    text = read_text(path)
    try:
        content = json.loads(text)
        if content.keys() == {"sha256", "value"}:
            value = content["value"]
            if json_digest(value) == content["sha256"]:
                return value
    except (ValueError, AttributeError, RecursionError):
        pass
    raise RunError(
        f"{path} is damaged: it is not what was written. Remove it and type the same command "
        "again, which computes it again."
    )


def json_digest(value: Any) -> str:
    """SHA-256 of a value as JSON with sorted keys."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


# A partial file or folder of one process: the name, its namespace, its process id, a random part.
LEFTOVER = re.compile(r"\.(.+)\.([0-9a-f]{8})-(\d{1,10})-[0-9a-f]{8}\.partial")
_tidied: set[Path] = set()


def remove_leftovers(folder: Path, name: str | None = None) -> None:
    """Removes partial files and folders whose writers were killed.

    Those of running processes, and of processes on other machines, stay.

    Args:
        folder: The folder that they are in.
        name: The file or folder that was to be written; None for any.
    """
    with suppress(OSError):
        for path, process in _partials(folder, name):
            if not _is_running(process):
                remove(path)


def _partials(folder: Path, name: str | None) -> list[tuple[Path, int]]:
    """The partial files and folders of processes on this machine, with the process ids."""
    matches = [(path, LEFTOVER.fullmatch(path.name)) for path in sorted(folder.iterdir())]
    return [
        (path, int(match[3]))
        for path, match in matches
        if match and name in (None, match[1]) and match[2] == _namespace()
    ]


def remove(path: Path) -> None:
    """Removes a file, a link or a folder with all in it, if it is there and can be removed."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with suppress(OSError):
            path.unlink(missing_ok=True)


def _unique_partial(path: Path) -> Path:
    unique = f"{_namespace()}-{os.getpid()}-{secrets.token_hex(4)}"
    return path.with_name(f".{path.name}.{unique}.partial")


def _namespace() -> str:
    """Identifies the machine, or the container, that a process id belongs to."""
    try:
        namespace = os.readlink("/proc/self/ns/pid")
    except OSError:
        namespace = ""
    return hashlib.sha256(f"{socket.gethostname()}|{namespace}".encode()).hexdigest()[:8]


def _is_running(process: int) -> bool:
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except OSError:
        return True
    return True


def _apply_umask(path: Path) -> None:
    """Gives a file, or a folder and all in it, the permissions of newly created ones.

    safetensors creates its files for their owner alone.
    """
    mask = os.umask(0)
    os.umask(mask)
    for entry in (path, *path.rglob("*")) if path.is_dir() else (path,):
        if not entry.is_symlink() and entry.exists():
            entry.chmod((0o777 if entry.is_dir() else 0o666) & ~mask)
