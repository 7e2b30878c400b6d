"""Sculpted memory forgetting: train abstention, then undo changes that would harm retention."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

import torch
from pydantic import Field

from unsee.data.selection import evenly_spaced
from unsee.errors import TrainingError
from unsee.losses import nll
from unsee.methods import METHODS, Method, Search
from unsee.methods.abstention import ABSTENTIONS, tokenizable, with_abstentions
from unsee.training.trainer import Trainer, TrainingResult

if TYPE_CHECKING:
    from torch import Tensor

    from unsee.models.vlm import VLM
    from unsee.types import Batch, Data


def conflicts(forgetting: Tensor, anchor: Tensor, k: float, eps: float = 1e-12) -> Tensor:
    """Returns where a change is opposite to the anchor's, and dominant: bool, shaped as the weight.

    dW_a dW_f < 0 and k rho |dW_a| < |dW_f|, rho = ||dW_f|| / (||dW_a|| + eps).

    Args:
        forgetting: Change of a weight tensor by training on abstentions (dW_f).
        anchor: Change of the same weights by training on retain samples (dW_a).
        k: How dominant it must be.
        eps: Keeps rho finite.
    """
    rho = forgetting.norm() / (anchor.norm() + eps)
    return torch.logical_and(anchor * forgetting < 0, k * rho * anchor.abs() < forgetting.abs())


@METHODS.register("smfa", source="Zeng et al., arXiv 2511.20196")
@dataclass(frozen=True)
class SMFA(Method):
    """Sculpted memory forgetting adapter (SMFA): abstention without changes that harm retention.

    dW_f is the change of weights by training on abstentions and a few retain samples, dW_a that by
    training on the retain samples only. Entries where `conflicts` holds are reset to the start.

    Source: Zeng et al., arXiv 2511.20196, the method's two stages: L_f, C, R and M = C * R.
    Differs: both trainings run in the same steps, with one limit to the gradient norm. With LoRA,
    the changes are those of the weights after merging the adapters. The number of retain samples
    and the phrases are ours; rho is computed for each weight tensor.

    Attributes:
        k: How dominant a conflicting change must be to be reset; larger values forget more.
        retain_samples: Largest number of retain samples for both trainings, spaced evenly.
        w_retain: Weight of the retain samples in the training on abstentions.
        abstentions: The answers to draw from; those with unknown tokens are left out.

    Example:
        >>> from unsee import Trainer, TrainingSettings
        >>> from unsee.methods.smfa import SMFA
        >>> trainer = Trainer(TrainingSettings(steps=1, batch_size=2))
        >>> result = SMFA(k=10).unlearn(vlm, data, trainer)
        >>> sorted(result.history.last)
        ['anchor', 'forget', 'retain']
    """

    needs: ClassVar[frozenset[str]] = frozenset({"forget", "retain", "answers"})
    search: ClassVar[Search] = {"lr": (5e-5, 1e-4, 2e-4), "k": (2.5, 5.0, 10.0)}
    aliases: ClassVar[Mapping[str, str]] = {"lambda_r": "w_retain", "few": "retain_samples"}

    k: Annotated[float, Field(ge=0)] = 5.0
    retain_samples: Annotated[int, Field(ge=1)] = 256
    w_retain: Annotated[float, Field(ge=0)] = 1.0
    abstentions: tuple[str, ...] = ABSTENTIONS

    def train(self, vlm: VLM, data: Data, trainer: Trainer) -> TrainingResult:
        """Changes the weights of `vlm` in place; see `Method.train`."""
        vlm.model.requires_grad_(False)
        phrases = tokenizable(vlm, self.abstentions)
        few = evenly_spaced(data.retain, self.retain_samples)
        twin, weights = vlm.copy(), vlm.parameters(self.trains)
        start = {n: p.detach().clone() for n, p in weights.items()}
        anchors = twin.parameters(self.trains)
        twin_adapters = trainer.add_adapters(twin, anchors)
        adapters = trainer.add_adapters(vlm, weights)
        trained = dict(weights if adapters is None else adapters.parameters)
        anchors = anchors if twin_adapters is None else twin_adapters.parameters
        trained |= {f"anchor.{name}": parameter for name, parameter in anchors.items()}

        def step(number: int) -> Mapping[str, Tensor]:
            asked = trainer.draw(data.forget, number, 0)
            forget = vlm.collate(with_abstentions(asked, phrases, (trainer.settings.seed, number)))
            retain = vlm.collate(trainer.draw(few, number, 1))
            anchor = nll(twin.logits(retain), retain.labels)
            return self.loss(vlm, forget, retain, None) | {"anchor": anchor}

        result = trainer.fit(vlm, trained, step, adapters=adapters)
        if twin_adapters is not None:
            twin_adapters.merge()
        # The masked change is no product of two small matrices, so no adapter can hold it.
        return replace(result, adapters=None, choices={"mask": self._sculpt(vlm, twin, start)})

    def loss(
        self, student: VLM, forget: Batch, retain: Batch | None, teacher: VLM | None
    ) -> dict[str, Tensor]:
        """Returns the NLL of the abstentions in `forget`, and w_retain L_r, in nats a token."""
        terms = {"forget": nll(student.logits(forget), forget.labels)}
        if retain is not None:
            terms["retain"] = self.w_retain * nll(student.logits(retain), retain.labels)
        return terms

    @torch.no_grad()
    def _sculpt(self, vlm: VLM, twin: VLM, start: Mapping[str, Tensor]) -> dict[str, Any]:
        """Resets conflicting weights in place; returns how many changed ones stayed, by part."""
        record: dict[str, Any] = {}
        visual, anchors = vlm.parameters("visual"), twin.parameters(self.trains)
        for name, weight in vlm.parameters(self.trains).items():
            change = weight - start[name]
            vetoed = conflicts(change, anchors[name] - start[name], self.k)
            weight.copy_(torch.where(vetoed, start[name], weight))
            mine = record.setdefault(
                "visual" if name in visual else "language", {"chosen": 0, "of": 0}
            )
            mine["chosen"] += int(((change != 0) & ~vetoed).sum())
            mine["of"] += int((change != 0).sum())
        if not any(part["chosen"] for part in record.values()):
            raise TrainingError(
                f"k={self.k:g} leaves no changed weight: nothing would be forgotten. Type a larger "
                "k (the paper has 2.5 to 10), or more steps."
            )
        return record
