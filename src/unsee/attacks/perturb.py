"""Universal perturbation: one small change of the pixels, the same for every picture."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
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

    One perturbation is optimised on the attacker's forget pictures and added to all pictures of the
    questions. Pictures are first resized to the resolution at which the model processes them; at
    that resolution no 8-bit pixel value changes by more than `epsilon`.

    Source: SUA, EMNLP 2025, p. 11241; projected gradient descent of Madry et al., arXiv 1706.06083.

    Attributes:
        epsilon: Largest change of a pixel value, out of 255; 0 disables the attack.
        steps: Number of descent steps.
        step: Step size, out of 255.
        batch_size: Samples per step.
        seed: Seed of the order of samples.

    Example:
        >>> from unsee.attacks import Subject
        >>> from unsee.attacks.perturb import Perturb
        >>> subject = Subject(vlm, {"forget_holdout": data.forget[:1]}, data.forget[3:])
        >>> attacked = Perturb(epsilon=4, steps=1, batch_size=2).apply(subject)
        >>> attacked.samples["forget_holdout"][0].picture == data.forget[0].picture
        False
    """

    access: ClassVar[Literal["black_box", "white_box"]] = "white_box"
    zero_budget: ClassVar[Mapping[str, Any]] = {"epsilon": 0}
    needs: ClassVar[frozenset[str]] = frozenset({"attacker_samples", "answers"})

    epsilon: Annotated[int, Field(ge=0, le=255)] = 8
    steps: Annotated[int, Field(ge=0)] = 60
    step: Annotated[float, Field(gt=0)] = 1.0
    batch_size: Annotated[int, Field(ge=1)] = 16
    seed: Annotated[int, Field(ge=0)] = 0

    def apply(self, subject: Subject) -> Subject:
        """Returns the subject with the same perturbation added to every picture.

        Raises:
            ModelError: If the processor splits pictures into tiles or packed patches.
        """
        if self.epsilon == 0 or self.steps == 0:
            return subject
        known = [s for s in subject.attacker_samples if s.answer and len(s.pictures) == 1]
        return with_added_pixels(subject, self.fit(subject.vlm, known), "perturb")

    def fit(self, vlm: VLM, known: list[Sample]) -> Float[Tensor, "3 height width"]:
        """Returns the perturbation, in whole pixel values of at most `epsilon`.

        Args:
            vlm: The model.
            known: The attacker's samples, with one picture and a true answer each.
        """
        pixels = preprocessed_pixels(vlm, known)
        delta = torch.zeros_like(next(iter(pixels.values())), device=vlm.device)
        with no_weight_gradients(vlm):
            for number in range(self.steps):
                rows = batch_indices(len(known), self.batch_size, number, self.seed)
                with torch.enable_grad():
                    delta.requires_grad_(True)
                    loss = loss_with_added_pixels(vlm, [known[i] for i in rows], pixels, delta)
                    (gradient,) = torch.autograd.grad(loss, delta)
                delta = (delta.detach() - self.step * gradient.sign()).clamp(
                    -self.epsilon, self.epsilon
                )
        return delta.detach().round().cpu()


def preprocessed_pixels(
    vlm: VLM, samples: Sequence[Sample]
) -> dict[str, Float[Tensor, "3 height width"]]:
    """Returns the pictures of samples as the model receives them, 0..255, by their source.

    Args:
        vlm: The model.
        samples: Samples with one picture each.

    Raises:
        ModelError: If the processor splits pictures into tiles or packed patches.
    """
    pixels: dict[str, Tensor] = {}
    for sample in samples:
        assert sample.picture is not None
        if sample.picture.source not in pixels:
            seen = vlm.family.preprocessed(vlm.processor, vlm.image(sample.picture))
            array = np.array(seen, dtype=np.float32)
            pixels[sample.picture.source] = torch.from_numpy(array).permute(2, 0, 1)
    return pixels


@contextmanager
def no_weight_gradients(vlm: VLM) -> Iterator[None]:
    """Computes no gradients of weights inside the block."""
    required = [p.requires_grad for p in vlm.model.parameters()]
    vlm.model.requires_grad_(False)
    try:
        yield
    finally:
        for p, before in zip(vlm.model.parameters(), required, strict=True):
            p.requires_grad_(before)


def loss_with_added_pixels(
    vlm: VLM,
    samples: Sequence[Sample],
    pixels: Mapping[str, Float[Tensor, "3 height width"]],
    delta: Float[Tensor, "3 height width"],
) -> Float[Tensor, ""]:
    """Returns the true answers' mean loss when `delta` is added to all pictures, in nats a token.

    Args:
        vlm: The model.
        samples: Samples with one picture and a true answer each.
        pixels: The pictures; see `preprocessed_pixels`.
        delta: What is added, in units of 8-bit pixel values.
    """
    batch = vlm.collate(samples)
    clean = torch.stack([pixels[s.picture.source] for s in samples if s.picture])
    changed = (clean.to(delta) + delta).clamp(0, 255)
    values = vlm.family.pixel_values(vlm.processor, changed)
    original = batch.inputs["pixel_values"]
    inputs = batch.inputs | {"pixel_values": values.view_as(original).to(original)}
    return nll(vlm.logits(replace(batch, inputs=inputs)), batch.labels)


def with_added_pixels(
    subject: Subject, delta: Float[Tensor, "3 height width"], how: str
) -> Subject:
    """Returns the subject with whole pixel values added to every picture of its questions.

    Args:
        subject: The subject.
        delta: What is added; see `add_perturbation`.
        how: Name of the change, such as "perturb"; becomes part of the pictures' sources.
    """
    changed: dict[str, Picture] = {}

    def change_picture(picture: Picture) -> Picture:
        if picture.source not in changed:
            image = subject.vlm.image(picture)
            seen = subject.vlm.family.preprocessed(subject.vlm.processor, image)
            image = add_perturbation(seen, delta)
            changed[picture.source] = derived_picture(picture, image, how)
        return changed[picture.source]

    def change_sample(sample: Sample) -> list[Sample]:
        if sample.picture is None:
            return [sample]
        first, *further = (change_picture(picture) for picture in sample.pictures)
        return [replace(sample, picture=first, further=tuple(further))]

    return map_questions(subject, change_sample)


def add_perturbation(image: Image.Image, delta: Float[Tensor, "3 height width"]) -> Image.Image:
    """Returns the 8-bit image plus whole pixel values, clipped to 0..255."""
    pixels = np.asarray(image, dtype=np.int16) + delta.permute(1, 2, 0).numpy().astype(np.int16)
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))
