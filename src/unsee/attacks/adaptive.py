"""The adaptive attack on visual distillation: recover the old features, then distil them back."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor, nn

from unsee.attacks import ATTACKS, Attack, Subject
from unsee.attacks.relearn import Relearn, attacker_settings
from unsee.data.augment import augment
from unsee.data.selection import evenly_spaced, one_sample_per_picture
from unsee.features.capture import Features, flat, picture_features
from unsee.features.layers import choose_layers
from unsee.features.statistics import scaled_distance
from unsee.losses import nll
from unsee.models.vlm import VLM
from unsee.training.loop import fit
from unsee.training.sampling import batch_indices
from unsee.training.settings import TrainingSettings
from unsee.types import Sample

# Pictures of other people whose mean features the attacker computes.
MAX_OTHERS = 128


@ATTACKS.register("adaptive", source="ours; arXiv 1902.06705")
@dataclass(frozen=True)
class Adaptive(Attack):
    """Adaptive attack: undo visual distillation, knowing how it works.

    The attacker has the unlearned weights, some forget pictures with questions and answers, and
    pictures of other people, but not the original model. They know that the LLM is frozen and still
    maps the old features to the facts, that the old features were left by removing what a person's
    pictures have in common, and that the features of other people stayed. Two stages:

    1. For every person, optimise one additive offset of all outputs that the LLM reads (the
       projector's and those of deepstack mergers) until the frozen LLM answers with the facts
       again. The search starts at zero or, if the answers are likelier there, where VKD's erase
       target is undone: with strength s, it moved a person's mean m to p - (s - 1) (m - p), p the
       mean of the others, so that the offset s / (s - 1) (p - m') leads from the mean m' back to m.
    2. Fine-tune the visual part, on random views of the attacker's pictures, to produce these
       outputs by itself, with the loss of the answers, while the features of other people are kept.

    Source: ours; that a defence must be evaluated against attackers who know it is Carlini et al.,
    arXiv 1902.06705.

    Attributes:
        share: Fraction of each person's forget pictures that the attacker has, with all questions
            about them.
        steps: Optimizer steps of each stage; 0 disables the attack.
        lr: Learning rate of the fine-tuning.
        search_lr: Learning rate of the offsets, in standard deviations of the outputs.
        batch_size: Samples per step.
        w_guide: Weight of the distance to the outputs with offsets.
        w_keep: Weight of the distance of other people's features to the unlearned model's.
        augment: Strength of the random views, 0..1; VKD's default is 1.
        erase_strength: The `erase_strength` of VKD that the attacker expects, 2 by default; with
            1, which leaves nothing to undo, the search starts at zero.
        seed: Seed of the choice of pictures, their order and the views.

    Example:
        >>> from unsee.attacks import Subject
        >>> from unsee.attacks.adaptive import Adaptive
        >>> attack = Adaptive(share=1.0, steps=1, batch_size=2)
        >>> subject = Subject(vlm, attacker_samples=data.forget, retain=data.retain)
        >>> attacked = attack.apply(subject)
        >>> attacked.vlm.hash("language") == vlm.hash("language")
        True
    """

    access: ClassVar[Literal["black_box", "white_box"]] = "white_box"
    zero_budget: ClassVar[Mapping[str, Any]] = {"steps": 0}
    needs: ClassVar[frozenset[str]] = frozenset({"attacker_samples", "answers", "retain"})

    share: Annotated[float, Field(ge=0, le=1)] = 0.2
    steps: Annotated[int, Field(ge=0)] = 40
    lr: Annotated[float, Field(gt=0)] = 5e-4
    search_lr: Annotated[float, Field(gt=0)] = 0.05
    batch_size: Annotated[int, Field(ge=1)] = 16
    w_guide: Annotated[float, Field(ge=0)] = 2.0
    w_keep: Annotated[float, Field(ge=0)] = 5.0
    augment: Annotated[float, Field(ge=0, le=1)] = 0.5
    erase_strength: Annotated[float, Field(ge=1)] = 2.0
    seed: Annotated[int, Field(ge=0)] = 0

    def apply(self, subject: Subject) -> Subject:
        """Returns the subject with a copy of the model whose visual part is fine-tuned."""
        usable = [s for s in subject.attacker_samples if s.answer and len(s.pictures) == 1]
        known = Relearn(share=self.share, seed=self.seed).attacker_samples(usable)
        others = one_sample_per_picture(subject.retain)
        if self.steps == 0 or self.share == 0 or not known:
            return subject
        start, student = subject.vlm.frozen_copy(), subject.vlm.copy()
        student.model.requires_grad_(False)
        people = {c: i for i, c in enumerate(dict.fromkeys(s.concept for s in known))}
        layers = choose_layers(start, ["projector"])
        variances, offsets = self._find_offsets(start, known, others, people)

        def mean_distance(a: Features, b: Features) -> Tensor:
            by_layer = [scaled_distance(a[n], b[n], variances[n]).mean() for n in layers]
            return sum(by_layer[1:], by_layer[0]) / len(by_layer)

        def step(number: int) -> dict[str, Tensor]:
            rng = np.random.default_rng([self.seed, number, 99])
            samples = self._draw(known, number)
            batch = student.collate(
                samples, transform=lambda image: augment(image, rng, self.augment)
            )
            inputs = student.visual_inputs(batch)
            terms = {"answers": nll(student.logits(batch), batch.labels)}
            with torch.no_grad():
                goal: Features = {
                    name: [
                        f + offsets[name][people[s.concept]]
                        for f, s in zip(features, samples, strict=True)
                    ]
                    for name, features in picture_features(start, inputs, layers).items()
                }
            reached = _listed(picture_features(student, inputs, layers))
            terms["guide"] = self.w_guide * mean_distance(reached, goal)
            images = [student.image(s.picture) for s in self._draw(others, number) if s.picture]
            other_inputs = student.collate_pictures(images)
            with torch.no_grad():
                before = _listed(picture_features(start, other_inputs, layers))
            after = _listed(picture_features(student, other_inputs, layers))
            terms["keep"] = self.w_keep * mean_distance(after, before)
            return terms

        fit(student.parameters("visual"), step, self._settings(self.lr))
        student.model.requires_grad_(False)
        return replace(subject, vlm=student)

    def _find_offsets(
        self,
        vlm: VLM,
        known: Sequence[Sample],
        others: Sequence[Sample],
        people: Mapping[str | None, int],
    ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Finds the offsets per person with which the LLM answers with the facts.

        Args:
            vlm: The unlearned model, frozen.
            known: The attacker's samples.
            others: One sample per picture of other people.
            people: The row of each person among the offsets.

        Returns:
            By layer that the LLM reads: the variance of its outputs, and the offsets [people,
            tokens, dim], where tokens is 1 unless tokens stand for fixed places in the picture.
        """
        layers = choose_layers(vlm, ["projector"])
        with torch.no_grad():
            inputs = vlm.visual_inputs(vlm.collate(self._draw(known, 0)))
            features = picture_features(vlm, inputs, layers)
        variances = {name: flat(tokens).float().var() for name, tokens in features.items()}
        scales = {name: variance.sqrt() for name, variance in variances.items()}
        scaled: dict[str, nn.Parameter] = {}
        for name, tokens in features.items():
            shape = tokens[0].shape if vlm.family.aligned else (1, tokens[0].shape[-1])
            scaled[name] = nn.Parameter(torch.zeros(len(people), *shape, device=vlm.device))

        def loss(samples: Sequence[Sample]) -> Tensor:
            batch = vlm.collate(samples)
            rows = [people[s.concept] for s in samples]
            added = {name: [scales[name] * p[row] for row in rows] for name, p in scaled.items()}
            with added_features(vlm, vlm.visual_inputs(batch), added):
                return nll(vlm.logits(batch), batch.labels)

        undone = self.undoing_offsets(vlm, known, others, people)
        with torch.no_grad():
            at_zero = float(loss(self._draw(known, 0)))
            for name, offset in undone.items():
                scaled[name].copy_(offset / scales[name])
            if undone and float(loss(self._draw(known, 0))) >= at_zero:
                for parameter in scaled.values():
                    parameter.zero_()

        def step(number: int) -> dict[str, Tensor]:
            return {"search": loss(self._draw(known, number))}

        fit(scaled, step, self._settings(self.search_lr))
        return variances, {name: scales[name] * p.detach() for name, p in scaled.items()}

    @torch.no_grad()
    def undoing_offsets(
        self,
        vlm: VLM,
        known: Sequence[Sample],
        others: Sequence[Sample],
        people: Mapping[str | None, int],
    ) -> dict[str, Float[Tensor, "people tokens dim"]]:
        """Returns the offsets that undo VKD's erase target, by layer that the LLM reads.

        Args:
            vlm: The unlearned model.
            known: The attacker's samples.
            others: One sample per picture of other people; without any, nothing is returned.
            people: The row of each person among the offsets.
        """
        if self.erase_strength == 1 or not others:
            return {}
        layers = choose_layers(vlm, ["projector"])
        population = _mean_features(vlm, evenly_spaced(others, MAX_OTHERS), layers)
        pictures = one_sample_per_picture(known)
        means = [
            _mean_features(vlm, [s for s in pictures if s.concept == person], layers)
            for person in people
        ]
        factor = self.erase_strength / (self.erase_strength - 1)
        return {
            name: torch.stack([factor * (population[name] - mean[name]) for mean in means])
            for name in layers
        }

    def _draw(self, samples: Sequence[Sample], number: int) -> list[Sample]:
        rows = batch_indices(len(samples), self.batch_size, number, self.seed)
        return [samples[i] for i in rows]

    def _settings(self, lr: float) -> TrainingSettings:
        return attacker_settings(self.steps, lr, self.batch_size, self.seed)


@contextmanager
def added_features(
    vlm: VLM, inputs: dict[str, Tensor], added: Mapping[str, Sequence[Tensor]]
) -> Iterator[None]:
    """Adds offsets to the outputs of visual layers in forward passes inside the block.

    Args:
        vlm: The model.
        inputs: The visual inputs of the batch in these passes.
        added: By layer, what is added to each picture's tokens [tokens or 1, dim].
    """

    def hook_of(offsets: Sequence[Tensor]) -> Any:
        def add(_module: Any, _inputs: Any, output: Tensor) -> Tensor:
            pictures = vlm.family.split(output, inputs)
            shifted = [p + offset for p, offset in zip(pictures, offsets, strict=True)]
            return torch.cat(shifted).view_as(output)

        return add

    modules = vlm.family.visual_layers(vlm.model)
    handles = [
        vlm.model.get_submodule(modules[name]).register_forward_hook(hook_of(offsets))
        for name, offsets in added.items()
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _mean_features(vlm: VLM, samples: Sequence[Sample], layers: Sequence[str]) -> dict[str, Tensor]:
    """The mean over pictures [tokens or 1, dim], by layer."""
    means: dict[str, list[Tensor]] = {name: [] for name in layers}
    for start in range(0, len(samples), 32):
        images = [vlm.image(s.picture) for s in samples[start : start + 32] if s.picture]
        features = picture_features(vlm, vlm.collate_pictures(images), layers)
        for name, tokens in features.items():
            means[name] += [t if vlm.family.aligned else t.mean(0, keepdim=True) for t in tokens]
    return {name: torch.stack(rows).mean(0) for name, rows in means.items()}


def _listed(features: Features) -> Features:
    return {name: list(tokens) for name, tokens in features.items()}
