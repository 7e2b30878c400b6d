"""References that are asked and attacked by a second process while the first one trains.

A small model trains no faster on two cores than on one, so that the other core would be idle. The
results are the same: both processes have the same number of threads, and share a cache.
"""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from subprocess import DEVNULL, PIPE
from tempfile import TemporaryFile

import torch

from unsee.models.devices import pick_device
from unsee.progress import Bar
from unsee.recipes.job import Job
from unsee.recipes.plan import plan
from unsee.recipes.unlearn import read_recipe
from unsee.records.folder import PARTS, RECIPE, RunFolder
from unsee.runs.reference_cache import ReferenceCache, reference_cache
from unsee.runs.stage_cache import StageCache
from unsee.runs.stages import attack_references, evaluate_models

LOGGER = logging.getLogger("unsee")

# In the folder of a run's parts: what both processes share, and the second one's own.
CACHE, FOLDER = "references", "beside"


@contextmanager
def asked_beside(job: Job, out: Path) -> Iterator[ReferenceCache | None]:
    """Asks and attacks a job's references in a second process, for the length of the block.

    What that process has not finished is computed in this one when it is needed.

    Args:
        job: The job; the run folder has its recipe.
        out: The run folder.

    Yields:
        The cache that both processes share; None if there is one core, or a GPU.
    """
    threads = torch.get_num_threads()
    if threads < 2 or pick_device(job.device) != "cpu" or not job.references:
        yield None
        return
    half = threads // 2
    command = [sys.executable, "-m", __name__, str(out), str(half)]
    environment = os.environ | {"OMP_NUM_THREADS": str(half)}
    # The pipe is closed when this process ends, however it does, and the other ends then too.
    with (
        TemporaryFile("w+") as errors,
        subprocess.Popen(
            command, stdin=PIPE, stdout=DEVNULL, stderr=errors, env=environment
        ) as process,
    ):
        try:
            torch.set_num_threads(half)
            yield reference_cache(job, out / PARTS / CACHE)
            if process.poll():
                errors.seek(0)
                why = (errors.read().strip().splitlines() or ["no message"])[-1]
                LOGGER.warning(
                    "the process that was to ask the references beside the training failed "
                    f"({why}). They were asked afterwards."
                )
        finally:
            process.kill()
            torch.set_num_threads(threads)


def ask(out: Path) -> None:
    """Asks and attacks the references of the run in a folder, and keeps the results in its cache.

    Args:
        out: The run folder, which has a recipe.
    """
    job, _ = plan(read_recipe(out / RECIPE), "run", "")
    shared, vlm = reference_cache(job, out / PARTS / CACHE), job.load(job.model)
    folder, bar = RunFolder(out / PARTS / FOLDER), Bar(None)
    folder.path.mkdir(parents=True, exist_ok=True)
    cache = StageCache(folder, shared, job.references)
    evaluate_models(job, vlm, folder, cache, bar, only=job.references)
    attack_references(job, vlm, cache, bar)


def _end_with_parent() -> None:
    sys.stdin.read()
    os._exit(1)


if __name__ == "__main__":
    threading.Thread(target=_end_with_parent, daemon=True).start()
    torch.set_num_threads(int(sys.argv[2]))
    ask(Path(sys.argv[1]))
