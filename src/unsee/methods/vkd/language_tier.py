"""The second tier of VKD: the LLM's MLPs that retrieve an identity from its visual features.

A frozen LLM still answers to the features that the start model had for the forgotten people, so
whoever brings these features back brings the names back. Here the LLM is trained not to answer to
them, before the visual part is trained not to give them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import torch

from unsee.data.selection import evenly_spaced, one_sample_per_picture
from unsee.errors import ConfigError, DataError
from unsee.features.neurons import find_mlps
from unsee.losses import masked_kl
from unsee.methods.npo import NPO
from unsee.methods.pava import (
    ATTRIBUTE_QUESTIONS,
    ask_of_pictures,
    choose_mlps,
    mlp_weights,
    with_own_answers,
)
from unsee.training.trainer import Trainer, TrainingResult
from unsee.types import Sample

if TYPE_CHECKING:
    from torch import Tensor

    from unsee.models.vlm import VLM
    from unsee.types import Batch, Data

STEPS = 200
RATE = 1e-3
LORA = 8  # rank; PAVA's, with alpha twice as large
SHARE = 0.25  # of the MLPs, and
FIRST = 0.06  # the depth of the first that may be chosen; both PAVA's
SAMPLES = 64  # questions that the causal effects are computed from, pictures asked about
W_KEEP = 3.0  # of what is kept by distillation; PAVA's lambda
BETA = 0.9  # inverse temperature of NPO, as VKD's
# Asked about forgotten people by name, beside the questions that the retain set has about others.
NAME_QUESTIONS = ("Who is {name}?", "What do you know about {name}?")


def unlearn_language(vlm: VLM, data: Data, trainer: Trainer) -> TrainingResult:
    """Trains the LLM in place not to answer to the start model's features of forget pictures.

    L = NPO(D_f) + w (KL(p_0 || p) on D_r + KL(p_0 || p) on the start model's own answers to
    questions about forgotten people by name and to questions on what their pictures show). Only
    LoRA adapters on the MLPs with the largest causal indirect effect are trained, and then merged.

    Args:
        vlm: The model; its visual part stays as it is.
        data: What to forget and what to keep.
        trainer: The trainer of the whole run; this is a stage before its training.

    Raises:
        ConfigError: If the LLM has a single block.
        DataError: If no forget picture has an answer.

    Source: after PAVA (2026), see `unsee.methods.pava`.
    Differs: what is kept is distilled, with the retain set and with questions by name among it.
    """
    shown = [s for s in data.forget if s.picture is not None and s.answer]
    if not shown:
        raise DataError(
            "tier=language needs questions and answers about the forget pictures, and there are "
            "none. Give a table with columns image, question, answer, concept, or type tier=visual."
        )
    vlm.model.requires_grad_(False)
    settings = trainer.settings
    lora = {} if settings.lora else {"lora": LORA, "lora_alpha": 2 * LORA}
    stage = trainer.stage("language", steps=STEPS, lr=RATE, **lora)
    some = evenly_spaced(shown, SAMPLES, "floor")
    if len(find_mlps(vlm, "language")) < 2:
        raise ConfigError(
            "tier=language chooses among the LLM's blocks, the first excepted, and this LLM has "
            "one block. Type --tier visual."
        )
    chosen, effects = choose_mlps(vlm, some, SHARE, FIRST, settings.seed)
    pictures = evenly_spaced(one_sample_per_picture(shown), SAMPLES, "floor")
    asked = [*_by_name(shown, data.retain), *ask_of_pictures(pictures, ATTRIBUTE_QUESTIONS)]
    own = with_own_answers(vlm, asked)
    kept = [s for s in data.retain if s.answer]
    npo = NPO(beta=BETA)
    start = vlm.frozen_copy(own=())
    weights = mlp_weights(vlm, chosen)
    adapters = stage.add_adapters(vlm, weights)
    trained = weights if adapters is None else adapters.parameters

    def step(number: int) -> Mapping[str, Tensor]:
        forget = vlm.collate(stage.draw(shown, number, 0))
        terms = npo.loss(vlm, forget, None, start)
        for stream, (name, samples) in enumerate((("retain", kept), ("own", own)), 1):
            if samples:
                batch = vlm.collate(stage.draw(samples, number, stream))
                terms[name] = W_KEEP * _drift(start, vlm, batch)
        return terms

    result = stage.fit(vlm, trained, step, adapters=adapters)
    choices = {
        "mlps": {"chosen": len(chosen), "of": len(effects)},
        "indirect_effect": effects,
        "own_answers": len(own),
    }
    return replace(result, choices=choices)


def _drift(start: VLM, vlm: VLM, batch: Batch) -> Tensor:
    """The divergence of the answers from the start model's, in nats a token."""
    with torch.no_grad():
        known = start.logits(batch)
    return masked_kl(known, vlm.logits(batch), batch.labels)


def _by_name(shown: Sequence[Sample], retain: Sequence[Sample]) -> list[Sample]:
    """Questions about the forgotten people by name alone.

    Those of the retain set's questions without a picture that name their person are asked about
    each forgotten person too.
    """
    named = [
        replace(s, question=s.question.replace(s.concept, "{name}"))
        for s in retain
        if s.picture is None and s.concept and s.concept in s.question and not s.choices
    ]
    asked = dict.fromkeys(s.question for s in evenly_spaced(named, SAMPLES, "floor"))
    questions = dict.fromkeys((*NAME_QUESTIONS, *asked))
    names = dict.fromkeys(s.concept for s in shown if s.concept)
    return [
        Sample(f"{name}/by-name/{i}", question.replace("{name}", name), "", None, name)
        for name in names
        for i, question in enumerate(questions)
    ]
