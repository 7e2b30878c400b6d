"""Provenance of a run: versions, machine, seed and hashes."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import torch

from unsee import __version__
from unsee.records.schema import Provenance


def provenance(seed: int, device: str, **fields: object) -> Provenance:
    """Versions, machine and commit of this process.

    Args:
        seed: Seed of the run.
        device: Device of the models, such as "cpu" or "cuda:0".
        fields: Further fields of `Provenance`, such as hashes of data and weights.
    """
    commit, dirty = _commit()
    return Provenance.model_validate(
        {
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
            **fields,
        }
    )


def describe_machine(made_on: Provenance) -> str:
    """Machine, threads and versions in a line, for pages."""
    plural = "s" if (made_on.threads or 0) > 1 else ""
    return (
        f"{made_on.platform}, {made_on.cpu}, {made_on.threads} thread{plural} a model (unsee "
        f"{made_on.unsee}, torch {made_on.torch}, transformers {made_on.transformers})"
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
