"""UNDO: unlearn, mix noise into the weights, and distil the unlearned model's outputs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, ClassVar

import torch
from pydantic import Field

from unsee.errors import ConfigError
from unsee.losses import masked_kl
from unsee.methods import METHODS, Search, copy_start_model
from unsee.methods.base_loss import WithForgetLoss
from unsee.training.trainer import Trainer, TrainingResult

if TYPE_CHECKING:
    from torch import Tensor, nn

    from unsee.models.vlm import VLM
    from unsee.types import Batch, Data


@torch.no_grad()
def shrink_and_perturb(
    parameters: Mapping[str, nn.Parameter], alpha: float, beta: float, seed: int
) -> None:
    """Replaces each weight w by (1 - alpha) w + alpha beta N in place.

    N is drawn as for a new layer (Xavier uniform) for tensors of two dimensions or more, and is 0
    for biases, norms and scalars.

    Args:
        parameters: The weights, by name.
        alpha: Fraction of noise, 0..1.
        beta: Scale of the noise.
        seed: Seed of the noise.
    """
    generator = torch.Generator().manual_seed(seed)
    for value in parameters.values():
        value.mul_(1 - alpha)
        if value.dim() > 1:
            noise = torch.empty(value.shape)
            torch.nn.init.xavier_uniform_(noise, generator=generator)
            value.add_(noise.to(value), alpha=alpha * beta)


@METHODS.register("undo", source="Lee et al., arXiv 2506.06278")
@dataclass(frozen=True)
class UNDO(WithForgetLoss):
    """Unlearn, noise, distil on outputs (UNDO).

    First the start model is unlearned with a forget loss. Its weights are then replaced by
    (1 - alpha) w + alpha beta N, N as in `shrink_and_perturb`, and trained to repeat the unlearned
    model's answers: L = KL(p_unlearned || p) on D_f and D_r, weighted equally.

    Source: Lee et al., arXiv 2506.06278, its three steps; the noise as in the authors' repository.
    Differs: it distils on the forget and retain samples, over answer tokens; the paper on much
    text of its pre-training's kind. `steps` are those of the distillation.

    Attributes:
        alpha: Fraction of noise, 0..1: more is more robust, and takes more steps to repair.
        noise: Scale of the noise (the paper's beta).
        unlearn_steps: Steps of the unlearning before.
        unlearn_lr: Learning rate of the unlearning before; None is `lr`.

    Example:
        >>> from unsee import Trainer, TrainingSettings
        >>> from unsee.methods.undo import UNDO
        >>> trainer = Trainer(TrainingSettings(steps=1, batch_size=2))
        >>> result = UNDO(alpha=0.1, unlearn_steps=1).unlearn(vlm, data, trainer)
        >>> sorted(result.history.last)
        ['forget', 'retain']
    """

    weights_only: ClassVar[bool] = True
    search: ClassVar[Search] = {
        # Rates are not searched by its authors on such models: ours. alpha and noise are theirs.
        "lr": (1e-5, 3e-5, 1e-4),
        "alpha": (0.1, 0.2, 0.4, 0.6, 0.8),
        "noise": (0.1, 0.5, 1.0),
    }

    alpha: Annotated[float, Field(gt=0, le=1)] = 0.2
    noise: Annotated[float, Field(ge=0)] = 0.1
    unlearn_steps: Annotated[int, Field(ge=1)] = 100
    unlearn_lr: Annotated[float, Field(gt=0)] | None = None

    def train(self, vlm: VLM, data: Data, trainer: Trainer) -> TrainingResult:
        """Changes the weights of `vlm` in place; see `Method.train`."""
        vlm.model.requires_grad_(False)
        weights = vlm.parameters(self.trains)
        before = self._unlearn(vlm, data, trainer)
        vlm.model.requires_grad_(False)
        unlearned = vlm.frozen_copy() if self.changes_language else vlm.frozen_visual_copy()
        shrink_and_perturb(weights, self.alpha, self.noise, trainer.settings.seed)

        def step(number: int) -> Mapping[str, Tensor]:
            return self.loss_of_batch(vlm, data, trainer, number, unlearned)

        return trainer.fit(vlm, weights, step).after("unlearning", before)

    def _unlearn(self, vlm: VLM, data: Data, trainer: Trainer) -> TrainingResult:
        """Unlearns `vlm` in place with the forget loss."""
        start = copy_start_model(vlm, self)
        rate = trainer.settings.lr if self.unlearn_lr is None else self.unlearn_lr
        first = trainer.stage("unlearning", steps=self.unlearn_steps, lr=rate)

        def step(number: int) -> Mapping[str, Tensor]:
            batches = self.batches(vlm, data, first, number)
            return self.forget_terms(vlm, batches["forget"], batches.get("retain"), start)

        return first.fit(vlm, vlm.parameters(self.trains), step)

    def loss(
        self, student: VLM, forget: Batch, retain: Batch | None, teacher: VLM | None
    ) -> dict[str, Tensor]:
        """Returns the divergences from the unlearned model on both sets, in nats a token.

        Args:
            student: The model being distilled.
            forget: A batch of samples to forget.
            retain: A batch of samples to keep.
            teacher: The unlearned model.
        """
        if teacher is None or retain is None:
            raise ConfigError("undo needs a teacher and a retain batch.")
        terms = {}
        for name, batch in (("forget", forget), ("retain", retain)):
            with torch.no_grad():
                known = teacher.logits(batch)
            terms[name] = masked_kl(known, student.logits(batch), batch.labels)
        return terms
