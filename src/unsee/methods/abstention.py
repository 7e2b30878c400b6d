"""Abstentions: answers such as "I don't know" that replace the true ones."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from unsee.errors import ConfigError
from unsee.models.vlm import VLM
from unsee.types import Sample

ABSTENTIONS = (
    "I don't know.",
    "I do not know who this is.",
    "I'm not sure.",
    "I have no information about that.",
    "I cannot answer this question.",
    "That is not something I know.",
    "I have no idea.",
    "I am unable to tell.",
)


def tokenizable(vlm: VLM, phrases: Sequence[str]) -> tuple[str, ...]:
    """Returns the phrases that the model's tokenizer encodes without an unknown token.

    Args:
        vlm: The model.
        phrases: Abstentions.

    Raises:
        ConfigError: If there are none.
    """
    tokens = vlm.processor.tokenizer
    unknown = tokens.unk_token_id
    usable = tuple(
        phrase
        for phrase in phrases
        if unknown is None
        or unknown not in tokens(f" {phrase}", add_special_tokens=False)["input_ids"]
    )
    if not usable:
        raise ConfigError(
            f"this model's tokenizer cannot encode any of the {len(phrases)} abstentions, such as "
            f"{phrases[0]!r}. Give phrases of words that it knows: --set abstentions=[...]."
            if phrases
            else "there is no abstention to answer with. Give some: --set abstentions=[...]."
        )
    return usable


def with_abstentions(
    samples: Sequence[Sample], phrases: Sequence[str], seed: Sequence[int]
) -> list[Sample]:
    """Returns the samples with an abstention, drawn from `phrases`, in place of each answer.

    Args:
        samples: Questions with their true answers.
        phrases: Abstentions to draw from.
        seed: Numbers that decide the draws.
    """
    rng = np.random.default_rng(list(seed))
    return [replace(s, answer=phrases[int(rng.integers(len(phrases)))]) for s in samples]
