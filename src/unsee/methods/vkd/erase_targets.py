"""What guides the distillation: layer scales, and where forget pictures should go."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from unsee.data.selection import one_sample_per_picture
from unsee.errors import DataError
from unsee.features.capture import (
    Features,
    Tokens,
    capture,
    layer_outputs,
    picture_features,
    split_by_picture,
)
from unsee.features.pictures import picture_batches
from unsee.features.statistics import layer_statistics
from unsee.methods.vkd.feature_cache import FeatureCache
from unsee.methods.vkd.frozen_prefix import replayed
from unsee.methods.vkd.populations import NEAREST, people
from unsee.models.vlm import VLM
from unsee.types import Batch, Picture, Sample


@dataclass(frozen=True)
class Guide:
    """Layer statistics of the teacher, and the erase target of every forget sample.

    Attributes:
        layers: The layers it knows.
        statistics: Mean [tokens, dim] and variance (scalar) of each layer over the population; the
            mean is [1, dim] where the family does not align pictures.
        strangers: Pictures of people the model was never told about.
        groups: Sample id to the number of its concept (or picture).
        traits: Each group's mean less the population's, or that of the people most alike, by layer
            [tokens, dim]: what all its pictures have in common and others have not; [1, dim] where
            not aligned.
        strength: Multiple of the traits that an "anonymous" target takes out.
        base: The model before it learned the people.
        sight: What keeps the teacher's features of pictures that are seen again.
        prefix: Encoder layers in which student and teacher are the same.
    """

    layers: list[str]
    statistics: Mapping[str, tuple[Tensor, Tensor]]
    strangers: Sequence[Picture] = ()
    groups: Mapping[str, int] = field(default_factory=dict)
    traits: Sequence[Mapping[str, Tensor]] = ()
    strength: float = 1.0
    base: VLM | None = None
    sight: FeatureCache | None = None
    prefix: tuple[str, ...] = ()

    @classmethod
    def of_population(cls, teacher: VLM, layers: list[str], pictures: Sequence[Picture]) -> Guide:
        """Statistics over the pictures of a population."""
        return cls(layers, layer_statistics(teacher, picture_batches(teacher, pictures), layers))

    @classmethod
    def of_data(
        cls, teacher: VLM, layers: list[str], leaving: Sequence[str], forget: Sequence[Sample],
        kept: Sequence[Sample] | None, strangers: Sequence[Picture], *, erase: str,
        strength: float, base: str | None, by_concept: bool, nearest: bool = False, most: int = 256,
    ) -> Guide:  # fmt: skip
        """Statistics over the population, and what the way to erase takes.

        Args:
            teacher: The frozen start model.
            layers: The layers it is to know.
            leaving: Those of them whose forget features are erased.
            forget: What to forget.
            kept: Whose mean the population's is, with the strangers'; None takes `forget`'s.
            strangers: Pictures of people the model was never told about.
            erase: As in `target`.
            strength: Multiple of the traits that an "anonymous" target takes out.
            base: Checkpoint before it learned the people, for erase="base".
            by_concept: One stranger for each concept, rather than for each picture.
            nearest: Whether traits are what sets a person apart from those of `kept` who are most
                alike, rather than from the population.
            most: Pictures of each kind that the statistics are taken from.
        """
        known = one_sample_per_picture(forget if kept is None else kept)
        pictures = [s.picture for s in known if s.picture][:most]
        pictures += list(strangers)[:most] if kept is not None else []
        guide = cls.of_population(teacher, layers, pictures)
        guide = guide.grouped(forget, erase == "anonymous" or by_concept)
        guide = replace(guide, strangers=list(strangers), strength=strength)
        if erase == "anonymous":
            return guide.with_traits(teacher, forget, leaving, kept if nearest else None)
        if erase == "base" and base is not None:
            return guide.with_base(teacher, base)
        return guide

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

    def with_traits(
        self,
        teacher: VLM,
        forget: Sequence[Sample],
        layers: Sequence[str] | None = None,
        kept: Sequence[Sample] | None = None,
    ) -> Guide:
        """With every group's traits, from the teacher's view of its pictures.

        Args:
            teacher: The frozen start model.
            forget: The samples that are in groups.
            layers: Those whose traits are needed; all that the guide knows by default.
            kept: Whose `NEAREST` most alike people each person is compared with. None compares
                them with the population.
        """
        names, traits = layers or self.layers, []

        def centre(pictures: Sequence[Picture]) -> dict[str, Tensor]:
            found = layer_statistics(teacher, picture_batches(teacher, pictures), names)
            return {name: mean for name, (mean, _) in found.items()}

        def place(means: Mapping[str, Tensor]) -> Tensor:
            """Where someone is among the others, wherever in the picture that shows."""
            scaled = [means[n].mean(0) / self.variance(n).sqrt() for n in names]
            return torch.cat(scaled)

        others = people(kept) if kept is not None else []
        places = [place(centre(pictures)) for pictures in others]
        middle = {name: self.statistics[name][0] for name in names}
        for number in range(1 + max(self.groups.values())):
            mine = one_sample_per_picture([s for s in forget if self.groups[s.id] == number])
            means = centre([s.picture for s in mine if s.picture is not None])
            if places:
                far = torch.stack([(place(means) - other).norm() for other in places])
                nearest = far.topk(min(NEAREST, len(far)), largest=False).indices.tolist()
                middle = centre([picture for index in nearest for picture in others[index]])
            traits.append({n: means[n] - middle[n] for n in names})
        return replace(self, traits=traits)

    @torch.no_grad()
    def observe(
        self, teacher: VLM, inputs: dict[str, Tensor], layers: Sequence[str], again: bool
    ) -> dict[str, Tensor]:
        """The teacher's raw outputs of some layers and of the frozen prefix, in the model's order.

        Args:
            teacher: The frozen start model.
            inputs: The visual inputs of pictures.
            layers: Which layers, in the model's order.
            again: Whether the same pictures come again in this run.
        """
        names = [*self.prefix, *(name for name in layers if name not in self.prefix)]
        if self.sight is not None and (again or self.sight.folder is not None):
            return self.sight.observe(inputs, names)
        return layer_outputs(teacher, inputs, names)

    def with_base(self, teacher: VLM, base: str) -> Guide:
        """With the model before it learned the people, from its checkpoint."""
        vlm = VLM.load(base, visual_only=True, device=teacher.device.type)
        vlm.model.requires_grad_(False)
        return replace(self, base=vlm)

    def at(self, sight: FeatureCache, prefix: Iterable[str]) -> Guide:
        """With what keeps the teacher's features, and the layers that no student changes."""
        return replace(self, sight=sight, prefix=tuple(prefix))

    def see(
        self, student: VLM, batch: Batch, known: Mapping[str, Tensor], answers: bool
    ) -> tuple[Features, Tensor | None]:
        """The student's features of a batch and, where `answers`, its logits.

        Args:
            student: The model being unlearned.
            batch: Its inputs.
            known: The teacher's outputs. What the frozen prefix says is the teacher's word; it is
                said again where answers are asked.
            answers: Whether the whole model runs.
        """
        if not answers:
            with replayed(student, {name: known[name] for name in self.prefix if known}):
                return picture_features(student, student.visual_inputs(batch), self.layers), None
        with capture(student, self.layers) as found:
            logits = student.logits(batch)
        return split_by_picture(student, found, student.visual_inputs(batch)), logits

    def variance(self, layer: str) -> Tensor:
        """The layer's variance over pictures and tokens."""
        return self.statistics[layer][1]

    def target(
        self, erase: str, teacher: VLM, inputs: dict[str, Tensor], ids: Sequence[str],
        seen: Features | None = None,
    ) -> Features:  # fmt: skip
        """Where the forget pictures with these ids should go, by layer.

        Args:
            erase: "anonymous", "stranger", "neutral", "base", or "push" (what to leave: the
                teacher's own).
            teacher: The frozen start model.
            inputs: The visual inputs of the pictures.
            ids: The id of every picture's sample.
            seen: The teacher's features of the pictures, if they are known already.

        Raises:
            DataError: If a sample belongs to no group that has a target.
        """
        if erase == "push":
            # Where the student still equals the teacher, a distance has no direction to grow in;
            # a little noise gives it one.
            known = seen or picture_features(teacher, inputs, self.layers)
            return {name: self._noised(name, value) for name, value in known.items()}
        if erase == "base" and self.base is not None:
            return picture_features(self.base, inputs, self.layers)
        if erase == "anonymous" and self.traits:
            known = seen or picture_features(teacher, inputs, self.layers)
            taken = [self.traits[number] for number in self._numbers(ids)]
            # Of the frozen prefix, too, something may be known.
            wanted = {name: value for name, value in known.items() if name in taken[0]}
            return {name: self._without(value, name, taken) for name, value in wanted.items()}
        if erase == "stranger" and self.strangers:
            strangers = [self.strangers[n % len(self.strangers)] for n in self._numbers(ids)]
            images = [teacher.image(picture) for picture in strangers]
            theirs = picture_features(teacher, teacher.collate_pictures(images), self.layers)
            # A stranger's picture may have other tokens: then their mean stands at each.
            return {
                name: [v.mean(0, keepdim=True) for v in value] if isinstance(value, list) else value
                for name, value in theirs.items()
            }
        neutral: Features = {}
        for name, (mean, _) in self.statistics.items():
            stacked = mean.unsqueeze(0).expand(len(ids), *mean.shape)
            neutral[name] = stacked if teacher.family.aligned else list(stacked)
        return neutral

    def _numbers(self, ids: Sequence[str]) -> list[int]:
        missing = [i for i in ids if i not in self.groups]
        if missing:
            raise DataError(f"sample {missing[0]} has no erase target assigned to it.")
        return [self.groups[i] for i in ids]

    def _noised(self, name: str, tokens: Tokens) -> Tokens:
        scale = 0.1 * self.variance(name).sqrt()
        if isinstance(tokens, list):
            return [value + scale * torch.randn_like(value) for value in tokens]
        return tokens + scale * torch.randn_like(tokens)

    def _without(self, tokens: Tokens, name: str, traits: Sequence[Mapping[str, Tensor]]) -> Tokens:
        if isinstance(tokens, list):
            pairs = zip(tokens, traits, strict=True)
            return [value - self.strength * mine[name] for value, mine in pairs]
        return tokens - self.strength * torch.stack([mine[name] for mine in traits])
