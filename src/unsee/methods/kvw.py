"""Knowledge vector weakening: scale down what MLP neurons write where the forget set uses them."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, ClassVar

import torch
import torch.nn.functional as F
from pydantic import Field

from unsee.data.selection import evenly_spaced
from unsee.errors import ConfigError, TrainingError
from unsee.features.neurons import (
    MLP,
    batches_by_modality,
    find_mlps,
    neuron_counts,
    neuron_hooks,
)
from unsee.losses import IGNORE
from unsee.methods import METHODS, Method, Search
from unsee.training.state import TrainingHistory
from unsee.training.trainer import Trainer, TrainingResult
from unsee.types import Part

if TYPE_CHECKING:
    from torch import Tensor

    from unsee.models.vlm import VLM
    from unsee.types import Data, Sample

EPS = 1e-12


def weakening(forget: Tensor, retain: Tensor, gamma: float) -> Tensor:
    """Returns exp(-gamma max(0, ln forget - ln retain)): 1 where the retain set uses it as much.

    Args:
        forget: Knowledge coefficients on the forget set [channels].
        retain: Knowledge coefficients on the retain set [channels].
        gamma: How fast a neuron is weakened.
    """
    excess = (forget.clamp(min=EPS).log() - retain.clamp(min=EPS).log()).clamp(min=0)
    return (-gamma * excess).exp()


@torch.no_grad()
def knowledge_coefficients(
    vlm: VLM, samples: Sequence[Sample], layers: Sequence[MLP], size: int
) -> dict[str, Tensor]:
    """Returns the mean absolute activation at tokens that predict an answer's, by outer module.

    Args:
        vlm: The model.
        samples: Questions with answers.
        layers: The LLM's MLPs.
        size: Batch size.
    """
    total: dict[str, Tensor] = {}
    count = 0
    for batch in batches_by_modality(vlm, samples, size):
        predicts = F.pad(batch.labels[:, 1:] != IGNORE, (0, 1))
        count += int(predicts.sum())

        def add(name: str, predicts: Tensor = predicts) -> Callable[[Tensor], None]:
            def see(z: Tensor) -> None:
                total[name] = total.get(name, 0) + z[predicts].abs().double().sum(0)

            return see

        with neuron_hooks(vlm, {layer.outer: add(layer.outer) for layer in layers}):
            vlm.logits(batch)
    return {name: values / max(1, count) for name, values in total.items()}


@METHODS.register("kvw", source="Kim et al., arXiv 2601.21794")
@dataclass(frozen=True)
class KVW(Method):
    """Knowledge vector weakening (KVW): scale down MLP neurons that the forget answers use more.

    For neuron j of an LLM block, kc = mean |a_j| over the tokens that predict an answer's token,
    and W_down[:, j] *= exp(-gamma max(0, ln kc_f - ln kc_r)). kc_r is computed once, kc_f for every
    batch of forget samples, on the model as it is by then. No steps are taken, whatever the
    settings are.

    Source: Kim et al., arXiv 2601.21794, its knowledge coefficients and gate (the equations'
    numbers were not seen).
    Differs: the paper's gamma was not seen. It edits blocks 1 to 25 of 32; ours are the same share
    of the depth.

    Attributes:
        trains: "language" only.
        gamma: How fast a neuron is weakened.
        passes: How often the forget set is gone through.
        first: Depth of the first edited block, 0..1.
        last: Depth of the last edited block, 0..1.
        samples: Largest number of retain samples, spaced evenly.

    Example:
        >>> from unsee import Trainer, TrainingSettings
        >>> from unsee.methods.kvw import KVW
        >>> trainer = Trainer(TrainingSettings(batch_size=2))
        >>> result = KVW(gamma=0.5).unlearn(vlm, data, trainer)
        >>> sorted(result.choices["neurons"]["by_part"])
        ['language']
    """

    needs: ClassVar[frozenset[str]] = frozenset({"forget", "retain", "answers"})
    defaults: ClassVar[Mapping[str, object]] = {"steps": 0}
    training_free: ClassVar[bool] = True
    weights_only: ClassVar[bool] = True
    parts: ClassVar[tuple[Part, ...]] = ("language",)
    # gamma is not stated by its authors: ours.
    search: ClassVar[Search] = {"gamma": (0.25, 0.5, 1.0), "passes": (1, 2, 4)}

    trains: Part = "language"
    gamma: Annotated[float, Field(gt=0)] = 0.5
    passes: Annotated[int, Field(ge=1)] = 1
    first: Annotated[float, Field(ge=0, le=1)] = 0.03
    last: Annotated[float, Field(ge=0, le=1)] = 0.8
    samples: Annotated[int, Field(ge=1)] = 256

    def train(self, vlm: VLM, data: Data, trainer: Trainer) -> TrainingResult:
        """Scales outgoing weights of `vlm` in place, without gradients; see `Method.train`."""
        started = time.perf_counter()
        layers, size = self._layers(vlm), trainer.settings.batch_size
        retain = evenly_spaced([s for s in data.retain if s.answer], self.samples, "floor")
        forget = [s for s in data.forget if s.answer]
        known = knowledge_coefficients(vlm, retain, layers, size)
        factors = {name: torch.ones_like(values) for name, values in known.items()}
        for number in range(self.passes * math.ceil(len(forget) / size)):
            batch = trainer.draw(forget, number, 0)
            used = knowledge_coefficients(vlm, batch, layers, size)
            for name, values in used.items():
                factor = weakening(values, known[name], self.gamma)
                weight = vlm.model.get_submodule(name).weight
                with torch.no_grad():
                    weight.mul_(factor.to(weight))
                factors[name] *= factor
        weakened = {name: factor < 1 for name, factor in factors.items()}
        if not any(bool(neurons.any()) for neurons in weakened.values()):
            raise TrainingError(
                "the forget answers use no neuron more than the retain answers do: nothing would "
                "be forgotten. Type other blocks (first=0 last=1), or another method."
            )
        mean = {name: round(float(factor.mean()), 6) for name, factor in factors.items()}
        history = TrainingHistory(seconds=time.perf_counter() - started)
        choices = {"neurons": neuron_counts(layers, weakened), "mean_factor": mean}
        return TrainingResult(history, choices=choices)

    def _layers(self, vlm: VLM) -> list[MLP]:
        """Returns the MLPs of the edited blocks."""
        mlps = find_mlps(vlm, "language")
        chosen = [m for i, m in enumerate(mlps) if self.first <= i / len(mlps) <= self.last]
        if not chosen:
            raise ConfigError(
                f"first={self.first:g} last={self.last:g} is no block of this model's {len(mlps)}. "
                "Type first=0 last=1 for all."
            )
        return chosen
