"""Where a model's weights are put, and in how many bits they are held there."""

from __future__ import annotations

import time
from typing import Literal

import torch

from unsee.errors import ConfigError

Device = Literal["auto", "cpu", "cuda"]


def pick_device(wanted: str) -> str:
    """The device of that name; "auto" is a GPU where torch finds one.

    Raises:
        ConfigError: If there is no such device here.
    """
    here = torch.cuda.is_available()
    if wanted == "auto":
        return "cuda" if here else "cpu"
    if wanted not in ("cpu", "cuda"):
        raise ConfigError(f"device '{wanted}' is unknown. Allowed: auto, cpu, cuda.")
    if wanted == "cuda" and not here:
        raise ConfigError("device 'cuda': torch finds no GPU here. Type cpu, or auto.")
    return wanted


def refuse_dtype(dtype: torch.dtype, device: str) -> None:
    """Refuses a type of weights that cannot be trained on a device: tries one multiplication.

    Raises:
        ConfigError: If the device cannot do it.
    """
    try:
        with torch.enable_grad():
            one = torch.ones(1, 1, dtype=dtype, device=device, requires_grad=True)
            torch.nn.functional.linear(one, one).sum().backward()
    except (RuntimeError, NotImplementedError) as error:
        raise ConfigError(
            f"device '{device}' cannot compute in {str(dtype).removeprefix('torch.')} (torch "
            f"{torch.__version__}). Save the checkpoint in bfloat16 or float32, or take another "
            "device with --device."
        ) from error


def relative_matmul_time(dtype: str) -> float:
    """How many times as long as in 32 bits a product of matrices takes here in that dtype."""

    def seconds(kind: torch.dtype) -> float:
        one = torch.ones(256, 1024, dtype=kind)
        other = torch.ones(1024, 1024, dtype=kind)
        taken = []
        for _ in range(5):
            started = time.perf_counter()
            torch.mm(one, other)
            taken.append(time.perf_counter() - started)
        return min(taken)

    return seconds(getattr(torch, dtype)) / seconds(torch.float32)
