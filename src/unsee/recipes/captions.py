"""Pictures with captions, which an image encoder with a text tower is measured on."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from unsee.data.selection import one_sample_per_picture
from unsee.errors import ConfigError
from unsee.evaluation.captions import CAPTION_METRICS
from unsee.families.encoders import has_text_tower
from unsee.models.checkpoint import peek_config
from unsee.recipes.job import NO_ANSWERS
from unsee.types import Data, Sample

# The fields of a job whose model is compared on captions; rules and tasks are those of answers.
CAPTION_FIELDS: Mapping[str, Any] = {
    "metrics": CAPTION_METRICS,
    "tasks": {},
    "rules": {},
    "encoder": True,
}


def require_text_tower(model: str | Path) -> None:
    """Refuses an image encoder that embeds no texts.

    Raises:
        ConfigError: If it has no text tower.
    """
    model_type = peek_config(model).get("model_type")
    if not has_text_tower(model_type):
        raise ConfigError(
            f"model {model}: {NO_ANSWERS}, and one of type '{model_type}' has no text tower that "
            "captions could be compared with. Give a CLIP or SigLIP checkpoint, or photographs "
            "alone: `unsee audit --attack probe --model DIR --forget photos/ --retain others/`."
        )


def is_caption(sample: Sample) -> bool:
    """Whether a sample is a picture with its caption."""
    return sample.task == "caption" and sample.picture is not None and bool(sample.answer)


def captions(samples: Iterable[Sample], name: str, path: str) -> list[Sample]:
    """Returns the pictures with captions among the samples of a split.

    Args:
        samples: The samples.
        name: The split's name.
        path: Where it was read from.

    Raises:
        ConfigError: If there is none.
    """
    found = [sample for sample in samples if is_caption(sample)]
    if not found:
        raise ConfigError(
            f"the {name} set {path} has no captions, and {NO_ANSWERS}. Give a table with the "
            "columns image, question, answer (the caption), concept, and task with the value "
            "caption; or salmubench:forget@DIR."
        )
    return found


def photographs_alone(samples: Sequence[Sample]) -> list[Sample]:
    """Returns one sample a picture, without question and answer."""
    return [
        replace(
            sample,
            question="",
            answer="",
            paraphrases=(),
            perturbed=(),
            choices=(),
            keywords=(),
            task="generation",
        )
        for sample in one_sample_per_picture(samples)
    ]


def without_captions(data: Data) -> Data:
    """Returns the data of a method that trains an image encoder: photographs alone."""
    return replace(
        data,
        forget=photographs_alone(data.forget),
        retain=photographs_alone(data.retain),
        text_only=(),
    )
