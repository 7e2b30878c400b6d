"""What guides the distillation: layer scales, and where forget pictures should go."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from unsee.errors import DataError
from unsee.features import Features, layer_statistics, represent
from unsee.losses import cosine_distance, feature_kl, scaled_mse
from unsee.model import VLM
from unsee.types import Batch, Picture, Sample

Distance = Callable[[Tensor, Tensor, Tensor], Tensor]


def distance_between(name: str) -> Distance:
    """The distance of that name: (h, t, variance of the layer) to one value a picture."""
    named: dict[str, Distance] = {
        "mse": scaled_mse,
        "cosine": lambda h, t, _: cosine_distance(h, t),
        "kl": lambda h, t, _: feature_kl(h, t),
    }
    return named[name]


@dataclass(frozen=True)
class Guide:
    """Layer statistics of the teacher, and the erase target of every forget sample.

    Attributes:
        layers: The layers it knows.
        statistics: Mean [tokens, dim] and variance (scalar) of each layer over the population.
        strangers: Pictures of people the model was never told about.
        assigned: Sample id to the index of its stranger.
        base: The model before it learned the people.
    """

    layers: list[str]
    statistics: Mapping[str, tuple[Tensor, Tensor]]
    strangers: Sequence[Picture] = ()
    assigned: Mapping[str, int] = field(default_factory=dict)
    base: VLM | None = None

    @classmethod
    def from_batch(cls, layers: list[str], teacher: VLM, batch: Batch) -> Guide:
        """Statistics from one batch alone; every target is then the population mean."""
        return cls(layers, layer_statistics(teacher, [teacher.visual_inputs(batch)], layers))

    @classmethod
    def assign(
        cls,
        layers: list[str],
        statistics: Mapping[str, tuple[Tensor, Tensor]],
        strangers: Sequence[Picture],
        forget: Sequence[Sample],
        by_concept: bool,
        base: VLM | None,
    ) -> Guide:
        """Gives every concept, or every picture, a stranger of its own, in order of appearance."""
        keys: dict[str, int] = {}
        assigned = {}
        for sample in forget:
            source = sample.picture.source if sample.picture else sample.id
            key = (sample.concept or source) if by_concept else source
            number = keys.setdefault(key, len(keys))
            if strangers:
                assigned[sample.id] = number % len(strangers)
        return cls(layers, statistics, strangers, assigned, base)

    def variance(self, layer: str) -> Tensor:
        """The layer's variance over pictures and tokens."""
        return self.statistics[layer][1]

    def target(
        self, erase: str, teacher: VLM, inputs: dict[str, Tensor], ids: Sequence[str]
    ) -> Features:
        """Where the forget pictures with these ids should go, by layer.

        Args:
            erase: "stranger", "neutral", "base", or "push" (what to leave: the teacher's own).
            teacher: The frozen start model.
            inputs: The visual inputs of the pictures.
            ids: Their samples' ids.

        Raises:
            DataError: If a stranger is asked for and none was given.
        """
        if erase == "push":
            # Where the student still equals the teacher, a distance has no direction to grow in;
            # a little noise gives it one.
            known = represent(teacher, inputs, self.layers)
            return {
                name: value + 0.1 * self.variance(name).sqrt() * torch.randn_like(value)
                for name, value in known.items()
            }
        if erase == "base" and self.base is not None:
            return represent(self.base, inputs, self.layers)
        if erase == "stranger" and self.strangers:
            missing = [i for i in ids if i not in self.assigned]
            if missing:
                raise DataError(f"sample {missing[0]} has no stranger assigned to it.")
            pictures = [teacher.image(self.strangers[self.assigned[i]]) for i in ids]
            return represent(teacher, teacher.collate_pictures(pictures), self.layers)
        return {
            name: mean.unsqueeze(0).expand(len(ids), *mean.shape)
            for name, (mean, _) in self.statistics.items()
        }
