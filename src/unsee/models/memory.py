"""Returns memory to the operating system: freed tensors and memory-mapped weights.

Only Linux offers what this needs (`malloc_trim`, `madvise` of file pages, /proc/self/smaps); on
other systems the functions do nothing, and results are the same with more memory.
"""

from __future__ import annotations

import ctypes
import mmap
import re
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

from torch import Tensor, nn

MMAP_THRESHOLD, LARGE = -3, 4_000_000  # M_MMAP_THRESHOLD of mallopt; its value in bytes
DONTNEED = 4  # MADV_DONTNEED of madvise
MIN_EVICTED = 100_000_000  # bytes; less is not worth reading again
MAPPING = re.compile(r"([0-9a-f]+)-([0-9a-f]+) (\S+) \S+ \S+ (\d+)")

# Address and size in bytes of each run of pages.
Pages = list[tuple[int, int]]


def release_freed_memory() -> None:
    """Returns freed memory to the system, and makes large tensors do so when they are freed.

    The C library would otherwise keep it in gaps that later allocations may not fit.
    """
    if sys.platform == "linux":
        library = ctypes.CDLL(None)
        if hasattr(library, "malloc_trim"):
            library.malloc_trim(0)
            library.mallopt(MMAP_THRESHOLD, LARGE)


def evict_after_forward(weights: Iterable[Tensor], last: nn.Module) -> None:
    """Drops memory-mapped weights from memory after every forward pass.

    The next use reads them again, from the system's page cache if they are still there. Does
    nothing if fewer than `MIN_EVICTED` bytes of them are mapped from a file.

    Args:
        weights: The weights; they must not be changed any more.
        last: The module that uses them last.
    """
    kept = [weight.detach() for weight in weights]
    pages = _file_pages(kept)
    if sum(size for _, size in pages) < MIN_EVICTED:
        return

    def drop(*_: object, kept: list[Tensor] = kept) -> None:
        # The hook keeps the weights alive, so that the addresses stay valid.
        drop_pages(pages)

    last.register_forward_hook(drop)


def _file_pages(tensors: Iterable[Tensor]) -> Pages:
    """The pages that hold only these tensors and are unchanged since they were mapped."""
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
    """Drops pages of memory-mapped files from memory, until they are read again."""
    if sys.platform != "linux":
        return
    library = ctypes.CDLL(None)
    for first, size in pages:
        library.madvise(ctypes.c_void_p(first), ctypes.c_size_t(size), DONTNEED)


def _clean_mappings() -> Iterator[tuple[int, int]]:
    """Start and end address of each mapped file of which no page was written to."""
    start, end, is_file = 0, 0, False
    with open("/proc/self/smaps", encoding="utf-8", errors="replace") as file:
        for line in file:
            if header := MAPPING.match(line):
                start, end = int(header[1], 16), int(header[2], 16)
                is_file = header[4] != "0"
            elif is_file and line.startswith("Anonymous:") and line.split()[1] == "0":
                yield start, end


def free_memory(device: str) -> int | None:
    """Returns the memory (bytes) that is free on a device; None where that is not known.

    Args:
        device: Such as "cpu" or "cuda:0".
    """
    if device.startswith("cuda"):
        import torch

        return int(torch.cuda.mem_get_info(device)[0])
    try:
        text = Path("/proc/meminfo").read_text(encoding="ascii")
    except OSError:
        return None
    found = re.search(r"MemAvailable:\s+(\d+) kB", text)
    return int(found[1]) * 1024 if found else None
