"""Influential neuron paths: prune the neurons most influential for the forget set."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Annotated, ClassVar
from zlib import crc32

import torch
from pydantic import Field

from unsee.data.selection import evenly_spaced
from unsee.errors import ConfigError
from unsee.features.layers import hidden_states
from unsee.features.neuron_paths import influential_path
from unsee.features.neurons import MLP, find_mlps, neuron_counts, neuron_masks, zero_neurons
from unsee.losses import masked_mse, nll
from unsee.methods import METHODS, Method, Search, copy_start_model
from unsee.methods.rmu import unit_vector
from unsee.training.trainer import Trainer, TrainingResult

if TYPE_CHECKING:
    from torch import Tensor, nn

    from unsee.models.vlm import VLM
    from unsee.training.settings import TrainingSettings
    from unsee.types import Batch, Data


@METHODS.register("mip_editor", source="Li et al., arXiv 2511.06793")
@dataclass(frozen=True)
class MIPEditor(Method):
    """Multimodal influential path editor (MIP-Editor): prune neuron paths, then train them only.

    The most influential neurons of every block, layer by layer: by inter-layer gradient
    integration in the LLM (questions by name), by inter-layer Fisher integration in the encoder
    (questions on forget pictures); see `influential_path`. Their outgoing weights are zeroed, and
    then only their weights are trained: L = ||h_l(x_f) - scale ||h0_l(x_f)|| u||^2
    + gamma ||h_l(x_r) - h0_l(x_r)||^2 + w_retain L_r, u a random unit vector for each sample.

    Source: Li et al., arXiv 2511.06793, equations 3 to 6 and 10 to 16, algorithm 1.
    Differs: a greedy step scores all neurons of a block at once, each as the path's next, from
    gradients at which the whole block is scaled. Activations are blocked by zeroing what reads
    them. The paper states L_r (equation 11) apart from the rest; we minimise the sum. Squares
    are averaged over channels, the answer's probability over its tokens. The number of
    frames m, scale, gamma and l were not seen. Without questions by name, the same questions
    without their picture stand in.

    Attributes:
        trains: "all" edits the paths of encoder and LLM, "visual" or "encoder" only that of the
            encoder, "language" only that of the LLM.
        top_k: Neurons of every block that are on the path.
        frames: Steps of the integral (the paper's m).
        samples: Largest number of forget questions that each path is computed from, spaced evenly.
        layer: Index of the LLM block whose output is misdirected; None is the one at a third of the
            depth.
        scale: Length of a forget sample's target relative to its hidden state (lambda).
        gamma: Weight of the distance from the start model's hidden states on retain samples.
        w_forget: Weight of the misdirection.
        w_retain: Weight of the retain answers' loss.

    Example:
        >>> from unsee import Trainer, TrainingSettings
        >>> from unsee.methods.mip_editor import MIPEditor
        >>> trainer = Trainer(TrainingSettings(steps=1, batch_size=2))
        >>> result = MIPEditor(top_k=2, frames=2, samples=4).unlearn(vlm, data, trainer)
        >>> sorted(result.history.last)
        ['anchor', 'forget', 'retain']
    """

    needs: ClassVar[frozenset[str]] = frozenset({"forget", "retain", "teacher", "answers"})
    weights_only: ClassVar[bool] = True
    search: ClassVar[Search] = {"lr": (1e-4, 5e-4, 1e-3), "top_k": (3, 5, 10)}
    aliases: ClassVar[Mapping[str, str]] = {"lambda_r": "w_retain"}

    top_k: Annotated[int, Field(ge=1)] = 5
    frames: Annotated[int, Field(ge=1)] = 5
    samples: Annotated[int, Field(ge=1)] = 32
    layer: Annotated[int, Field(ge=0)] | None = None
    scale: Annotated[float, Field(gt=0)] = 1.0
    gamma: Annotated[float, Field(ge=0)] = 1.0
    w_forget: Annotated[float, Field(ge=0)] = 1.0
    w_retain: Annotated[float, Field(ge=0)] = 1.0

    def validate(self, data: Data, settings: TrainingSettings, vlm: VLM | None = None) -> None:
        """Also refuses weight decay, which would change other weights; see `Method.validate`."""
        super().validate(data, settings, vlm)
        if settings.weight_decay:
            raise ConfigError(
                "mip_editor trains the weights of single neurons, and weight decay would change "
                "the others too. Type weight_decay=0."
            )

    def train(self, vlm: VLM, data: Data, trainer: Trainer) -> TrainingResult:
        """Changes the weights of `vlm` in place; see `Method.train`."""
        vlm.model.requires_grad_(False)
        teacher = copy_start_model(vlm, self)
        layers = find_mlps(vlm, self.trains)
        chosen = self._paths(vlm, layers, data)
        zero_neurons(vlm, chosen)
        masks = neuron_masks(vlm, layers, chosen)

        def mask(parameters: Mapping[str, nn.Parameter]) -> None:
            for name, parameter in parameters.items():
                if parameter.grad is not None:
                    parameter.grad.mul_(masks[name])

        def step(number: int) -> Mapping[str, Tensor]:
            return self.loss_of_batch(vlm, data, trainer, number, teacher)

        edited = {n: p for n, p in vlm.parameters(self.trains).items() if n in masks}
        result = trainer.fit(vlm, edited, step, gradient=mask)
        return replace(result, choices={"neurons": neuron_counts(layers, chosen)})

    def loss(
        self, student: VLM, forget: Batch, retain: Batch | None, teacher: VLM | None
    ) -> dict[str, Tensor]:
        """Returns the misdirection and anchor terms (mean squares) and w_retain L_r (nats)."""
        if teacher is None or retain is None:
            raise ConfigError("mip_editor needs a teacher and a retain batch.")
        with torch.no_grad():
            lost = hidden_states(teacher, forget, self.layer)
            known = hidden_states(teacher, retain, self.layer)
        units = [unit_vector(lost.shape[-1], (crc32(i.encode()),)) for i in forget.ids]
        goal = self.scale * lost.norm(dim=-1, keepdim=True) * torch.stack(units)[:, None].to(lost)
        h_f, h_r = (hidden_states(student, side, self.layer) for side in (forget, retain))
        away = masked_mse(h_f, goal, forget.inputs["attention_mask"])
        drift = masked_mse(h_r, known, retain.inputs["attention_mask"])
        return {
            "forget": self.w_forget * away,
            "anchor": self.gamma * drift,
            "retain": self.w_retain * nll(student.logits(retain), retain.labels),
        }

    def _paths(self, vlm: VLM, layers: Sequence[MLP], data: Data) -> dict[str, Tensor]:
        """Returns the neurons on each edited path (bool [channels]), by outer module."""
        shown = evenly_spaced(
            [s for s in data.forget if s.picture is not None and s.answer], self.samples, "floor"
        )
        told = evenly_spaced([s for s in data.forget_by_name if s.answer], self.samples, "floor")
        told = told or [replace(s, picture=None, further=()) for s in shown]
        chosen: dict[str, Tensor] = {}
        for part, samples, fisher in (("encoder", shown, True), ("language", told, False)):
            mine = [layer for layer in layers if layer.part == part]
            if mine:
                chosen |= influential_path(
                    vlm, mine, samples, top=self.top_k, frames=self.frames, fisher=fisher
                )
        return chosen
