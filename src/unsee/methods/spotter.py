"""Spotter: distillation without the true token, near the forget set too, and scattered features."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from pydantic import Field

from unsee.data.selection import one_sample_per_picture
from unsee.errors import ConfigError
from unsee.features.capture import Features, picture_features
from unsee.features.layers import choose_layers
from unsee.losses import masked_token_kl, nll
from unsee.methods import METHODS, Method, Search
from unsee.training.trainer import Trainer
from unsee.types import Part

if TYPE_CHECKING:
    from torch import Tensor

    from unsee.models.vlm import VLM
    from unsee.types import Batch, Data, Picture


def nearby(vlm: VLM, batch: Batch, epsilon: float, step: float, steps: int) -> Batch:
    """Returns the batch with pictures changed so that the model finds the answers less likely.

    Projected gradient ascent on the answers' loss; each picture is changed on its own.

    Args:
        vlm: The model.
        batch: Questions on pictures, with answers.
        epsilon: Largest change of a normalised pixel value.
        step: Step size.
        steps: Number of steps.
    """
    start = batch.inputs["pixel_values"]
    pixels = start
    for _ in range(steps):
        moved = pixels.detach().requires_grad_(True)
        changed = replace(batch, inputs=batch.inputs | {"pixel_values": moved})
        with torch.enable_grad():
            loss = nll(vlm.logits(changed), batch.labels)
            (gradient,) = torch.autograd.grad(loss, moved)
        pixels = (moved.detach() + step * gradient.sign()).clamp(start - epsilon, start + epsilon)
    return replace(batch, inputs=batch.inputs | {"pixel_values": pixels})


def mean_cosine(first: Features, second: Features) -> Tensor:
    """Returns the mean cosine between the pooled features of pictures and of their partners.

    Args:
        first: Features of pictures, by layer.
        second: Features of another picture of each one's person.
    """

    def pooled(features: Features) -> list[Tensor]:
        return [
            torch.stack([picture.float().flatten(0, -2).mean(0) for picture in tokens])
            for tokens in features.values()
        ]

    pairs = zip(pooled(first), pooled(second), strict=True)
    return torch.stack([F.cosine_similarity(a, b, dim=-1).mean() for a, b in pairs]).mean()


@METHODS.register("spotter", source="Ha et al., arXiv 2506.01318")
@dataclass(frozen=True)
class Spotter(Method):
    """Spotter: forgets without touching what lies near, and scatters a person's features.

    L = w_forget KL(p0~(x_f) || p(x_f)) + w_near KL(p0~(x~) || p(x~)) + w_dispersion mean cos(v_i,
    v_j), p0~ the start model's distribution without the true token, x~ the forget pictures changed
    slightly by `nearby`, v the pooled features that the LLM reads of two pictures of one person.
    No retain set is used.

    Source: Ha et al., arXiv 2506.01318, its masked distillation and dispersion; the perturbation
    (epsilon 0.03 of pixel values 0..1, three steps of 0.01) as in the authors' repository.
    Differs: the paper's are image classifiers. A forgotten class is here the true token of each
    position of an answer; embeddings are the features that the LLM reads. Each picture is compared
    with one other of the person, drawn at random, which estimates the mean over all pairs.
    epsilon and step are in normalised pixel values, whose unit is about a quarter of 0..1, and the
    perturbation starts at the picture and lowers the true answer's probability. The paper's weight
    of the dispersion, 1, harms the rest of a model that is trained without a retain set: ours is
    0.1, and the LLM is frozen by default.

    Attributes:
        w_forget: Weight of the distillation on forget pictures.
        w_near: Weight of the distillation near them.
        w_dispersion: Weight of the cosine between pictures of a person.
        epsilon: Largest change of a normalised pixel value.
        step: Step size of the perturbation.
        near_steps: Steps of the perturbation; 0 leaves out the term.

    Example:
        >>> from unsee import Trainer, TrainingSettings
        >>> from unsee.methods.spotter import Spotter
        >>> trainer = Trainer(TrainingSettings(steps=1, batch_size=2))
        >>> result = Spotter(near_steps=1).unlearn(vlm, data, trainer)
        >>> sorted(result.history.last)
        ['dispersion', 'forget', 'near']
    """

    needs: ClassVar[frozenset[str]] = frozenset({"forget", "teacher", "answers"})
    # No retain set holds the rest of the model, so it takes few and small steps.
    defaults: ClassVar[Mapping[str, object]] = {"steps": 100, "lr": 1e-4}
    # Not searched by its authors on such models: ours.
    search: ClassVar[Search] = {
        "lr": (1e-5, 2e-5, 3e-5),
        "w_near": (0.3, 1.0),
        "w_dispersion": (0.1, 1.0),
    }

    trains: Part = "visual"
    w_forget: Annotated[float, Field(ge=0)] = 0.7
    w_near: Annotated[float, Field(ge=0)] = 0.3
    w_dispersion: Annotated[float, Field(ge=0)] = 0.1
    epsilon: Annotated[float, Field(gt=0)] = 0.12
    step: Annotated[float, Field(gt=0)] = 0.04
    near_steps: Annotated[int, Field(ge=0)] = 3

    def batches(self, vlm: VLM, data: Data, trainer: Trainer, number: int) -> Mapping[str, Any]:
        """Also returns "pairs", visual inputs of pictures and of partners; see `Method.batches`."""
        samples = trainer.draw(data.forget, number, 0)
        pairs = None
        if self.w_dispersion > 0 and self.trains != "language":
            pairs = self._pairs(vlm, data, (trainer.settings.seed, number), len(samples))
        return {"forget": vlm.collate(samples), "pairs": pairs}

    def loss(
        self,
        student: VLM,
        forget: Batch,
        retain: Batch | None,
        teacher: VLM | None,
        pairs: tuple[dict[str, Tensor], dict[str, Tensor]] | None = None,
    ) -> dict[str, Tensor]:
        """Returns the divergences (nats a token) and the mean cosine, weighted.

        Args:
            student: The model being unlearned.
            forget: A batch of samples to forget.
            retain: Not used.
            teacher: The frozen start model.
            pairs: Visual inputs of forget pictures, and of another picture of each one's person.
        """
        if teacher is None:
            raise ConfigError("spotter needs a teacher.")
        terms = {"forget": self.w_forget * self._distance(student, teacher, forget)}
        if self.w_near > 0 and self.near_steps > 0 and "pixel_values" in forget.inputs:
            near = nearby(teacher, forget, self.epsilon, self.step, self.near_steps)
            terms["near"] = self.w_near * self._distance(student, teacher, near)
        if pairs is not None:
            layers = choose_layers(student, ["projector"])
            first, second = (picture_features(student, inputs, layers) for inputs in pairs)
            terms["dispersion"] = self.w_dispersion * mean_cosine(first, second)
        return terms

    def _distance(self, student: VLM, teacher: VLM, batch: Batch) -> Tensor:
        """Returns KL(p0 without the true token || p), in nats a token."""
        with torch.no_grad():
            known = teacher.logits(batch)
        return masked_token_kl(known, student.logits(batch), batch.labels)

    def _pairs(
        self, vlm: VLM, data: Data, seed: Sequence[int], count: int
    ) -> tuple[dict[str, Tensor], dict[str, Tensor]] | None:
        """Returns visual inputs of `count` forget pictures and of partners; None without any."""
        of_person: dict[str | None, list[Picture]] = defaultdict(list)
        for sample in one_sample_per_picture(data.forget):
            of_person[sample.concept].extend(sample.pictures)
        several = [pictures for pictures in of_person.values() if len(pictures) > 1]
        if not several:
            return None
        rng = np.random.default_rng([*seed, 1])
        first, second = [], []
        for _ in range(count):
            pictures = several[int(rng.integers(len(several)))]
            one, other = rng.choice(len(pictures), 2, replace=False)
            first.append(vlm.image(pictures[one]))
            second.append(vlm.image(pictures[other]))
        return vlm.collate_pictures(first), vlm.collate_pictures(second)
