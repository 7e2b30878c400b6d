"""What need not stay in memory, and what room the disk has for it.

Freed tensors, weights that lie in a file anyway, an optimiser's state between two updates.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import re
import shutil
import sys
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from unsee.errors import ConfigError, RunError

MMAP_THRESHOLD, LARGE = -3, 4_000_000  # mallopt's name for it; bytes
DONTNEED = 4  # madvise's name for it
ALIGNED = 64  # bytes
FEW = 100_000_000  # bytes that are not worth reading again
PIECE = 100_000_000  # bytes of weights that are updated together, where memory is short
MAPPING = re.compile(r"([0-9a-f]+)-([0-9a-f]+) (\S+) \S+ \S+ (\d+)")

Pages = list[tuple[int, int]]


def give_back_memory() -> None:
    """Hands the memory of freed tensors back to the system, that of large ones always from now on.

    Where the C library would hold on to it: in gaps that what comes next does not fit.
    """
    if sys.platform == "linux":
        library = ctypes.CDLL(None)
        if hasattr(library, "malloc_trim"):
            library.malloc_trim(0)
            library.mallopt(MMAP_THRESHOLD, LARGE)


def wait_in_file(weights: Iterable[Tensor], last: nn.Module) -> None:
    """Takes weights that are not changed any more out of memory whenever they have been used.

    Those that are mapped from their file, and only where they are many. The next use reads them
    again: from the system's cache, if it has room for them.

    Args:
        weights: The weights.
        last: The module that is the last to use them.
    """
    held = [weight.detach() for weight in weights]
    pages = _file_pages(held)
    if sum(size for _, size in pages) < FEW:
        return

    def drop(*_: object, held: list[Tensor] = held) -> None:
        # Whoever keeps the hook keeps the weights: the addresses stay theirs.
        _drop(pages)

    last.register_forward_hook(drop)


def _file_pages(tensors: Iterable[Tensor]) -> Pages:
    """Where the pages are that hold these tensors alone, unchanged since they were mapped."""
    clean = list(_clean_mappings()) if sys.platform == "linux" else []
    spans: list[list[int]] = []
    for first, size in sorted((t.data_ptr(), t.nbytes) for t in tensors if t.device.type == "cpu"):
        if not any(start <= first and first + size <= end for start, end in clean):
            continue
        if spans and spans[-1][1] == first:
            spans[-1][1] += size
        else:
            spans.append([first, first + size])
    pages = [
        (-(-first // mmap.PAGESIZE) * mmap.PAGESIZE, last // mmap.PAGESIZE * mmap.PAGESIZE)
        for first, last in spans
    ]
    return [(first, last - first) for first, last in pages if last > first]


def _drop(pages: Pages) -> None:
    """Takes pages of files out of this process's memory, until they are read again."""
    library = ctypes.CDLL(None)
    for first, size in pages:
        library.madvise(ctypes.c_void_p(first), ctypes.c_size_t(size), DONTNEED)


def _clean_mappings() -> Iterator[tuple[int, int]]:
    """Start and end of the files mapped into memory of which no page was written to."""
    start, end, is_file = 0, 0, False
    with open("/proc/self/smaps", encoding="utf-8", errors="replace") as file:
        for line in file:
            if header := MAPPING.match(line):
                start, end = int(header[1], 16), int(header[2], 16)
                is_file = header[4] != "0"
            elif is_file and line.startswith("Anonymous:") and line.split()[1] == "0":
                yield start, end


class Shelf:
    """Keeps an optimiser's state in a folder, and in memory for the moment of the update alone.

    The file has no name, so that nothing is left of it when the process ends, however it ends.
    """

    def __init__(self, folder: str | Path) -> None:
        """Keeps it in `folder`."""
        self._folder = Path(folder)
        # Each is a file of its own, mapped as long as it is in this list.
        self._rooms: list[Tensor] = []

    def step(self, optimizer: torch.optim.Optimizer, values: Sequence[nn.Parameter]) -> None:
        """Updates the weights piece by piece, and drops their gradients.

        Raises:
            RunError: If the disk is full.
        """
        give_back_memory()
        gradients = [value.grad for value in values]
        for value in values:
            value.grad = None
        for piece in _pieces(values):
            for value in values[piece]:
                value.grad = gradients.pop(0)
            optimizer.step()
            self.keep(optimizer.state)
            for value in values[piece]:
                value.grad = None

    def keep(self, state: Mapping[Any, dict[str, Any]]) -> None:
        """Moves what is new of an optimiser's state into the folder; nothing of it stays."""
        there = {room.data_ptr() for room in self._rooms}
        fresh = [
            (slots, name, value)
            for slots in state.values()
            for name, value in slots.items()
            if torch.is_tensor(value)
            and value.dim()
            and value.untyped_storage().data_ptr() not in there
        ]
        room = self._map(sum(_aligned(value.nbytes) for *_, value in fresh))
        for slots, name, value in fresh:
            place, room = room[: value.nbytes], room[_aligned(value.nbytes) :]
            slots[name] = place.view(value.dtype).view(value.shape).copy_(value)
        self.drop()

    def drop(self) -> None:
        """Takes what is in the folder out of memory, until it is read again."""
        _drop([(room.data_ptr(), room.nbytes) for room in self._rooms])

    def _map(self, size: int) -> Tensor:
        """That many bytes of a new file in the folder."""
        if not size:
            return torch.empty(0, dtype=torch.uint8)
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            handle, name = tempfile.mkstemp(dir=self._folder)
            try:
                # All of it now: a disk that fills up later would kill the process.
                os.posix_fallocate(handle, 0, size)
                found = torch.from_file(name, shared=True, size=size, dtype=torch.uint8)
            finally:
                os.close(handle)
                os.unlink(name)
        except (OSError, RuntimeError) as error:
            raise RunError(
                f"offload {self._folder} cannot be written ({error}). Free some space and type "
                "the same command again, or leave offload out."
            ) from error
        self._rooms.append(found)
        return found


def _pieces(values: Sequence[Tensor]) -> Iterator[slice]:
    """Runs of tensors of about `PIECE` bytes each."""
    start = size = 0
    for index, value in enumerate(values):
        size += value.nbytes
        if size >= PIECE or index + 1 == len(values):
            yield slice(start, index + 1)
            start, size = index + 1, 0


def _aligned(size: int) -> int:
    """The bytes that so many take up where the next begin at a multiple of `ALIGNED`."""
    return -(-size // ALIGNED) * ALIGNED


def refuse_full(
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
