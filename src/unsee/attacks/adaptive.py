"""The adaptive attack on visual distillation: find where the old features were, and go back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn

from unsee.attacks import ATTACKS, Attack, Subject
from unsee.attacks.relearn import Relearn, attacker
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
    """Adaptive attack: undo visual distillation, knowing how it works; the visual part is tuned.

    The attacker has the unlearned weights, some forget pictures with questions and answers, and
    pictures of others, but not the model before. He knows that the LLM is frozen and so still maps
    the old features to the facts, that those were left by taking out what a person's pictures have
    in common, and that everyone else's features stayed. So he first looks, for every person, for
    one addition to all the projector's outputs that makes the frozen LLM say the facts again. Then
    he tunes the visual part to give those outputs by itself, on random views of his pictures,
    answers' loss included, while everyone else's features are held where they are.

    Source: ours; that defences must be judged by attackers who know them is Carlini et al.,
    arXiv 1902.06705.

    Attributes:
        share: Share of the forget pictures the attacker has, with all their questions.
        steps: Optimiser steps of the tuning; as many before it look for the additions. 0 does
            nothing.
        lr: Learning rate of the tuning.
        search_lr: Learning rate of the additions, in standard deviations of the outputs.
        batch_size: Samples a step.
        w_guide: Weight of the distance to the outputs that were found.
        w_keep: Weight of staying where others' features are.
        augment: Strength of the random views.
        seed: Of the choice of pictures, their order and views.
    """

    access: ClassVar[Literal["black_box", "white_box"]] = "white_box"
    zero_budget: ClassVar[Mapping[str, Any]] = {"steps": 0}
    needs: ClassVar[frozenset[str]] = frozenset({"known", "answers", "retain"})

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
        """The subject with a copy of the model whose visual part is tuned."""
        mine = [s for s in subject.attacker_samples if s.answer and len(s.pictures) == 1]
        known = Relearn(share=self.share, seed=self.seed).known(mine)
        others = one_sample_per_picture(subject.retain)
        if self.steps == 0 or self.share == 0 or not known:
            return subject
        start, student = subject.vlm.frozen_copy(), subject.vlm.copy()
        student.model.requires_grad_(False)
        people = {c: i for i, c in enumerate(dict.fromkeys(s.concept for s in known))}
        variance, additions = self._search(start, known, people)
        distance = distance_between("mse")

        def step(number: int) -> dict[str, Tensor]:
            rng = np.random.default_rng([self.seed, number, 99])
            some = self._draw(known, number)
            batch = student.collate(some, transform=lambda image: augment(image, rng, self.augment))
            inputs = student.visual_inputs(batch)
            terms = {"answers": nll(student.logits(batch), batch.labels)}
            with torch.no_grad():
                old = picture_features(start, inputs, [PROJECTOR])[PROJECTOR]
                goal = [t + additions[people[s.concept]] for t, s in zip(old, some, strict=True)]
            now = list(picture_features(student, inputs, [PROJECTOR])[PROJECTOR])
            terms["guide"] = self.w_guide * distance(now, goal, variance).mean()
            images = [student.image(s.picture) for s in self._draw(others, number) if s.picture]
            kept = student.collate_pictures(images)
            with torch.no_grad():
                stay = list(picture_features(start, kept, [PROJECTOR])[PROJECTOR])
            held = list(picture_features(student, kept, [PROJECTOR])[PROJECTOR])
            terms["keep"] = self.w_keep * distance(held, stay, variance).mean()
            return terms

        fit(student.parameters("visual"), step, self._settings(self.lr))
        student.model.requires_grad_(False)
        return replace(subject, vlm=student)

    def _search(
        self, vlm: VLM, known: Sequence[Sample], people: Mapping[str | None, int]
    ) -> tuple[Tensor, Tensor]:
        """The outputs' variance, and for every person what added to them brings the facts back."""
        with torch.no_grad():
            first = vlm.visual_inputs(vlm.collate(self._draw(known, 0)))
            tokens = picture_features(vlm, first, [PROJECTOR])[PROJECTOR]
        variance = flat(tokens).float().var()
        # Where tokens stand for places, each has an addition of its own.
        shape = tokens[0].shape if vlm.family.aligned else (1, tokens[0].shape[-1])
        raw = nn.Parameter(torch.zeros(len(people), *shape, device=vlm.device))
        scale = variance.sqrt()
        module = vlm.model.get_submodule(vlm.family.visual_layers(vlm.model)[PROJECTOR])

        def step(number: int) -> dict[str, Tensor]:
            some = self._draw(known, number)
            batch = vlm.collate(some)

            def add(_module: Any, _inputs: Any, output: Tensor) -> Tensor:
                pieces = vlm.family.split(output, vlm.visual_inputs(batch))
                new = [
                    p + scale * raw[people[s.concept]] for p, s in zip(pieces, some, strict=True)
                ]
                return torch.cat(new).view_as(output)

            handle = module.register_forward_hook(add)
            try:
                return {"search": nll(vlm.logits(batch), batch.labels)}
            finally:
                handle.remove()

        fit({"additions": raw}, step, self._settings(self.search_lr))
        return variance, scale * raw.detach()

    def _draw(self, samples: Sequence[Sample], number: int) -> list[Sample]:
        rows = batch_indices(len(samples), self.batch_size, number, self.seed)
        return [samples[i] for i in rows]

    def _settings(self, lr: float) -> TrainingSettings:
        return attacker(self.steps, lr, self.batch_size, self.seed)
