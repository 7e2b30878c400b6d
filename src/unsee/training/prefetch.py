"""Batches made ahead, in threads, while a GPU computes: it would wait for pictures."""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Generic, TypeVar

T = TypeVar("T")


MOST = 8  # threads, unless somebody says how many


class Prefetcher(Generic[T]):
    """What every step needs, by the number of its batch; a context, at whose end the threads end.

    What is made for a number must depend on that number alone. It is then the same however many
    threads there are.
    """

    def __init__(self, make: Callable[[int], T], threads: int, stop: int, stride: int = 1) -> None:
        """Makes as many ahead as there are threads.

        Args:
            make: Of a number, what it needs.
            threads: How many make something at once; 0 makes it when it is asked for.
            stop: The first number that is not asked for.
            stride: From one number that is asked for to the next.
        """
        self._make, self._ahead, self._stop, self._stride = make, threads, stop, stride
        self._coming: dict[int, Future[T]] = {}
        self._pool = ThreadPoolExecutor(threads, "ahead") if threads else None

    def __call__(self, number: int) -> T:
        """What this number needs; begins with those that are asked for next."""
        if self._pool is None:
            return self._make(number)
        last = number + self._ahead * self._stride
        for following in range(number, min(last + 1, max(self._stop, number + 1)), self._stride):
            if following not in self._coming:
                self._coming[following] = self._pool.submit(self._make, following)
        return self._coming.pop(number).result()

    def __enter__(self) -> Prefetcher[T]:
        """Itself."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Drops what nobody will ask for."""
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)


def threads_for(wanted: int | str, device: str) -> int:
    """How many threads make batches.

    Args:
        wanted: How many, or "auto": none on a CPU, which has no time to spare for them.
        device: What trains: "cpu" or "cuda".
    """
    if wanted != "auto":
        return int(wanted)
    return 0 if device == "cpu" else min(MOST, (os.cpu_count() or 2) - 1)
