"""Unlearns pocket's people from pictures alone and scores the result, for two experiments."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from experiments.quality.renaming import names_asked
from unsee.benchmarks.pocket import Pocket
from unsee.data.selection import one_sample_per_picture
from unsee.evaluation.generation import answer_and_score
from unsee.metrics.letters import contains_words
from unsee.models.vlm import VLM
from unsee.recipes.unlearn import make_recipe
from unsee.records.provenance import describe_machine, provenance
from unsee.training.trainer import Trainer
from unsee.types import Data, Picture, Sample

# Column of a row, and pocket's validation split that it is scored on.
SPLITS = {
    "forgotten": "forget_validation",
    "kept people": "retain_validation",
    "general": "general_validation",
    "general, forgotten": "general_forget_validation",
}
BY_NAME = "by name"
# Share of the questions for a forgotten person's name that are answered with that of another of
# the forgotten people.
RENAMED = "renamed"
MEASURES = (*SPLITS, BY_NAME, RENAMED)


def without_answers(samples: Sequence[Sample], most: int | None = None) -> list[Sample]:
    """The pictures of samples, without questions and answers.

    Args:
        samples: The samples.
        most: Largest number of pictures of each person; None is all.
    """
    counts: dict[str | None, int] = {}
    shown = []
    for sample in one_sample_per_picture([s for s in samples if s.picture is not None]):
        counts[sample.concept] = counts.get(sample.concept, 0) + 1
        if most is None or counts[sample.concept] <= most:
            shown.append(replace(sample, question="", answer="", choices=()))
    return shown


def stand_ins(pictures: Sequence[Picture]) -> list[Sample]:
    """Pictures as samples to keep, without a person."""
    return [Sample(picture.source, "", "", picture) for picture in pictures]


def share_right(vlm: VLM, samples: Sequence[Sample]) -> float:
    """The share of the questions without options that are answered exactly."""
    asked = [s for s in samples if not s.choices]
    texts = answer_and_score(vlm, asked, score_answers=False)[0]
    pairs = zip(texts, asked, strict=True)
    return sum(text.strip(" .") == s.answer.strip(" .") for text, s in pairs) / len(asked)


def score(pocket: Pocket, vlm: VLM) -> dict[str, float]:
    """The accuracy of a model by `MEASURES`."""
    scores = {name: share_right(vlm, pocket.load(split)) for name, split in SPLITS.items()}
    by_name = [s for s in pocket.load("forget") if s.picture is None]
    scores |= {BY_NAME: share_right(vlm, by_name), RENAMED: renamed(pocket, vlm)}
    return {name: round(value, 4) for name, value in scores.items()}


def renamed(pocket: Pocket, vlm: VLM) -> float:
    """The share of questions for forgotten people's names that name another of them."""
    asked = [s for s in names_asked(pocket, "forget_validation") if s.task == "generation"]
    texts = answer_and_score(vlm, asked, score_answers=False)[0]
    named = [
        any(contains_words(text, name) for name in pocket.forgotten if name != sample.concept)
        for sample, text in zip(asked, texts, strict=True)
    ]
    return sum(named) / len(named)


def measure(
    pocket: Pocket,
    data: Data,
    values: Mapping[str, Any],
    seed: int,
    steps: int | None,
    further: Callable[[VLM], Mapping[str, float]] | None = None,
) -> dict[str, Any]:
    """Unlearns from pictures alone with VKD, and returns the scores, seconds and machine.

    Args:
        pocket: The benchmark.
        data: Pictures to forget and to keep.
        values: Fields of VKD.
        seed: Seed of the run.
        steps: Number of steps; None is that of the method.
        further: Scores the model on more, by column.
    """
    vlm, start = VLM.load(pocket.checkpoint("target")), time.monotonic()
    chosen = {"supervision": "features", **({"steps": steps} if steps else {})}
    recipe = make_recipe({"method": "vkd", "seed": seed, "set": {**chosen, **values}})
    settings = recipe.training
    recipe.method.unlearn(vlm, data, Trainer(settings))
    seconds = round(time.monotonic() - start, 1)
    return {
        **score(pocket, vlm),
        **(further(vlm) if further is not None else {}),
        "steps": settings.steps,
        "seconds": seconds,
        "machine": describe_machine(provenance(seed, "cpu")),
    }
