"""The adaptive attack on visual distillation: recover the old features, then distil them back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn

from unsee.attacks import ATTACKS, Attack, Subject
from unsee.attacks.relearn import Relearn, attacker_settings
from unsee.data.augment import augment
from unsee.data.selection import one_sample_per_picture
from unsee.features.capture import flat, picture_features
from unsee.features.statistics import distance_between
from unsee.losses import nll
from unsee.models.vlm import VLM
from unsee.training.loop import fit
from unsee.training.sampling import batch_indices
from unsee.training.settings import TrainingSettings
from unsee.types import Sample

PROJECTOR = "projector"


@ATTACKS.register("adaptive", source="ours; arXiv 1902.06705")
@dataclass(frozen=True)
class Adaptive(Attack):
    """Adaptive attack: undo visual distillation, knowing how it works.

    The attacker has the unlearned weights, some forget pictures with questions and answers, and
    pictures of other people, but not the original model. They know that the LLM is frozen and still
    maps the old features to the facts, that the old features were left by removing what a person's
    pictures have in common, and that the features of other people stayed. Two stages:

    1. For every person, optimise one additive offset of the projector's outputs until the frozen
       LLM answers with the facts again.
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
        augment: Strength of the random views, 0..1.
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
        variance, offsets = self._find_offsets(start, known, people)
        distance = distance_between("mse")

        def step(number: int) -> dict[str, Tensor]:
            rng = np.random.default_rng([self.seed, number, 99])
            samples = self._draw(known, number)
            batch = student.collate(
                samples, transform=lambda image: augment(image, rng, self.augment)
            )
            inputs = student.visual_inputs(batch)
            terms = {"answers": nll(student.logits(batch), batch.labels)}
            with torch.no_grad():
                features = picture_features(start, inputs, [PROJECTOR])[PROJECTOR]
                goal = [
                    f + offsets[people[s.concept]] for f, s in zip(features, samples, strict=True)
                ]
            reached = list(picture_features(student, inputs, [PROJECTOR])[PROJECTOR])
            terms["guide"] = self.w_guide * distance(reached, goal, variance).mean()
            images = [student.image(s.picture) for s in self._draw(others, number) if s.picture]
            other_inputs = student.collate_pictures(images)
            with torch.no_grad():
                before = list(picture_features(start, other_inputs, [PROJECTOR])[PROJECTOR])
            after = list(picture_features(student, other_inputs, [PROJECTOR])[PROJECTOR])
            terms["keep"] = self.w_keep * distance(after, before, variance).mean()
            return terms

        fit(student.parameters("visual"), step, self._settings(self.lr))
        student.model.requires_grad_(False)
        return replace(subject, vlm=student)

    def _find_offsets(
        self, vlm: VLM, known: Sequence[Sample], people: Mapping[str | None, int]
    ) -> tuple[Tensor, Tensor]:
        """Finds the offset per person with which the LLM answers with the facts.

        Args:
            vlm: The unlearned model, frozen.
            known: The attacker's samples.
            people: The row of each person among the offsets.

        Returns:
            The variance of the projector's outputs, and the offsets [people, tokens, dim], where
            tokens is 1 unless tokens stand for fixed places in the picture.
        """
        with torch.no_grad():
            inputs = vlm.visual_inputs(vlm.collate(self._draw(known, 0)))
            tokens = picture_features(vlm, inputs, [PROJECTOR])[PROJECTOR]
        variance = flat(tokens).float().var()
        shape = tokens[0].shape if vlm.family.aligned else (1, tokens[0].shape[-1])
        scaled = nn.Parameter(torch.zeros(len(people), *shape, device=vlm.device))
        scale = variance.sqrt()
        module = vlm.model.get_submodule(vlm.family.visual_layers(vlm.model)[PROJECTOR])

        def step(number: int) -> dict[str, Tensor]:
            samples = self._draw(known, number)
            batch = vlm.collate(samples)

            def add_offsets(_module: Any, _inputs: Any, output: Tensor) -> Tensor:
                pictures = vlm.family.split(output, vlm.visual_inputs(batch))
                shifted = [
                    p + scale * scaled[people[s.concept]]
                    for p, s in zip(pictures, samples, strict=True)
                ]
                return torch.cat(shifted).view_as(output)

            handle = module.register_forward_hook(add_offsets)
            try:
                return {"search": nll(vlm.logits(batch), batch.labels)}
            finally:
                handle.remove()

        fit({"additions": scaled}, step, self._settings(self.search_lr))
        return variance, scale * scaled.detach()

    def _draw(self, samples: Sequence[Sample], number: int) -> list[Sample]:
        rows = batch_indices(len(samples), self.batch_size, number, self.seed)
        return [samples[i] for i in rows]

    def _settings(self, lr: float) -> TrainingSettings:
        return attacker_settings(self.steps, lr, self.batch_size, self.seed)
