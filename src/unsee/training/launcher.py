"""The environment variables that a launcher (torchrun, accelerate) sets; needs no torch."""

from __future__ import annotations

import os


def world_size() -> int:
    """The number of processes that a launcher has started; 1 without a launcher."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def is_main_process() -> bool:
    """Whether this is process 0, which alone prints and writes."""
    return os.environ.get("RANK", "0") == "0"
