"""A lock on an output folder: one process at a time writes it."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from unsee.errors import RunError, first_line
from unsee.files import make_folder

NAME = ".lock"

# How long (s) a lock is waited for: `is_in_use` holds it for an instant.
PATIENCE, PAUSE = 0.2, 0.02


@contextmanager
def exclusive(folder: Path, advice: str = "name another folder with --out") -> Iterator[None]:
    """Keeps other processes out of a folder until the block ends; creates it if it is missing.

    The operating system releases the lock of a process that ends in any way, so a killed one blocks
    nobody. A folder that was created here and is empty in the end is removed again.

    Args:
        folder: The output folder.
        advice: The end of the error message where another process writes it: what else to do.

    Raises:
        RunError: If another process writes the folder, or it is a file, or cannot be created.
    """
    if folder.exists() and not folder.is_dir():
        raise RunError(f"{folder} is a file. Name a folder with --out.")
    created = [path for path in (folder, *folder.parents) if not path.exists()]
    make_folder(folder, "Name another with --out.")
    release = _lock(folder, advice)
    try:
        yield
    finally:
        release()
        # Deepest first; those that are not empty stay.
        with suppress(OSError):
            for path in created:
                path.rmdir()


def is_empty(folder: Path) -> bool:
    """Whether a folder holds nothing but a lock."""
    return all(entry.name == NAME for entry in folder.iterdir())


def is_in_use(folder: Path) -> bool:
    """Whether a process, this one included, is inside `exclusive` with a folder that exists.

    Nothing in the folder changes. Processes of another machine are seen where the file system
    shares locks, as NFS does.
    """
    if sys.platform != "win32":
        import fcntl

        with suppress(OSError), _opened(folder) as descriptor:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                return True
    return (folder / NAME).exists() and _file_is_locked(folder / NAME)


@contextmanager
def _opened(folder: Path) -> Iterator[int]:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _file_is_locked(path: Path) -> bool:
    from filelock import FileLock, Timeout

    try:
        with FileLock(path, timeout=0):
            return False
    except Timeout:
        return True
    except OSError:
        # A file that this user may not open.
        return False


def _lock(folder: Path, advice: str) -> Callable[[], None]:
    """Locks the folder itself; a file in it where folders cannot be locked, as on Windows."""
    if sys.platform == "win32":
        return _lock_file(folder, advice)

    try:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    except OSError as error:
        raise _cannot(folder, error) from error
    try:
        _flock(descriptor)
        # Another process may have removed the folder, and created it again, before it was locked.
        if not os.path.samestat(os.fstat(descriptor), folder.stat()):
            raise BlockingIOError
    except (BlockingIOError, FileNotFoundError) as error:
        os.close(descriptor)
        raise _in_use(folder, advice) from error
    except OSError:
        os.close(descriptor)
        return _lock_file(folder, advice)
    return lambda: os.close(descriptor)


def _flock(descriptor: int) -> None:
    """Locks an open folder.

    Raises:
        BlockingIOError: If another process holds it longer than `PATIENCE`.
    """
    import fcntl

    end = time.monotonic() + PATIENCE
    while True:
        try:
            return fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > end:
                raise
            time.sleep(PAUSE)


def _lock_file(folder: Path, advice: str) -> Callable[[], None]:
    from filelock import FileLock, Timeout

    lock = FileLock(folder / NAME, timeout=PATIENCE)
    try:
        lock.acquire(poll_interval=PAUSE)
    except Timeout as error:
        raise _in_use(folder, advice) from error
    except OSError as error:
        raise _cannot(folder, error) from error

    def release() -> None:
        with suppress(OSError):
            (folder / NAME).unlink(missing_ok=True)
        lock.release()

    return release


def _cannot(folder: Path, error: OSError) -> RunError:
    return RunError(f"{folder} cannot be locked ({first_line(error)}). Name another with --out.")


def _in_use(folder: Path, advice: str) -> RunError:
    return RunError(
        f"{folder} is in use: another unsee process writes it. Wait until that one ends, or "
        f"{advice}."
    )
