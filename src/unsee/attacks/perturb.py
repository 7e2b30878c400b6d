"""Perturbation: one small change of the pixels, the same for every picture, that brings it back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image
from pydantic import Field
from torch import Tensor

from unsee.attacks import ATTACKS, Attack, Subject, derived_picture, map_questions
from unsee.losses import nll
from unsee.training.sampling import batch_indices
from unsee.types import Picture, Sample

if TYPE_CHECKING:
    from unsee.models.vlm import VLM


@ATTACKS.register("perturb", source="EMNLP 2025, p. 11241")
@dataclass(frozen=True)
class Perturb(Attack):
    """Universal perturbation (SUA): projected gradient descent on the true answers' loss.

    It is fitted on the attacker's forget pictures and shown on held-out ones, and on everyone
    else's. Pictures are first brought to the size at which the model sees them; there, no pixel of
    the 8-bit picture moves by more than `epsilon`.

    Source: SUA, EMNLP 2025, p. 11241; projected gradient descent of Madry et al., arXiv 1706.06083.

    Attributes:
        epsilon: Largest change of a pixel (of 255); 0 changes nothing.
        steps: Of the descent.
        step: Size of one (of 255).
        batch_size: Samples a step.
        seed: Of their order.
    """

    access: ClassVar[Literal["black_box", "white_box"]] = "white_box"
    zero_budget: ClassVar[Mapping[str, Any]] = {"epsilon": 0}
    needs: ClassVar[frozenset[str]] = frozenset({"known", "answers"})

    epsilon: Annotated[int, Field(ge=0, le=255)] = 8
    steps: Annotated[int, Field(ge=0)] = 60
    step: Annotated[float, Field(gt=0)] = 1.0
    batch_size: Annotated[int, Field(ge=1)] = 16
    seed: Annotated[int, Field(ge=0)] = 0

    def apply(self, subject: Subject) -> Subject:
        """The subject with every picture changed by one and the same perturbation.

        Raises:
            ModelError: If the model's pictures are no plain grids of one size.
        """
        if self.epsilon == 0 or self.steps == 0:
            return subject
        known = [s for s in subject.attacker_samples if s.answer and len(s.pictures) == 1]
        delta = self.fit(subject.vlm, known)
        drawn: dict[str, Picture] = {}

        def change(picture: Picture) -> Picture:
            if picture.source not in drawn:
                image = subject.vlm.image(picture)
                seen = subject.vlm.family.as_seen(subject.vlm.processor, image)
                drawn[picture.source] = derived_picture(picture, moved(seen, delta), "perturb")
            return drawn[picture.source]

        def show(sample: Sample) -> list[Sample]:
            if sample.picture is None:
                return [sample]
            shown = tuple(change(p) for p in sample.pictures)
            return [replace(sample, picture=shown[0], further=shown[1:])]

        return map_questions(subject, show)

    def fit(self, vlm: VLM, known: list[Sample]) -> Float[Tensor, "3 height width"]:
        """The perturbation, in whole pixel values of at most `epsilon`."""
        pixels: dict[str, Tensor] = {}
        for sample in known:
            assert sample.picture is not None
            if sample.picture.source not in pixels:
                seen = vlm.family.as_seen(vlm.processor, vlm.image(sample.picture))
                array = np.array(seen, dtype=np.float32)
                pixels[sample.picture.source] = torch.from_numpy(array).permute(2, 0, 1)
        delta = torch.zeros_like(next(iter(pixels.values())), device=vlm.device)
        wanted = [p.requires_grad for p in vlm.model.parameters()]
        vlm.model.requires_grad_(False)
        try:
            for number in range(self.steps):
                rows = batch_indices(len(known), self.batch_size, number, self.seed)
                some = [known[i] for i in rows]
                batch = vlm.collate(some)
                clean = torch.stack([pixels[s.picture.source] for s in some if s.picture])
                with torch.enable_grad():
                    delta.requires_grad_(True)
                    shown = (clean.to(delta) + delta).clamp(0, 255)
                    values = vlm.family.pixel_values(vlm.processor, shown)
                    before = batch.inputs["pixel_values"]
                    inputs = batch.inputs | {"pixel_values": values.view_as(before).to(before)}
                    loss = nll(vlm.logits(replace(batch, inputs=inputs)), batch.labels)
                    (slope,) = torch.autograd.grad(loss, delta)
                delta = (delta.detach() - self.step * slope.sign()).clamp(
                    -self.epsilon, self.epsilon
                )
        finally:
            for p, before_ in zip(vlm.model.parameters(), wanted, strict=True):
                p.requires_grad_(before_)
        return delta.detach().round().cpu()


def moved(image: Image.Image, delta: Float[Tensor, "3 height width"]) -> Image.Image:
    """The 8-bit picture with whole pixel values added, cut off at black and white."""
    pixels = np.asarray(image, dtype=np.int16) + delta.permute(1, 2, 0).numpy().astype(np.int16)
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))
