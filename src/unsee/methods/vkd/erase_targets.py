"""Erase targets: the features that forget pictures should have after unlearning.

There is one class for each value of `VKD.erase`. A target is made once, from the frozen teacher,
and called for every batch of forget pictures.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from unsee.data.selection import one_sample_per_picture
from unsee.errors import DataError
from unsee.features.capture import Features, Tokens, picture_features
from unsee.methods.vkd.layer_statistics import LayerStatistics
from unsee.methods.vkd.populations import pictures_by_person, pictures_of_nearest
from unsee.models.vlm import VLM
from unsee.types import Picture, Sample

# Mean square of the traits of pocket's people (layer variances), for which VKD's weights are.
TYPICAL_TRAITS = 0.34

# Distance from the teacher beyond which erase=push has no loss (layer variances).
PUSH_MARGIN = 4.0

# Factor of the erase term from which on people count as alike.
ALIKE = 1.5

# Number of people from which on the erase term has its whole weight, and the rate is whole.
ENOUGH_PEOPLE = 3


@dataclass(frozen=True)
class EraseTarget:
    """Target features of forget pictures, by layer.

    Attributes:
        reads_teacher: Whether it is computed from the teacher's features of the same pictures.
    """

    reads_teacher: ClassVar[bool] = False

    def __call__(
        self, inputs: dict[str, Tensor], ids: Sequence[str], features: Features
    ) -> Features:
        """Returns the target features by layer: [pictures, tokens, dim], or a list by picture.

        Args:
            inputs: The visual inputs of the pictures.
            ids: The id of each picture's sample.
            features: The teacher's features of the pictures, by layer; only read where
                `reads_teacher` is set.

        Raises:
            DataError: If a sample has no target.
        """
        raise NotImplementedError

    def penalty(self, distance: Tensor) -> Tensor:
        """Returns the loss of each picture [pictures], given its distance from the target."""
        return distance


@dataclass(frozen=True)
class AnonymousTarget(EraseTarget):
    """erase=anonymous: the teacher's features without what a person's pictures have in common.

    Attributes:
        traits: By group and layer, the mean over the group's pictures less the mean over the
            population [tokens, dim]; [1, dim] where the family does not align pictures.
        groups: Sample id to the number of its group.
        strength: Multiple of the traits that is subtracted. At 1 the mean over the group's pictures
            is moved to the mean over the population.
        weight: Factor of the penalty; see `weight_of_traits`.
    """

    reads_teacher: ClassVar[bool] = True

    traits: Sequence[Mapping[str, Tensor]]
    groups: Mapping[str, int]
    strength: float = 1.0
    weight: float = 1.0

    @property
    def alike(self) -> bool:
        """Whether the weight says that the people differ little, however few they are."""
        return self.weight >= ALIKE * share_of_people(len(self.traits))

    def penalty(self, distance: Tensor) -> Tensor:
        """Returns the distance times `weight`."""
        return self.weight * distance

    def __call__(
        self, inputs: dict[str, Tensor], ids: Sequence[str], features: Features
    ) -> Features:
        """Returns features - strength * traits; see `EraseTarget.__call__`."""
        traits = [self.traits[number] for number in group_numbers(self.groups, ids)]
        # The features may include layers of the frozen prefix, which have no traits.
        return {
            name: self._subtract(tokens, [mine[name] for mine in traits])
            for name, tokens in features.items()
            if name in traits[0]
        }

    def _subtract(self, tokens: Tokens, traits: Sequence[Tensor]) -> Tokens:
        if isinstance(tokens, list):
            pairs = zip(tokens, traits, strict=True)
            return [value - self.strength * mine for value, mine in pairs]
        return tokens - self.strength * torch.stack(list(traits))


@dataclass(frozen=True)
class StrangerTarget(EraseTarget):
    """erase=stranger: the teacher's features of a person that the model was never trained on.

    Attributes:
        teacher: The frozen start model.
        layers: Names of the layers.
        pictures: Pictures of strangers; group n gets picture n, modulo their number.
        groups: Sample id to the number of its group.
    """

    teacher: VLM
    layers: Sequence[str]
    pictures: Sequence[Picture]
    groups: Mapping[str, int]

    def __call__(
        self, inputs: dict[str, Tensor], ids: Sequence[str], features: Features
    ) -> Features:
        """Returns the strangers' features; see `EraseTarget.__call__`.

        Where the family does not align pictures, a stranger's picture may have other tokens: the
        target is then their mean, one token a picture.
        """
        numbers = group_numbers(self.groups, ids)
        images = [self.teacher.image(self.pictures[n % len(self.pictures)]) for n in numbers]
        strangers = self.teacher.collate_pictures(images)
        target = picture_features(self.teacher, strangers, self.layers)
        return {
            name: [v.mean(0, keepdim=True) for v in tokens] if isinstance(tokens, list) else tokens
            for name, tokens in target.items()
        }


@dataclass(frozen=True)
class NeutralTarget(EraseTarget):
    """erase=neutral: the mean features over the population.

    Attributes:
        mean: By layer [tokens, dim]; [1, dim] where the family does not align pictures.
        aligned: Whether the family aligns pictures.
    """

    mean: Mapping[str, Tensor]
    aligned: bool

    def __call__(
        self, inputs: dict[str, Tensor], ids: Sequence[str], features: Features
    ) -> Features:
        """Returns the mean, once for each picture; see `EraseTarget.__call__`."""
        target: Features = {}
        for name, mean in self.mean.items():
            stacked = mean.unsqueeze(0).expand(len(ids), *mean.shape)
            target[name] = stacked if self.aligned else list(stacked)
        return target


@dataclass(frozen=True)
class PushTarget(EraseTarget):
    """erase=push: away from the teacher's own features, up to a margin.

    Attributes:
        variance: Variance of each layer.
        margin: Distance from the teacher beyond which the loss is zero, in layer variances.
    """

    reads_teacher: ClassVar[bool] = True

    variance: Mapping[str, Tensor]
    margin: float = PUSH_MARGIN

    def __call__(
        self, inputs: dict[str, Tensor], ids: Sequence[str], features: Features
    ) -> Features:
        """Returns the teacher's features with noise of 0.1 standard deviations.

        Where the student still equals the teacher, their distance has no gradient; the noise gives
        it one. See `EraseTarget.__call__`.
        """
        return {
            name: self._add_noise(name, tokens)
            for name, tokens in features.items()
            if name in self.variance
        }

    def penalty(self, distance: Tensor) -> Tensor:
        """Returns sqrt(margin) - sqrt(distance), at least 0."""
        # The square root has a gradient near the teacher, where the square's vanishes.
        penalty: Tensor = (self.margin**0.5 - (distance + 1e-6).sqrt()).clamp(min=0)
        return penalty

    def _add_noise(self, name: str, tokens: Tokens) -> Tokens:
        scale = 0.1 * self.variance[name].sqrt()
        if isinstance(tokens, list):
            return [value + scale * torch.randn_like(value) for value in tokens]
        return tokens + scale * torch.randn_like(tokens)


def group_samples(samples: Sequence[Sample]) -> dict[str, int]:
    """Returns sample id to the number of its person, in order of appearance.

    Args:
        samples: Samples to forget; without a concept, each picture is of another person.
    """
    numbers: dict[str, int] = {}
    groups = {}
    for sample in samples:
        source = sample.picture.source if sample.picture else sample.id
        groups[sample.id] = numbers.setdefault(sample.concept or source, len(numbers))
    return groups


def group_numbers(groups: Mapping[str, int], ids: Sequence[str]) -> list[int]:
    """Returns the group number of each id.

    Raises:
        DataError: If an id is in no group.
    """
    missing = [i for i in ids if i not in groups]
    if missing:
        raise DataError(f"sample {missing[0]} has no erase target assigned to it.")
    return [groups[i] for i in ids]


def weight_of_traits(traits: Sequence[Mapping[str, Tensor]], statistics: LayerStatistics) -> float:
    """Returns the factor of the erase term, by how people differ and how many they are.

    The erase term is a squared distance in layer variances, and so is as large as the people differ
    from those whom they are compared with: without a factor, the keep term would outweigh it on
    photographs, which are more alike than drawn faces. It is 1 for traits of `TYPICAL_TRAITS`. The
    power was chosen on photographs of people who are not forgotten in docs/results-photos.md.

    The term is also a mean over pictures, which are of one or two people alone where fewer than
    `ENOUGH_PEOPLE` are to be forgotten. It then weighs less in proportion: else it would take along
    whoever looks like them and is in no set (docs/requests.md).

    Args:
        traits: By group and layer; see `traits_of_groups`.
        statistics: Statistics of the population.

    Returns:
        The factor with one decimal, so that machines that round otherwise have the same: 0.1 to 5.
    """
    sizes = [
        (trait.square().mean() / statistics.variance[name]).item()
        for mine in traits
        for name, trait in mine.items()
    ]
    factor = math.pow(TYPICAL_TRAITS * len(sizes) / max(sum(sizes), 1e-6), 1.5)
    return max(round(min(max(factor, 0.2), 5.0) * share_of_people(len(traits)), 1), 0.1)


def share_of_people(count: int) -> float:
    """Returns the share of the erase term's weight, and of the rate, for a number of people."""
    return min(1.0, count / ENOUGH_PEOPLE)


def traits_of_groups(
    teacher: VLM,
    forget: Sequence[Sample],
    groups: Mapping[str, int],
    layers: Sequence[str],
    statistics: LayerStatistics,
    others: Sequence[Sample] | None = None,
) -> list[dict[str, Tensor]]:
    """Returns each group's traits by layer: its mean less that of whom it is compared with.

    Args:
        teacher: The frozen start model.
        forget: The samples in the groups.
        groups: Sample id to the number of its group; see `group_samples`.
        layers: Names of the layers.
        statistics: Statistics of the population, which the groups are compared with by default.
        others: Samples of people to keep: each group is compared with the nearest of them, by the
            distance between means over pictures and tokens, in layer variances.

    Source: with `others`, after k-Same, Newton et al., IEEE TKDE 17(2), 2005.
    """

    def mean(pictures: Sequence[Picture]) -> Mapping[str, Tensor]:
        return LayerStatistics.of_pictures(teacher, pictures, layers).mean

    def position(means: Mapping[str, Tensor]) -> Tensor:
        """Returns the mean over tokens of all layers, wherever in the picture a person shows."""
        return torch.cat([means[n].mean(0) / statistics.variance[n].sqrt() for n in layers])

    people = pictures_by_person(others) if others is not None else []
    positions = [position(mean(pictures)) for pictures in people]
    reference: Mapping[str, Tensor] = statistics.mean
    traits = []
    for number in range(1 + max(groups.values())):
        samples = one_sample_per_picture([s for s in forget if groups[s.id] == number])
        group_mean = mean([s.picture for s in samples if s.picture is not None])
        if positions:
            distances = torch.stack([(position(group_mean) - p).norm() for p in positions])
            reference = mean(pictures_of_nearest(people, distances.tolist()))
        traits.append({n: group_mean[n] - reference[n] for n in layers})
    return traits
