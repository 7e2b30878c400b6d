"""Representation misdirection: move forget samples' hidden states to a random vector."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

import torch
from pydantic import Field

from unsee.errors import ConfigError
from unsee.features.layers import hidden_states
from unsee.losses import masked_mse
from unsee.methods import METHODS, Method, Search
from unsee.training.trainer import Trainer

if TYPE_CHECKING:
    from torch import Tensor

    from unsee.models.vlm import VLM
    from unsee.types import Batch, Data


def unit_vector(dim: int, seed: Sequence[int]) -> Tensor:
    """Returns a random unit vector [dim].

    Args:
        dim: Its length.
        seed: Numbers that decide the draw.

    Differs: RMU draws its entries uniformly from 0 to 1; a normal draw has no common direction.
    """
    mixed = sum(value * 1_000_003**power for power, value in enumerate(seed)) % 2**63
    vector = torch.randn(dim, generator=torch.Generator().manual_seed(mixed))
    return torch.nn.functional.normalize(vector, dim=0)


@METHODS.register("rmu", source="Li et al., arXiv 2403.03218")
@dataclass(frozen=True)
class RMU(Method):
    """Representation misdirection (RMU): move forget samples' hidden states to a random vector.

    L = ||h_l(x_f) - c u||^2 + w_retain ||h_l(x_r) - h0_l(x_r)||^2, u a fixed random unit vector,
    h_l an LLM block's output at every token except padding.

    Source: Li et al., arXiv 2403.03218, its forget and retain losses (their numbers were not seen).
    Differs: squares are averaged over channels, as in the authors' code; any choice of parts is
    trained, where the paper trains the MLPs of layers l-2 to l.

    Attributes:
        layer: Index of the LLM block; None is the one at a third of the depth.
        c: Length of the target vector of forget samples.
        w_forget: Weight of the forget term.
        w_retain: Weight of the retain term.

    Example:
        >>> from unsee import Trainer, TrainingSettings
        >>> from unsee.methods.rmu import RMU
        >>> trainer = Trainer(TrainingSettings(steps=1, batch_size=2))
        >>> result = RMU(c=5).unlearn(vlm, data, trainer)
        >>> sorted(result.history.last)
        ['forget', 'retain']
    """

    needs: ClassVar[frozenset[str]] = frozenset({"forget", "retain", "teacher", "answers"})
    search: ClassVar[Search] = {"lr": (1e-5, 2e-5, 3e-5), "c": (1.0, 10.0, 100.0)}
    aliases: ClassVar[Mapping[str, str]] = {"lambda_r": "w_retain"}

    layer: Annotated[int, Field(ge=0)] | None = None
    c: Annotated[float, Field(gt=0)] = 10.0
    w_forget: Annotated[float, Field(ge=0)] = 1.0
    w_retain: Annotated[float, Field(ge=0)] = 1.0

    def batches(self, vlm: VLM, data: Data, trainer: Trainer, number: int) -> Mapping[str, Any]:
        """Also returns "seed", which decides the vector; see `Method.batches`."""
        batches = super().batches(vlm, data, trainer, number)
        return {**batches, "seed": trainer.settings.seed}

    def loss(
        self,
        student: VLM,
        forget: Batch,
        retain: Batch | None,
        teacher: VLM | None,
        seed: int = 0,
    ) -> dict[str, Tensor]:
        """Returns the weighted mean squared distances; `seed` decides the vector."""
        if teacher is None or retain is None:
            raise ConfigError("rmu needs a teacher and a retain batch.")
        h = hidden_states(student, forget, self.layer)
        goal = self.c * unit_vector(h.shape[-1], (seed,)).to(h.device)
        with torch.no_grad():
            known = hidden_states(teacher, retain, self.layer)
        away = masked_mse(h, goal.expand(len(h), 1, -1), forget.inputs["attention_mask"])
        mask = retain.inputs["attention_mask"]
        drift = masked_mse(hidden_states(student, retain, self.layer), known, mask)
        return {"forget": self.w_forget * away, "retain": self.w_retain * drift}
