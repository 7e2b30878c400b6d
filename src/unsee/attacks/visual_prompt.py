"""Visual prompts: a small frame of learned pixels, the same for every picture."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

import torch
from jaxtyping import Bool, Float
from pydantic import Field
from torch import Tensor, nn

from unsee.attacks import ATTACKS, Attack, Subject
from unsee.attacks.perturb import (
    loss_with_added_pixels,
    no_weight_gradients,
    preprocessed_pixels,
    with_added_pixels,
)
from unsee.attacks.relearn import attacker_settings
from unsee.training.loop import fit
from unsee.training.sampling import batch_indices
from unsee.types import Sample

if TYPE_CHECKING:
    from unsee.models.vlm import VLM


@ATTACKS.register("visual_prompt", source="ForgetGate; arXiv 2203.17274")
@dataclass(frozen=True)
class VisualPrompt(Attack):
    """Visual prompt: a learned frame around every picture makes the frozen model answer again.

    The frame is learned on the attacker's forget pictures with the true answers' loss, and put
    around all pictures of the questions, which are held out. No weight changes. Pictures are first
    resized to the resolution at which the model processes them; inside the frame no pixel changes.

    Source: the recovery attack of ForgetGate, which learns 1,920 parameters with the model frozen;
    the frame is the padding prompt of Bahng et al., arXiv 2203.17274.
    Differs: ForgetGate's prompt was not seen in full. Pixels are rounded to 8 bits after training.

    Attributes:
        border: Width of the frame as a fraction of the shorter side, at least one pixel.
        steps: Optimizer steps; 0 disables the attack.
        lr: Learning rate, constant, for pixel values in 0..1.
        batch_size: Samples per step.
        seed: Seed of the order of samples.

    Example:
        >>> from unsee.attacks import Subject
        >>> from unsee.attacks.visual_prompt import VisualPrompt
        >>> subject = Subject(vlm, {"forget_holdout": data.forget[:1]}, data.forget[3:])
        >>> attacked = VisualPrompt(steps=1, batch_size=2).apply(subject)
        >>> attacked.samples["forget_holdout"][0].picture == data.forget[0].picture
        False
    """

    access: ClassVar[Literal["black_box", "white_box"]] = "white_box"
    zero_budget: ClassVar[Mapping[str, Any]] = {"steps": 0}
    needs: ClassVar[frozenset[str]] = frozenset({"attacker_samples", "answers"})

    border: Annotated[float, Field(gt=0, lt=0.5)] = 0.09
    steps: Annotated[int, Field(ge=0)] = 60
    lr: Annotated[float, Field(gt=0)] = 0.05
    batch_size: Annotated[int, Field(ge=1)] = 16
    seed: Annotated[int, Field(ge=0)] = 0

    def apply(self, subject: Subject) -> Subject:
        """Returns the subject with the same frame around every picture.

        Raises:
            ModelError: If the processor splits pictures into tiles or packed patches.
        """
        known = [s for s in subject.attacker_samples if s.answer and len(s.pictures) == 1]
        if self.steps == 0 or not known:
            return subject
        return with_added_pixels(subject, self.fit(subject.vlm, known), "visual-prompt")

    def fit(self, vlm: VLM, known: list[Sample]) -> Float[Tensor, "3 height width"]:
        """Returns what is added to a picture: whole pixel values in the frame, 0 inside it.

        Args:
            vlm: The model.
            known: The attacker's samples, with one picture and a true answer each.
        """
        pixels = preprocessed_pixels(vlm, known)
        first = next(iter(pixels.values()))
        inside = frame(first.shape[1], first.shape[2], self.border).to(vlm.device)
        prompt = nn.Parameter(torch.zeros_like(first, device=vlm.device))

        def step(number: int) -> Mapping[str, Tensor]:
            rows = batch_indices(len(known), self.batch_size, number, self.seed)
            delta = 255 * prompt * inside
            loss = loss_with_added_pixels(vlm, [known[i] for i in rows], pixels, delta)
            return {"prompt": loss}

        with no_weight_gradients(vlm):
            settings = attacker_settings(self.steps, self.lr, self.batch_size, self.seed)
            fit({"prompt": prompt}, step, settings)
        return (255 * prompt.detach() * inside).round().clamp(-255, 255).cpu()


def frame(height: int, width: int, border: float) -> Bool[Tensor, "height width"]:
    """Returns which pixels are in the frame.

    Args:
        height: Height of the picture, in pixels.
        width: Width of the picture, in pixels.
        border: Width of the frame as a fraction of the shorter side, at least one pixel.

    Example:
        >>> frame(4, 6, 0.25).int().tolist()
        [[1, 1, 1, 1, 1, 1], [1, 0, 0, 0, 0, 1], [1, 0, 0, 0, 0, 1], [1, 1, 1, 1, 1, 1]]
    """
    pixels = max(1, round(border * min(height, width)))
    mask = torch.ones(height, width, dtype=torch.bool)
    mask[pixels : height - pixels, pixels : width - pixels] = False
    return mask
