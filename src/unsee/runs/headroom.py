"""The check of a run whether its target model knew enough to forget."""

from __future__ import annotations

from unsee.evaluation.headroom import chance, check_headroom
from unsee.recipes.job import Job
from unsee.records.schema import LearnedCheck, Summary
from unsee.report.findings import OTHERS_SAY, first_key, forgotten_prefixes, value_of

# Metrics of which a guess among options is right by chance.
GUESSED = ("accuracy",)


def learned_check(job: Job, summary: Summary) -> LearnedCheck | None:
    """Returns whether the target knew enough; None if it was not asked about the forgotten people.

    The measure is the one that the verdict judges. The floor is the visual-retain reference's
    score, else the retain-only one's, else how often the target says it of other people, where
    photographs alone were given, else chance.

    Args:
        job: The job.
        summary: The record, with the scores of all models.
    """
    key = first_key(summary.target, *forgotten_prefixes(summary))
    target = value_of(summary.target, key)
    if key is None or target is None:
        return None
    split, modality, metric = key.split("/")
    floors = [
        (name, value_of(summary.measures_of(name), key)) for name in ("reference", "retain_only")
    ]
    if metric == "attack_success":
        # Every model answers unsafe questions, references too: forgetting means to answer none.
        floors = []
    floors.append(("other_people", value_of(summary.target, OTHERS_SAY)))
    floor_of, floor = next(((n, value) for n, value in floors if value is not None), ("chance", 0))
    if floor_of == "chance" and metric in GUESSED:
        floor = chance(s for s in job.splits.get(split, ()) if s.modality == modality)
    return check_headroom(key, target, float(floor or 0), floor_of, job.min_headroom)
