"""What the speed measurements share: clocks, FLOP counts, and the speed of matrix products."""

from __future__ import annotations

import time
from collections.abc import Mapping
from itertools import pairwise
from typing import Any

import torch
from torch.optim.optimizer import (
    register_optimizer_step_post_hook,
    register_optimizer_step_pre_hook,
)
from torch.utils.flop_counter import FlopCounterMode, sdpa_backward_flop_count, sdpa_flop_count

WARM_UP = 2  # steps before the first that is timed


def attention_flops(query: Any, key: Any, value: Any, *_: Any, **__: Any) -> int:
    """Counts the FLOPs of torch's attention on CPUs, which its counter leaves out."""
    return int(sdpa_flop_count(query, key, value))


def attention_backward_flops(
    grad: Any, query: Any, key: Any, value: Any, *_: Any, **__: Any
) -> int:
    """Counts the FLOPs of the gradient of torch's attention on CPUs."""
    return int(sdpa_backward_flop_count(grad, query, key, value))


ATTENTION = {
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: attention_flops,
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward: attention_backward_flops,
}


def flop_counter() -> FlopCounterMode:
    """Returns a counter that counts the attention on CPUs as well."""
    return FlopCounterMode(display=False, custom_mapping=ATTENTION)


def busy_seconds(device: str) -> float:
    """Returns processor seconds on a CPU; on a GPU, wall-clock seconds once its work is done."""
    if device == "cpu":
        return time.process_time()
    torch.cuda.synchronize()
    return time.perf_counter()


class StepClock:
    """Times each training step and the optimizer in it, and counts the FLOPs of the last steps.

    Passed to `Trainer` as its progress bar. With a counted step at the end, the steps in between
    are timed without the counter's overhead.
    """

    def __init__(self, counted: int = 1, device: str = "cpu") -> None:
        """Starts the clock.

        Args:
            counted: The number of steps at the end whose FLOPs are counted.
            device: The device that the steps run on.
        """
        self.counted, self.device = counted, device
        self.marks = [self._mark()]
        self.updates: list[float] = [0.0]
        self.counter = flop_counter()
        self._hooks = [
            register_optimizer_step_pre_hook(lambda *_: self._optimizer(begins=True)),
            register_optimizer_step_post_hook(lambda *_: self._optimizer(begins=False)),
        ]

    def stop(self) -> None:
        """Removes the hooks on optimizers."""
        for hook in self._hooks:
            hook.remove()

    def _mark(self) -> tuple[float, float]:
        busy = busy_seconds(self.device)
        return time.perf_counter(), busy

    def _optimizer(self, begins: bool) -> None:
        if begins:
            self._began = busy_seconds(self.device)
        else:
            # One training step may make several optimizer steps, each on some of the weights.
            self.updates[-1] += busy_seconds(self.device) - self._began

    def update(self, step: int, steps: int, terms: Mapping[str, float]) -> None:
        """Marks the end of a training step; see `unsee.training.loop.Progress`."""
        self.marks.append(self._mark())
        self.updates.append(0.0)
        if step == steps - self.counted:
            self.counter.__enter__()
        elif step == steps:
            self.counter.__exit__(None, None, None)

    def wall_seconds(self) -> list[float]:
        """Returns the wall-clock seconds of each timed step."""
        return self._seconds(0)

    def busy_seconds(self) -> list[float]:
        """Returns the seconds of `busy_seconds` of each timed step."""
        return self._seconds(1)

    def _seconds(self, clock: int) -> list[float]:
        times = [mark[clock] for mark in self.marks[WARM_UP : -self.counted]]
        return [after - before for before, after in pairwise(times)]


def matmul_peak(dtype: torch.dtype, device: str = "cpu") -> float:
    """Measures the FLOPs a second of the fastest of some matrix products."""
    shapes = [(1154, 1024, 4096), (2308, 1024, 4096)]
    if device != "cpu":
        shapes += [(16384, 1024, 4096), (8192, 8192, 8192)]
    best = 0.0
    for rows, inner, columns in shapes:
        a, b = (
            torch.randn(*shape, device=device).to(dtype)
            for shape in ((rows, inner), (inner, columns))
        )
        for _ in range(12):
            before = busy_seconds(device)
            for _ in range(4):
                a @ b
            best = max(best, 8 * rows * inner * columns / (busy_seconds(device) - before))
    return best
