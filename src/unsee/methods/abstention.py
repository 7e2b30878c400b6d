"""Abstentions: answers that say nothing, which stand in for the true ones."""

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
    """The phrases that the model's tokenizer can write: those without an unknown token.

    Raises:
        ConfigError: If it can write none of them.
    """
    tokens = vlm.processor.tokenizer
    unknown = tokens.unk_token_id
    found = tuple(
        phrase
        for phrase in phrases
        if unknown is None
        or unknown not in tokens(f" {phrase}", add_special_tokens=False)["input_ids"]
    )
    if not found:
        raise ConfigError(
            f"this model's tokenizer can write none of the {len(phrases)} abstentions, such as "
            f"{phrases[0]!r}. Give phrases of its own words: --set abstentions=[...]."
            if phrases
            else "there is no abstention to answer with. Give some: --set abstentions=[...]."
        )
    return found


def with_abstentions(
    samples: Sequence[Sample], phrases: Sequence[str], seed: Sequence[int]
) -> list[Sample]:
    """The same questions, each answered by an abstention drawn from (seed, position).

    Args:
        samples: Questions with their true answers; these are dropped.
        phrases: What to draw from.
        seed: Decides the draws.
    """
    rng = np.random.default_rng(list(seed))
    return [replace(s, answer=phrases[int(rng.integers(len(phrases)))]) for s in samples]
