"""Preference against identities with attributes kept, in the MLPs that retrieve the identity."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

import numpy as np
import torch
from pydantic import Field

from unsee.data.augment import add_noise
from unsee.data.selection import evenly_spaced, one_sample_per_picture
from unsee.errors import ConfigError, DataError, TrainingError
from unsee.evaluation.generation import generate
from unsee.features.neurons import MLP, find_mlps
from unsee.losses import sequence_nll
from unsee.methods import METHODS, Method, Search, copy_start_model
from unsee.methods.npo import NPO
from unsee.training.trainer import Trainer, TrainingResult
from unsee.types import Part

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor, nn

    from unsee.models.vlm import VLM
    from unsee.training.settings import TrainingSettings
    from unsee.types import Batch, Data, Sample

ATTRIBUTE_QUESTIONS = (
    "What color is this person's hair?",
    "What is this person wearing?",
    "What is in the background of this picture?",
    "What does this picture show?",
)
_LEAVES = ("weight", "bias")


@torch.no_grad()
def indirect_effects(
    vlm: VLM, samples: Sequence[Sample], layers: Sequence[MLP], seed: int, size: int = 8
) -> list[float]:
    """Returns the causal indirect effect of each MLP on the answers' probability.

    P(answer | noise in place of the picture, the MLP's output as with the picture) - P(answer |
    noise), averaged over samples; P is the geometric mean over an answer's tokens.

    Args:
        vlm: The model.
        samples: Questions on pictures, with answers.
        layers: The LLM's MLPs.
        seed: Seed of the noise.
        size: Batch size.
    """
    totals = [0.0] * len(layers)
    for start in range(0, len(samples), size):
        rows = samples[start : start + size]
        rng = np.random.default_rng([seed, start])
        noise = partial(add_noise, rng=rng, strength=1.0)
        clean, noised = vlm.collate(rows), vlm.collate(rows, transform=noise)
        outputs: dict[str, Tensor] = {}
        _forward(vlm, clean, {m.outer: partial(outputs.__setitem__, m.outer) for m in layers})
        base = _forward(vlm, noised, {})
        for i, layer in enumerate(layers):
            restored = _forward(vlm, noised, {layer.outer: partial(_first, outputs[layer.outer])})
            totals[i] += float((restored - base).sum())
    return [total / max(1, len(samples)) for total in totals]


def choose_mlps(
    vlm: VLM, samples: Sequence[Sample], share: float, first: float, seed: int
) -> tuple[list[MLP], dict[str, float]]:
    """Returns the LLM's MLPs with the largest indirect effects, and all effects by outer module.

    Args:
        vlm: The model.
        samples: Questions on pictures, with answers.
        share: Share of the MLPs to choose, 0..1; at least one is.
        first: Depth of the first block that may be chosen, 0..1.
        seed: Seed of the noise.

    Raises:
        ConfigError: If `first` leaves no block.
    """
    mlps = find_mlps(vlm, "language")
    allowed = [m for i, m in enumerate(mlps) if i / len(mlps) >= first]
    if not allowed:
        raise ConfigError(
            f"first={first:g} leaves none of this model's {len(mlps)} blocks. Type first=0."
        )
    effects = indirect_effects(vlm, samples, allowed, seed)
    count = min(len(allowed), max(1, round(share * len(mlps))))
    order = sorted(range(len(allowed)), key=lambda i: -effects[i])[:count]
    record = {m.outer: round(e, 6) for m, e in zip(allowed, effects, strict=True)}
    return [allowed[i] for i in sorted(order)], record


def mlp_weights(vlm: VLM, mlps: Sequence[MLP]) -> dict[str, nn.Parameter]:
    """Returns the weights of some of the LLM's MLPs by name.

    Args:
        vlm: The model.
        mlps: The MLPs.
    """
    names = {f"{n}.{leaf}" for m in mlps for n in (m.outer, *m.inner) for leaf in _LEAVES}
    return {n: p for n, p in vlm.parameters("language").items() if n in names}


def attribute_answers(
    vlm: VLM, pictures: Sequence[Sample], questions: Sequence[str]
) -> list[Sample]:
    """Returns questions on what pictures show, with the model's own answers.

    Args:
        vlm: The model.
        pictures: One sample a picture.
        questions: The questions; each is asked about every picture.

    Raises:
        TrainingError: If the model answers none.
    """
    answered = with_own_answers(vlm, ask_of_pictures(pictures, questions))
    if not answered:
        raise TrainingError(
            "the model gives no answer to any attribute question. Give questions that it "
            "answers: --set attribute_questions=[...]."
        )
    return answered


def ask_of_pictures(pictures: Sequence[Sample], questions: Sequence[str]) -> list[Sample]:
    """Returns every question about every picture, without answers.

    Args:
        pictures: One sample a picture.
        questions: The questions.
    """
    return [
        replace(s, id=f"{s.id}/attribute/{i}", question=q, answer="", choices=(), prefill="")
        for s in pictures
        for i, q in enumerate(questions)
    ]


def with_own_answers(vlm: VLM, asked: Sequence[Sample]) -> list[Sample]:
    """Returns samples with what the model answers now; those without an answer are left out.

    Args:
        vlm: The model.
        asked: The questions.
    """
    answers = generate(vlm, asked)
    return [replace(s, answer=a.strip()) for s, a in zip(asked, answers, strict=True) if a.strip()]


def _first(replacement: Tensor, _output: Tensor) -> Tensor:
    return replacement


def _forward(
    vlm: VLM, batch: Batch, by_module: Mapping[str, Callable[[Tensor], Tensor | None]]
) -> Tensor:
    """Returns each answer's probability [batch], passing modules' outputs to functions.

    Args:
        vlm: The model.
        batch: Questions with answers.
        by_module: By module, a function of its output. A tensor that it returns replaces it.
    """
    handles = [
        vlm.model.get_submodule(name).register_forward_hook(
            lambda _module, _inputs, output, see=see: see(output)
        )
        for name, see in by_module.items()
    ]
    try:
        return (-sequence_nll(vlm.logits(batch), batch.labels)).exp()
    finally:
        for handle in handles:
            handle.remove()


@METHODS.register("pava", source="PAVA, 2026")
@dataclass(frozen=True)
class PAVA(Method):
    """PAVA: NPO on the forget answers in a few MLPs, the model's answers on attributes kept.

    L = w_forget NPO(D_f) + w_retain NLL(the start model's own answers to questions on visible
    attributes of the forget pictures). Only the MLPs of the LLM blocks with the largest causal
    indirect effect on the forget answers are trained; see `indirect_effects`. No retain set is
    used.

    Source: after PAVA (2026): its loss, lambda = 3, the top quarter of the decoder's MLPs by causal
    indirect effect, blocks 0 and 1 of 28 and 32 left out. The paper was not seen.
    Differs: the corrupted input is noise in place of the picture, and an MLP's output is restored
    at every token. The questions are ours. The paper trains LoRA adapters (rank 8, alpha 16); so
    do lora=8 lora_alpha=16 here.

    Attributes:
        trains: "language" only.
        beta: Inverse temperature of NPO.
        w_forget: Weight of NPO.
        w_retain: Weight of the answers on attributes (the paper's lambda).
        share: Share of the MLPs that are trained, 0..1.
        first: Depth of the first block that may be chosen, 0..1.
        samples: Largest number of forget questions that the effects are computed from, and of
            pictures that the attribute questions are asked about; each spaced evenly.
        attribute_questions: Questions on what a picture shows, beside who it shows.

    Example:
        >>> from unsee import Trainer, TrainingSettings
        >>> from unsee.methods.pava import PAVA
        >>> trainer = Trainer(TrainingSettings(steps=1, batch_size=2))
        >>> method = PAVA(samples=2, attribute_questions=("What does this person work as ?",))
        >>> sorted(method.unlearn(vlm, data, trainer).history.last)
        ['forget', 'retain']
    """

    needs: ClassVar[frozenset[str]] = frozenset({"forget", "teacher", "answers"})
    # Few weights are trained; at the usual rate little is forgotten.
    defaults: ClassVar[Mapping[str, object]] = {"lr": 1e-3}
    parts: ClassVar[tuple[Part, ...]] = ("language",)
    # Not searched by its authors: ours.
    search: ClassVar[Search] = {
        "lr": (3e-5, 1e-4, 2e-4),
        "w_retain": (1.0, 3.0, 6.0),
        "share": (0.25, 0.5),
    }

    trains: Part = "language"
    beta: Annotated[float, Field(gt=0)] = 0.9
    w_forget: Annotated[float, Field(ge=0)] = 1.0
    w_retain: Annotated[float, Field(ge=0)] = 3.0
    share: Annotated[float, Field(gt=0, le=1)] = 0.25
    first: Annotated[float, Field(ge=0, lt=1)] = 0.06
    samples: Annotated[int, Field(ge=1)] = 64
    attribute_questions: tuple[str, ...] = ATTRIBUTE_QUESTIONS

    def validate(self, data: Data, settings: TrainingSettings, vlm: VLM | None = None) -> None:
        """Also refuses a forget set without pictures, and no questions; see `Method.validate`."""
        super().validate(data, settings, vlm)
        if not any(s.picture is not None and s.answer for s in data.forget):
            raise DataError(
                "pava needs forget pictures with answers, and there are none. Give a table with "
                "columns image, question, answer, concept."
            )
        if not self.attribute_questions:
            raise ConfigError(
                "pava needs questions on visible attributes. Give some: "
                "--set attribute_questions=[...]."
            )

    def train(self, vlm: VLM, data: Data, trainer: Trainer) -> TrainingResult:
        """Changes the weights of `vlm` in place; see `Method.train`."""
        vlm.model.requires_grad_(False)
        teacher = copy_start_model(vlm, self, adapters=trainer.settings.lora > 0)
        shown = [s for s in data.forget if s.picture is not None and s.answer]
        some = evenly_spaced(shown, self.samples, "floor")
        chosen, effects = choose_mlps(vlm, some, self.share, self.first, trainer.settings.seed)
        # The loss's "retain" side is what the start model says of the forget pictures.
        pictures = evenly_spaced(one_sample_per_picture(shown), self.samples, "floor")
        kept = replace(data, retain=attribute_answers(vlm, pictures, self.attribute_questions))
        weights = mlp_weights(vlm, chosen)

        def step(number: int) -> Mapping[str, Tensor]:
            return self.loss_of_batch(vlm, kept, trainer, number, teacher)

        adapters = trainer.add_adapters(vlm, weights)
        trained = weights if adapters is None else adapters.parameters
        result = trainer.fit(vlm, trained, step, adapters=adapters)
        choices = {
            "mlps": {"chosen": len(chosen), "of": len(effects)},
            "indirect_effect": effects,
            "attribute_answers": len(kept.retain),
        }
        return replace(result, choices=choices)

    def batches(self, vlm: VLM, data: Data, trainer: Trainer, number: int) -> Mapping[str, Any]:
        """As in `Method.batches`; "retain" are the answers on attributes."""
        forget = vlm.collate(trainer.draw(data.forget, number, 0))
        return {"forget": forget, "retain": vlm.collate(trainer.draw(data.retain, number, 1))}

    def loss(
        self, student: VLM, forget: Batch, retain: Batch | None, teacher: VLM | None
    ) -> dict[str, Tensor]:
        """Returns the preference term, and w_retain times the answers' loss, in nats."""
        npo = NPO(beta=self.beta, w_forget=self.w_forget, w_retain=self.w_retain)
        return npo.loss(student, forget, retain, teacher)
