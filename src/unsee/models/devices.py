"""Devices: which one to use, and what it can compute in."""

from __future__ import annotations

import time
from typing import Literal

import torch

from unsee.errors import ConfigError

Device = Literal["auto", "cpu", "cuda"]


def pick_device(wanted: str) -> str:
    """The device to use: "cpu" or "cuda".

    Args:
        wanted: "cpu", "cuda", or "auto" for a GPU where torch finds one.

    Raises:
        ConfigError: If there is no such device.
    """
    has_gpu = torch.cuda.is_available()
    if wanted == "auto":
        return "cuda" if has_gpu else "cpu"
    if wanted not in ("cpu", "cuda"):
        raise ConfigError(f"device '{wanted}' is unknown. Allowed: auto, cpu, cuda.")
    if wanted == "cuda" and not has_gpu:
        raise ConfigError("device 'cuda': torch finds no GPU here. Type cpu, or auto.")
    return wanted


def refuse_dtype(dtype: torch.dtype, device: str) -> None:
    """Refuses a dtype that cannot be trained on a device; tries one multiplication.

    Raises:
        ConfigError: If the device does not support the dtype.
    """
    try:
        with torch.enable_grad():
            weight = torch.ones(1, 1, dtype=dtype, device=device, requires_grad=True)
            torch.nn.functional.linear(weight, weight).sum().backward()
    except (RuntimeError, NotImplementedError) as error:
        raise ConfigError(
            f"device '{device}' cannot compute in {str(dtype).removeprefix('torch.')} (torch "
            f"{torch.__version__}). Save the checkpoint in bfloat16 or float32, or take another "
            "device with --device."
        ) from error


def relative_matmul_time(dtype: str) -> float:
    """The time of a matrix product on the CPU in `dtype`, relative to float32 (measured)."""

    def seconds(kind: torch.dtype) -> float:
        left = torch.ones(256, 1024, dtype=kind)
        right = torch.ones(1024, 1024, dtype=kind)
        times = []
        for _ in range(5):
            started = time.perf_counter()
            torch.mm(left, right)
            times.append(time.perf_counter() - started)
        return min(times)

    return seconds(getattr(torch, dtype)) / seconds(torch.float32)
