"""Modality-aware neuron unlearning: prune MLP neurons that matter mainly for the forget set."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from pydantic import Field

from unsee.data.selection import evenly_spaced
from unsee.features.neurons import MLP, Activity, activity, find_mlps, neuron_counts, zero_neurons
from unsee.features.saliency import choose_neurons
from unsee.methods import METHODS, Method, Search
from unsee.training.state import TrainingHistory
from unsee.training.trainer import Trainer, TrainingResult

if TYPE_CHECKING:
    from torch import Tensor

    from unsee.models.vlm import VLM
    from unsee.types import Data, Sample

EPS = 1e-6


def importance(
    shown: Activity, told: Activity, frequency: Literal["count", "share"] = "count"
) -> Tensor:
    """Returns how differently a layer's neurons respond to pictures and to text [channels].

    |Zm - Zt| / (Zm + Zt) + |Nm - Nt| / (Nm + Nt) + sqrt(Vm + Vt) + sqrt(|Em - Et| / (Em + Et)).

    Args:
        shown: Activity on questions with a picture (m).
        told: Activity on questions without a picture (t).
        frequency: Whether N is the number of tokens at which a neuron is active, or their share.
    """

    def unlike(m: Tensor, t: Tensor) -> Tensor:
        return (m - t).abs() / (m + t + EPS)

    spread = (shown.variance + told.variance).sqrt()
    often = unlike(getattr(shown, frequency), getattr(told, frequency))
    energy = unlike(shown.energy, told.energy).sqrt()
    return unlike(shown.mean, told.mean) + often + spread + energy


@METHODS.register("manu", source="Liu et al., arXiv 2502.15910")
@dataclass(frozen=True)
class MANU(Method):
    """Modality-aware neuron unlearning (MANU): prune neurons that mainly the forget set uses.

    S_n = I(D_f, n) / (I(D_r, n) + eps), I as in `importance`; the outgoing weights of the top
    share of neurons are zeroed. No steps are taken, whatever the settings are.

    Source: Liu et al., arXiv 2502.15910, its importance functions, score and pruning (the
    equations' numbers were not seen).
    Differs: the top share is taken in the encoder and in the LLM each, since their scores have
    different scales; the encoder does not run without a picture, so its activations are then 0.
    How the paper words the text-only questions was not seen: ours are the data's questions by
    name, or, where there are none, the same questions without their picture. The authors' code
    weighs the four terms and looks at the last three layers; we follow the paper.

    Attributes:
        trains: "all" prunes encoder and LLM, "visual" or "encoder" only the encoder, "language"
            only the LLM.
        prune: Share of the neurons that are pruned, 0..1 (the paper's alpha, 0.02 to 0.1).
        tau: Absolute activation above which a neuron counts as active.
        frequency: How often a neuron is active: the "count" of tokens, as the paper defines it, or
            their "share", which does not depend on how many tokens pictures and texts have.
        samples: Largest number of questions of each set, spaced evenly.

    Example:
        >>> from unsee import Trainer, TrainingSettings
        >>> from unsee.methods.manu import MANU
        >>> trainer = Trainer(TrainingSettings(batch_size=2))
        >>> result = MANU(prune=0.1).unlearn(vlm, data, trainer)
        >>> sorted(result.choices["neurons"]["by_part"])
        ['encoder', 'language']
    """

    needs: ClassVar[frozenset[str]] = frozenset({"forget", "retain", "answers"})
    defaults: ClassVar[Mapping[str, object]] = {"steps": 0}
    training_free: ClassVar[bool] = True
    weights_only: ClassVar[bool] = True
    search: ClassVar[Search] = {"prune": (0.02, 0.05, 0.1)}

    prune: Annotated[float, Field(gt=0, lt=1)] = 0.05
    tau: Annotated[float, Field(ge=0)] = 0.1
    frequency: Literal["count", "share"] = "count"
    samples: Annotated[int, Field(ge=1)] = 256

    def train(self, vlm: VLM, data: Data, trainer: Trainer) -> TrainingResult:
        """Zeroes outgoing weights of `vlm` in place, without gradients; see `Method.train`."""
        started = time.perf_counter()
        layers = find_mlps(vlm, self.trains)
        others_told = [s for s in data.retain if s.picture is None]
        forget = self._scores(vlm, layers, data.forget, data.forget_by_name)
        retain = self._scores(vlm, layers, data.retain, others_told)
        chosen: dict[str, Tensor] = {}
        for part in dict.fromkeys(layer.part for layer in layers):
            names = [layer.outer for layer in layers if layer.part == part]
            theirs, others = ({n: side[n] for n in names} for side in (forget, retain))
            chosen |= choose_neurons(theirs, others, self.prune)
        zero_neurons(vlm, chosen)
        history = TrainingHistory(seconds=time.perf_counter() - started)
        return TrainingResult(history, choices={"neurons": neuron_counts(layers, chosen)})

    def _scores(
        self, vlm: VLM, layers: Sequence[MLP], samples: Sequence[Sample], told: Sequence[Sample]
    ) -> dict[str, Tensor]:
        """Returns the importance of each layer's neurons for a set, by outer module."""
        shown = evenly_spaced(
            [s for s in samples if s.picture is not None and s.answer], self.samples, "floor"
        )
        told = evenly_spaced([s for s in told if s.answer], self.samples, "floor")
        told = told or [replace(s, picture=None, further=()) for s in shown]
        with_picture = activity(vlm, shown, layers, self.tau)
        without = activity(vlm, told, layers, self.tau)
        return {
            name: importance(with_picture[name], without[name], self.frequency)
            for name in with_picture
        }
