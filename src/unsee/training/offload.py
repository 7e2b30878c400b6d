"""Offload."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from unsee.errors import RunError
from unsee.models.memory import _drop, release_freed_memory

ALIGNED = 64  # bytes


PIECE = 100_000_000  # bytes of weights that are updated together, where memory is short


class OffloadedOptimizerState:
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
        release_freed_memory()
        gradients = [value.grad for value in values]
        for value in values:
            value.grad = None
        for piece in _pieces(values):
            for value in values[piece]:
                value.grad = gradients.pop(0)
            optimizer.step()
            self.store(optimizer.state)
            for value in values[piece]:
                value.grad = None

    def store(self, state: Mapping[Any, dict[str, Any]]) -> None:
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
        self.evict()

    def evict(self) -> None:
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
