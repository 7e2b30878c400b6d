"""Ssiuu: a forget loss that may not make neurons work against the true answer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, ClassVar

import torch
from pydantic import Field
from torch.nn.attention import SDPBackend, sdpa_kernel

from unsee.errors import ConfigError
from unsee.features.neurons import MLP, find_mlps, neuron_hooks
from unsee.losses import sequence_nll
from unsee.methods import METHODS, Search
from unsee.methods.base_loss import WithForgetLoss
from unsee.training.trainer import refuse_sharding

if TYPE_CHECKING:
    from torch import Tensor

    from unsee.models.vlm import VLM
    from unsee.training.settings import TrainingSettings
    from unsee.types import Batch, Data


def attributions(
    vlm: VLM, batch: Batch, layers: Sequence[MLP], differentiable: bool = False
) -> Tensor:
    """Returns A_i = h_i dP(y|x)/dh_i of neurons, summed over tokens [batch, neurons].

    P is the geometric mean of the answer tokens' probabilities.

    Args:
        vlm: The model.
        batch: Questions with answers.
        layers: The MLPs of the neurons.
        differentiable: Whether the result has a gradient.
    """
    hidden: list[Tensor] = []

    def keep(z: Tensor) -> Tensor | None:
        if z.requires_grad:
            hidden.append(z)
            return None
        # Nothing before it is trained; the gradient still has to reach it.
        hidden.append(z.detach().requires_grad_(True))
        return hidden[-1]

    # Only plain attention can be differentiated twice.
    with torch.enable_grad(), sdpa_kernel(SDPBackend.MATH):
        with neuron_hooks(vlm, dict.fromkeys((layer.outer for layer in layers), keep)):
            chance = (-sequence_nll(vlm.logits(batch), batch.labels)).exp()
        gradients = torch.autograd.grad(chance.sum(), hidden, create_graph=differentiable)
        parts = [(h * g).sum(1) for h, g in zip(hidden, gradients, strict=True)]
    values = torch.cat(parts, dim=-1)
    return values if differentiable else values.detach()


def spurious(now: Tensor, before: Tensor) -> Tensor:
    """Returns sum over neurons with A_i < 0 of |A_i - A0_i|, averaged over rows.

    Args:
        now: The student's attributions [batch, neurons].
        before: Those of the start model [batch, neurons].
    """
    return ((now - before).abs() * (now.detach() < 0)).sum(-1).mean()


@METHODS.register("ssiuu", source="Yang et al., arXiv 2509.22263")
@dataclass(frozen=True)
class Ssiuu(WithForgetLoss):
    """Ssiuu: a forget loss that may not hide an answer behind neurons that suppress it.

    L = L_base + w_spurious sum_{i: A_i < 0} |A_i - A0_i|, A_i = h_i dP(y|x)/dh_i on the forget
    answers, i the MLP neurons of the LLM, A0 those of the start model.

    Source: Yang et al., arXiv 2509.22263, its attribution-guided regularization (the equation's
    number was not seen).
    Differs: the paper compares with the step before; we compare with the start model, so that small
    steps cannot add up, and a step depends on nothing but the weights. P is the geometric mean over
    an answer's tokens, and A_i the sum over all tokens. The paper's weight was not seen.

    Attributes:
        w_spurious: Weight of the attributions' term.

    Example:
        >>> from unsee import Trainer, TrainingSettings
        >>> from unsee.methods.ssiuu import Ssiuu
        >>> trainer = Trainer(TrainingSettings(steps=1, batch_size=2))
        >>> result = Ssiuu(w_spurious=0.5).unlearn(vlm, data, trainer)
        >>> sorted(result.history.last)
        ['forget', 'retain', 'spurious']
    """

    needs: ClassVar[frozenset[str]] = frozenset({"forget", "retain", "teacher", "answers"})
    # Not searched by Open-MMUnlearning: ours.
    search: ClassVar[Search] = {
        "lr": (1e-5, 2e-5, 3e-5),
        "beta": (0.6, 0.9, 1.2),
        "w_spurious": (0.1, 1.0, 10.0),
    }

    w_spurious: Annotated[float, Field(ge=0)] = 1.0

    def validate(self, data: Data, settings: TrainingSettings, vlm: VLM | None = None) -> None:
        """Also refuses what cannot be differentiated twice; see `Method.validate`."""
        super().validate(data, settings, vlm)
        refuse_sharding(settings, "ssiuu")
        if settings.attention == "flash_attention_2":
            raise ConfigError(
                "ssiuu differentiates twice, which flash attention cannot. Type attention=auto."
            )
        if settings.checkpointing:
            raise ConfigError(
                "ssiuu reads activations that checkpointing drops. Type checkpointing=false, and a "
                "smaller batch_size with accumulate to save memory."
            )
        if settings.compile:
            raise ConfigError(
                "ssiuu differentiates twice, which compiled blocks cannot. Type compile=false."
            )

    def loss(
        self, student: VLM, forget: Batch, retain: Batch | None, teacher: VLM | None
    ) -> dict[str, Tensor]:
        """Returns the terms of the forget loss (nats), and "spurious"."""
        if teacher is None:
            raise ConfigError("ssiuu needs a teacher.")
        terms = self.forget_terms(student, forget, retain, teacher)
        if self.w_spurious > 0:
            # Found in the teacher, since adapters wrap the student's layers.
            layers = find_mlps(teacher, "language")
            before = attributions(teacher, forget, layers)
            now = attributions(student, forget, layers, differentiable=True)
            terms["spurious"] = self.w_spurious * spurious(now, before)
        return terms
