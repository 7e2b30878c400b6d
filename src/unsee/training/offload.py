"""Optimizer state in a file: less memory while a model trains on a CPU."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from unsee.errors import RunError
from unsee.models.memory import drop_pages, release_freed_memory

ALIGNMENT = 64  # bytes
CHUNK = 100_000_000  # bytes of weights that are updated together


class OffloadedOptimizerState:
    """Keeps an optimizer's state in a folder, and in memory only during the update.

    The files are deleted as soon as they are mapped, so nothing is left when the process ends,
    however it ends.
    """

    def __init__(self, folder: str | Path) -> None:
        """Keeps the state in `folder`, which is created when something is stored."""
        self._folder = Path(folder)
        # One memory-mapped file each, which exists as long as its tensor is in this list.
        self._mappings: list[Tensor] = []

    def step(self, optimizer: torch.optim.Optimizer, values: Sequence[nn.Parameter]) -> None:
        """Updates the weights chunk by chunk, and drops their gradients.

        Raises:
            RunError: If the disk is full.
        """
        release_freed_memory()
        gradients = [value.grad for value in values]
        for value in values:
            value.grad = None
        for chunk in _chunks(values):
            for value in values[chunk]:
                value.grad = gradients.pop(0)
            optimizer.step()
            self.store(optimizer.state)
            for value in values[chunk]:
                value.grad = None

    def store(self, state: Mapping[Any, dict[str, Any]]) -> None:
        """Moves tensors of an optimizer's state that are still in memory into the folder.

        Args:
            state: The optimizer's state tensors by name, by parameter; replaced in place.

        Raises:
            RunError: If the disk is full.
        """
        stored = {mapping.data_ptr() for mapping in self._mappings}
        new = [
            (slots, name, value)
            for slots in state.values()
            for name, value in slots.items()
            if torch.is_tensor(value)
            and value.dim()
            and value.untyped_storage().data_ptr() not in stored
        ]
        free = self._map(sum(_aligned(value.nbytes) for *_, value in new))
        for slots, name, value in new:
            place, free = free[: value.nbytes], free[_aligned(value.nbytes) :]
            slots[name] = place.view(value.dtype).view(value.shape).copy_(value)
        self.evict()

    def evict(self) -> None:
        """Drops the stored pages from memory; the next access reads them from the file."""
        drop_pages([(mapping.data_ptr(), mapping.nbytes) for mapping in self._mappings])

    def _map(self, size: int) -> Tensor:
        """A tensor of `size` bytes in a new file of the folder."""
        if not size:
            return torch.empty(0, dtype=torch.uint8)
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            handle, name = tempfile.mkstemp(dir=self._folder)
            try:
                _allocate(handle, size)
                mapping = torch.from_file(name, shared=True, size=size, dtype=torch.uint8)
            finally:
                os.close(handle)
                os.unlink(name)
        except (OSError, RuntimeError) as error:
            raise RunError(
                f"offload {self._folder} cannot be written ({error}). Free some space and type "
                "the same command again, or leave offload out."
            ) from error
        self._mappings.append(mapping)
        return mapping


def _allocate(handle: int, size: int) -> None:
    """Reserves a file's space on the disk: a disk that fills up later would kill the process.

    Where the system has no `posix_fallocate` (macOS, Windows), the file is only extended.
    """
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(handle, 0, size)
    else:
        os.truncate(handle, size)


def _chunks(values: Sequence[Tensor]) -> Iterator[slice]:
    """Slices of the tensors, about `CHUNK` bytes each."""
    start = size = 0
    for index, value in enumerate(values):
        size += value.nbytes
        if size >= CHUNK or index + 1 == len(values):
            yield slice(start, index + 1)
            start, size = index + 1, 0


def _aligned(size: int) -> int:
    """`size` in bytes, rounded up to a multiple of `ALIGNMENT`."""
    return -(-size // ALIGNMENT) * ALIGNMENT
