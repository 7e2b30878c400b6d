"""Batches made in threads while a GPU computes, which would otherwise wait for pictures."""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Generic, TypeVar

T = TypeVar("T")

MAX_THREADS = 8  # with workers="auto"


class Prefetcher(Generic[T]):
    """Makes the inputs of batches, by number, before they are needed.

    It is a context manager, which ends the threads. What is made for a number must depend on that
    number alone; it is then the same with any number of threads.
    """

    def __init__(self, make: Callable[[int], T], threads: int, stop: int, stride: int = 1) -> None:
        """Prefetches as many batches as there are threads.

        Args:
            make: Given the number of a batch, returns its inputs.
            threads: Number of threads; 0 makes each batch when it is requested.
            stop: End (exclusive) of the numbers that are requested.
            stride: Difference between consecutive numbers that are requested.
        """
        self._make, self._threads, self._stop, self._stride = make, threads, stop, stride
        self._pending: dict[int, Future[T]] = {}
        self._pool = ThreadPoolExecutor(threads, "prefetch") if threads else None

    def __call__(self, number: int) -> T:
        """The inputs of the batch with this number; starts making the next ones."""
        if self._pool is None:
            return self._make(number)
        last = number + self._threads * self._stride
        for following in range(number, min(last + 1, max(self._stop, number + 1)), self._stride):
            if following not in self._pending:
                self._pending[following] = self._pool.submit(self._make, following)
        return self._pending.pop(number).result()

    def __enter__(self) -> Prefetcher[T]:
        """Returns the prefetcher."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Cancels what was not requested and ends the threads."""
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)


def threads_for(workers: int | str, device: str) -> int:
    """The number of threads that make batches.

    Args:
        workers: How many, or "auto": none on a CPU, whose cores are busy with the training.
        device: The training device: "cpu" or "cuda".
    """
    if workers != "auto":
        return int(workers)
    return 0 if device == "cpu" else min(MAX_THREADS, (os.cpu_count() or 2) - 1)
