"""The audit of a step: is each of several requests forgotten, and each earlier one still?"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from unsee.artifacts.patch import apply_in_memory
from unsee.evaluation.evaluate import evaluate
from unsee.evaluation.headroom import chance
from unsee.evaluation.open_answers import QUESTIONS
from unsee.files import make_folder
from unsee.models.vlm import VLM
from unsee.progress import Bar
from unsee.recipes.job import Job
from unsee.records.folder import RunFolder
from unsee.requests.decision import floor_of
from unsee.requests.entries import SubjectScore
from unsee.runs.photographs import measure_photographs
from unsee.runs.stage_cache import StageCache
from unsee.types import Data, Sample

# Measures of whether a person is recognised from photographs alone, the deciding one first.
RECOGNISED = ("vqa/said_before", "features/rank_1")


def audit_requests(
    job: Job, patch: Path, requests: Mapping[str, Sequence[Sample]], folder: Path, bar: Bar
) -> dict[str, SubjectScore]:
    """Returns the scores of requests' people after a step, by request.

    Args:
        job: The job of the step; its target is the base model.
        patch: The patch that the step made.
        requests: The samples of each request, from `without_names`.
        folder: A folder for answers and features, which the caller removes: they may name people.
        bar: Shows the progress.
    """
    asked = {n: [s for s in found if s.answer and s.picture] for n, found in requests.items()}
    alone = {name: found for name, found in requests.items() if not asked[name]}
    scores = _answered(job, patch, {n: some for n, some in asked.items() if some}, bar)
    return scores | (_recognised(job, patch, alone, folder, bar) if alone else {})


def _load(job: Job, patch: Path) -> VLM:
    """The model after the step."""
    vlm = replace(job, visual_only=False).load(job.model)
    apply_in_memory(patch, vlm)
    return vlm


def _answered(
    job: Job, patch: Path, asked: Mapping[str, Sequence[Sample]], bar: Bar
) -> dict[str, SubjectScore]:
    """The accuracy of answers about people, of the base model and after the step."""
    if not asked:
        return {}
    stage = bar.stage("asking about each request")
    loaders: dict[str, Callable[[], VLM]] = {
        "base": lambda: job.load(job.references["target"]),
        "after": lambda: _load(job, patch),
    }
    found = {
        name: evaluate(load(), asked, metrics=["accuracy"], on_batch=stage.count).measures
        for name, load in loaders.items()
    }
    scores = {}
    for name, samples in asked.items():
        key = f"{name}/vqa/accuracy"
        after = found["after"][key]
        scores[name] = SubjectScore(
            measure="photographs/vqa/accuracy",
            base=found["base"][key].value,
            after=after.value,
            floor=chance(samples),
            n=after.n,
        )
    return scores


def _recognised(
    job: Job, patch: Path, alone: Mapping[str, Sequence[Sample]], folder: Path, bar: Bar
) -> dict[str, SubjectScore]:
    """How far people are recognised of whom there are photographs alone."""
    samples = [sample for some in alone.values() for sample in some]
    audit = replace(
        job,
        data=Data(samples, job.data.retain, job.data.strangers),
        splits={},
        open_questions=job.open_questions or QUESTIONS,
        visual_only=False,
    )
    run = RunFolder(make_folder(folder))
    results = measure_photographs(audit, _load(job, patch), run, StageCache(run), bar)
    people = {name: {str(s.concept) for s in some} for name, some in alone.items()}
    scores = {}
    for name, own in people.items():
        for measure in RECOGNISED:
            key = f"forget/{measure}"
            base, after = (
                _mean(results.people[model].get(key), own) for model in ("target", "unlearned")
            )
            if after is not None:
                floor = floor_of(measure, results.measures["target"], results.record.chance)
                scores[name] = SubjectScore(
                    measure=key, base=base, after=after, floor=floor, n=len(alone[name])
                )
                break
    return scores


def _mean(scores: object, people: set[str]) -> float | None:
    by_person: Mapping[str, float] = getattr(scores, "by_person", {})
    own = [by_person[person] for person in people if person in by_person]
    return sum(own) / len(own) if own else None
