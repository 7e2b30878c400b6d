"""What guides the distillation: layer scales, and where forget pictures should go."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from unsee.errors import DataError
from unsee.features import (
    Features,
    layer_statistics,
    one_a_picture,
    picture_batches,
    represent,
)
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
        groups: Sample id to the number of its concept (or picture).
        traits: Each group's mean less the population's, by layer [tokens, dim]: what all its
            pictures have in common and others have not.
        strength: Multiple of the traits that an "anonymous" target takes out.
        base: The model before it learned the people.
    """

    layers: list[str]
    statistics: Mapping[str, tuple[Tensor, Tensor]]
    strangers: Sequence[Picture] = ()
    groups: Mapping[str, int] = field(default_factory=dict)
    traits: Sequence[Features] = ()
    strength: float = 1.0
    base: VLM | None = None

    @classmethod
    def from_batch(cls, layers: list[str], teacher: VLM, batch: Batch) -> Guide:
        """Statistics from one batch alone; every target is then the population mean."""
        return cls(layers, layer_statistics(teacher, [teacher.visual_inputs(batch)], layers))

    def grouped(self, forget: Sequence[Sample], by_concept: bool) -> Guide:
        """With forget samples numbered by concept, or by picture, in order of appearance."""
        keys: dict[str, int] = {}
        groups = {}
        for sample in forget:
            source = sample.picture.source if sample.picture else sample.id
            key = (sample.concept or source) if by_concept else source
            groups[sample.id] = keys.setdefault(key, len(keys))
        return replace(self, groups=groups)

    def with_traits(self, teacher: VLM, forget: Sequence[Sample]) -> Guide:
        """With every group's traits, from the teacher's view of its pictures."""
        traits = []
        for number in range(1 + max(self.groups.values())):
            mine = one_a_picture([s for s in forget if self.groups[s.id] == number])
            batches = picture_batches(teacher, [s.picture for s in mine if s.picture is not None])
            means = layer_statistics(teacher, batches, self.layers)
            traits.append({n: means[n][0] - self.statistics[n][0] for n in self.layers})
        return replace(self, traits=traits)

    def variance(self, layer: str) -> Tensor:
        """The layer's variance over pictures and tokens."""
        return self.statistics[layer][1]

    def target(
        self, erase: str, teacher: VLM, inputs: dict[str, Tensor], ids: Sequence[str]
    ) -> Features:
        """Where the forget pictures with these ids should go, by layer.

        Args:
            erase: "anonymous", "stranger", "neutral", "base", or "push" (what to leave: the
                teacher's own).
            teacher: The frozen start model.
            inputs: The visual inputs of the pictures.
            ids: Their samples' ids.

        Raises:
            DataError: If a sample belongs to no group that has a target.
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
        if (erase == "anonymous" and self.traits) or (erase == "stranger" and self.strangers):
            missing = [i for i in ids if i not in self.groups]
            if missing:
                raise DataError(f"sample {missing[0]} has no erase target assigned to it.")
            numbers = [self.groups[i] for i in ids]
            if erase == "stranger":
                strangers = [self.strangers[n % len(self.strangers)] for n in numbers]
                images = [teacher.image(picture) for picture in strangers]
                return represent(teacher, teacher.collate_pictures(images), self.layers)
            known = represent(teacher, inputs, self.layers)
            return {
                name: value - self.strength * torch.stack([self.traits[n][name] for n in numbers])
                for name, value in known.items()
            }
        return {
            name: mean.unsqueeze(0).expand(len(ids), *mean.shape)
            for name, (mean, _) in self.statistics.items()
        }
