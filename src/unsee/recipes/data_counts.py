"""How much data a job has: samples, pictures and people of every set, for the first lines of it."""

from __future__ import annotations

from collections.abc import Sequence

from unsee.errors import counted
from unsee.recipes.job import Job
from unsee.types import Sample


def data_counts(job: Job) -> list[str]:
    """Sentences that say what a job trains on, and what it asks.

    Args:
        job: The job.
    """
    trained: dict[str, Sequence[Sample]] = {}
    if job.method is not None:
        trained = {"forget": job.data.forget, "retain": job.data.retain}
    lines = [f"Trains on {name}: {count(samples)}." for name, samples in trained.items() if samples]
    if job.method is not None and job.data.strangers:
        lines.append(f"Compares with {counted(len(job.data.strangers), 'picture')} of strangers.")
    lines += [f"Asks {name}: {count(samples)}." for name, samples in job.splits.items()]
    return lines


def count(samples: Sequence[Sample]) -> str:
    """The number of samples, pictures and people.

    Args:
        samples: The samples of a set.

    Example:
        >>> count([Sample("1", "Who is this?", "Ada", concept="Ada")])
        '1 sample, 0 pictures, 1 person'
    """
    pictures = {picture.source for sample in samples for picture in sample.pictures}
    people = {sample.concept for sample in samples if sample.concept}
    return ", ".join(
        (
            counted(len(samples), "sample"),
            counted(len(pictures), "picture"),
            counted(len(people), "person", "people"),
        )
    )
