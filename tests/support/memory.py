"""Memory of this process."""

from __future__ import annotations

import re
from pathlib import Path

from torch import Tensor


def resident_bytes(tensor: Tensor) -> int:
    """Returns how many bytes of the memory mapping that holds a tensor are resident."""
    inside = False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        if header := re.match(r"([0-9a-f]+)-([0-9a-f]+) ", line):
            inside = int(header[1], 16) <= tensor.data_ptr() < int(header[2], 16)
        elif inside and line.startswith("Rss:"):
            return 1024 * int(line.split()[1])
    raise AssertionError("no memory mapping holds the tensor")
