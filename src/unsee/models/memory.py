"""What need not stay in memory, and what room the disk has for it.

Freed tensors, weights that lie in a file anyway, an optimiser's state between two updates.
"""

from __future__ import annotations

import ctypes
import mmap
import re
import sys
from collections.abc import Iterable, Iterator

from torch import Tensor, nn

MMAP_THRESHOLD, LARGE = -3, 4_000_000  # mallopt's name for it; bytes


DONTNEED = 4  # madvise's name for it


FEW = 100_000_000  # bytes that are not worth reading again


MAPPING = re.compile(r"([0-9a-f]+)-([0-9a-f]+) (\S+) \S+ \S+ (\d+)")


Pages = list[tuple[int, int]]


def release_freed_memory() -> None:
    """Hands the memory of freed tensors back to the system, that of large ones always from now on.

    Where the C library would hold on to it: in gaps that what comes next does not fit.
    """
    if sys.platform == "linux":
        library = ctypes.CDLL(None)
        if hasattr(library, "malloc_trim"):
            library.malloc_trim(0)
            library.mallopt(MMAP_THRESHOLD, LARGE)


def evict_after_forward(weights: Iterable[Tensor], last: nn.Module) -> None:
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
        drop_pages(pages)

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


def drop_pages(pages: Pages) -> None:
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
