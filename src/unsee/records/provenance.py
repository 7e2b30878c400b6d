"""Provenance."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from unsee import __version__


def provenance(seed: int, device: str, **hashes: str | None) -> dict[str, Any]:
    """Versions, machine and hashes, as `summary.json` holds them."""
    commit, dirty = _commit()
    return {
        "unsee": __version__,
        "python": platform.python_version(),
        "torch": version("torch"),
        "transformers": version("transformers"),
        "platform": platform.platform(),
        "cpu": _cpu(),
        "threads": torch.get_num_threads(),
        "device": device,
        "commit": commit,
        "dirty": dirty,
        "seed": seed,
        **hashes,
    }


def describe_machine(found: Mapping[str, Any]) -> str:
    """Machine, threads and versions of a `provenance`, as a page names them."""
    threads = f"{found['threads']} thread{'s' if found['threads'] > 1 else ''} a model"
    return (
        f"{found['platform']}, {found['cpu']}, {threads} (unsee {found['unsee']}, torch "
        f"{found['torch']}, transformers {found['transformers']})"
    )


def describe_this_machine() -> str:
    """Operating system, architecture and number of cores, for pages of CPU experiments."""
    return f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores, no GPU"


def peak_memory() -> int | None:
    """Peak memory of this process in bytes: allocated on the GPU if it used one, else resident.

    None where the standard library cannot tell: on Windows, which has no module `resource`.
    """
    if torch.cuda.is_available() and torch.cuda.max_memory_allocated() > 0:
        return int(torch.cuda.max_memory_allocated())
    try:
        import resource
    except ImportError:
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return int(peak if sys.platform == "darwin" else peak * 1024)


def _commit() -> tuple[str | None, bool | None]:
    """Commit of the source tree and whether it has changes; None where it is no git checkout."""
    here = Path(__file__).parent

    def git(*words: str) -> str | None:
        try:
            done = subprocess.run(
                ["git", "-C", str(here), *words], capture_output=True, text=True, check=False
            )
        except OSError:
            return None
        return done.stdout.strip() if done.returncode == 0 else None

    tracked = git("ls-files", "--error-unmatch", __file__)
    commit = git("rev-parse", "HEAD") if tracked else None
    return commit, bool(git("status", "--porcelain")) if commit else None


def _cpu() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text("utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()
