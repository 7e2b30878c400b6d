"""What a launcher (torchrun, accelerate) says of the processes it started; needs no torch."""

from __future__ import annotations

import os


def world_size() -> int:
    """How many processes a launcher has started; 1 without one."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def first() -> bool:
    """Whether this is the process that speaks and writes, of those that were started."""
    return os.environ.get("RANK", "0") == "0"
