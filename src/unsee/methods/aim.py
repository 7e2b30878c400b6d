"""AIM: tune the visual part to see forget pictures as it sees them with a learned prompt."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import nn

from unsee.data.selection import one_sample_per_picture
from unsee.errors import ConfigError, DataError
from unsee.features.capture import Features, picture_features
from unsee.features.layers import choose_layers
from unsee.features.saliency import picture_probes, squared_gradients
from unsee.losses import relative_squared_distance, sequence_logps
from unsee.methods import METHODS, Method, Search, copy_start_model
from unsee.methods.npo import npo_loss
from unsee.training.sampling import seed_step
from unsee.training.trainer import Trainer, TrainingResult
from unsee.types import Part, Sample

if TYPE_CHECKING:
    from torch import Tensor

    from unsee.models.vlm import VLM
    from unsee.training.settings import TrainingSettings
    from unsee.types import Batch, Data


@dataclass(frozen=True)
class Guide:
    """Targets of the second stage: the prompt, and what holds the weights back.

    Attributes:
        prompt: The change of a picture's normalised pixel values; see `apply_prompt`.
        fisher: Fisher information of the trained weights, by name, of mean 1.
        start: The trained weights before training, by name.
        weights: The trained weights, by name.
    """

    prompt: Tensor
    fisher: Mapping[str, Tensor]
    start: Mapping[str, Tensor]
    weights: Mapping[str, nn.Parameter]


def apply_prompt(inputs: dict[str, Tensor], prompt: Tensor) -> dict[str, Tensor]:
    """Returns visual inputs with the prompt added to every picture, tile or patch.

    Args:
        inputs: Inputs of a batch with `pixel_values`.
        prompt: [channels, height, width], resized to grids of another size; or [values] for
            families that pack patches into rows.
    """
    pixels = inputs["pixel_values"]
    if prompt.dim() == 3 and prompt.shape[-2:] != pixels.shape[-2:]:
        prompt = F.interpolate(prompt[None], size=pixels.shape[-2:], mode="bilinear")[0]
    change = prompt.to(pixels.dtype)
    if pixels.dim() > 4:
        # Tiles that only fill up a batch are 0, which is how some models tell them.
        change = change * (pixels != 0).flatten(-3).any(-1)[..., None, None, None]
    return inputs | {"pixel_values": pixels + change}


def relative_distance(features: Features, target: Features) -> Tensor:
    """Returns ||h - t||^2 / ||t||^2 of each picture's features, averaged over pictures and layers.

    Args:
        features: The student's features, by layer.
        target: Their targets, by layer.
    """
    values = [
        torch.stack(
            [
                relative_squared_distance(h, t)
                for h, t in zip(features[name], target[name], strict=True)
            ]
        ).mean()
        for name in features
    ]
    return torch.stack(values).mean()


def fisher_penalty(
    weights: Mapping[str, Tensor], start: Mapping[str, Tensor], fisher: Mapping[str, Tensor]
) -> Tensor:
    """Returns sum_i F_i (w_i - w0_i)^2.

    Args:
        weights: The weights, by name.
        start: The weights before training.
        fisher: Their Fisher information.
    """
    terms = [(fisher[n] * (weights[n] - start[n]).float().square()).sum() for n in weights]
    return torch.stack(terms).sum()


@METHODS.register("aim", source="arXiv 2608.28312")
@dataclass(frozen=True)
class AIM(Method):
    """AIM: tune the vision encoder to see forget pictures as the start model sees prompted ones.

    Stage 1: a universal visual prompt delta that minimises NPO of the frozen model on x_f + delta.
    Stage 2: L = ||V(x_f) - V_0(x_f + delta)||^2 / ||V_0(x_f + delta)||^2 + w_fisher sum_i F_i (w_i
    - w0_i)^2, V the features that the LLM reads. Stage 2 uses no answer and no retain picture
    beside the Fisher information F, which is computed once.

    Source: after arXiv 2608.28312 (Findings of EMNLP 2026): the two stages and the Fisher penalty.
    The equations were not seen in full.
    Differs: the forget loss of stage 1 is NPO, and delta is bounded by epsilon tanh. The distance
    is relative, and F has mean 1, so that weights do not depend on the model's scale. F is that of
    a Gaussian around the features that the LLM reads; what the paper computes it from was not
    seen.

    Attributes:
        trains: "encoder", or "visual" or "projector".
        epsilon: Largest change of a normalised pixel value by the prompt.
        prompt_steps: Steps of stage 1.
        prompt_lr: Learning rate of stage 1.
        beta: Inverse temperature of NPO in stage 1.
        w_forget: Weight of the distance.
        w_fisher: Weight of the Fisher penalty.
        fisher: The pictures that the Fisher information is computed from: "retain", "strangers"
            (no retain set is then needed), or "forget".

    Example:
        >>> from unsee import Trainer, TrainingSettings
        >>> from unsee.methods.aim import AIM
        >>> trainer = Trainer(TrainingSettings(steps=1, batch_size=2))
        >>> result = AIM(prompt_steps=1).unlearn(vlm, data, trainer)
        >>> sorted(result.history.last)
        ['fisher', 'forget']
    """

    needs: ClassVar[frozenset[str]] = frozenset({"forget", "teacher", "answers"})
    weights_only: ClassVar[bool] = True
    parts: ClassVar[tuple[Part, ...]] = ("encoder", "visual", "projector")
    # The paper's ranges were not seen: ours.
    search: ClassVar[Search] = {
        "lr": (1e-5, 3e-5, 1e-4),
        "epsilon": (0.5, 1.0, 2.0),
        "w_fisher": (0.1, 1.0, 10.0),
    }

    trains: Part = "encoder"
    epsilon: Annotated[float, Field(gt=0)] = 1.0
    prompt_steps: Annotated[int, Field(ge=1)] = 100
    prompt_lr: Annotated[float, Field(gt=0)] = 0.05
    beta: Annotated[float, Field(gt=0)] = 0.9
    w_forget: Annotated[float, Field(ge=0)] = 1.0
    w_fisher: Annotated[float, Field(ge=0)] = 1.0
    fisher: Literal["retain", "strangers", "forget"] = "retain"

    @property
    def required(self) -> frozenset[str]:
        """Also the set of the Fisher information; see `Method.required`."""
        return self.needs | {self.fisher} if self.w_fisher > 0 else self.needs

    def validate(self, data: Data, settings: TrainingSettings, vlm: VLM | None = None) -> None:
        """Also refuses a forget set without pictures; see `Method.validate`."""
        super().validate(data, settings, vlm)
        if not any(s.picture is not None and s.answer for s in data.forget):
            raise DataError(
                "aim needs forget pictures with answers, and there are none. Give a table with "
                "columns image, question, answer, concept."
            )

    def train(self, vlm: VLM, data: Data, trainer: Trainer) -> TrainingResult:
        """Changes the weights of the visual part in place; see `Method.train`."""
        vlm.model.requires_grad_(False)
        teacher = copy_start_model(vlm, self)
        shown = replace(data, forget=[s for s in data.forget if s.picture is not None])
        before, prompt = self._prompt(vlm, shown, trainer)
        weights = vlm.parameters(self.trains)
        start = {n: p.detach().clone() for n, p in weights.items()}
        fisher = self._fisher(vlm, data, weights, trainer.settings.seed)
        guide = Guide(prompt, fisher, start, weights)
        pictures = one_sample_per_picture(shown.forget)

        def step(number: int) -> Mapping[str, Tensor]:
            samples = trainer.draw(pictures, number, 0)
            return self.loss(vlm, vlm.collate(samples), None, teacher, guide)

        return trainer.fit(vlm, weights, step).after("prompt", before)

    def loss(
        self,
        student: VLM,
        forget: Batch,
        retain: Batch | None,
        teacher: VLM | None,
        guide: Guide | None = None,
    ) -> dict[str, Tensor]:
        """Returns the relative distance of the features, and the Fisher penalty, weighted.

        Args:
            student: The model being unlearned.
            forget: A batch of samples to forget.
            retain: Not used.
            teacher: The frozen start model.
            guide: Prompt and Fisher information; None is no prompt and no penalty.
        """
        if teacher is None:
            raise ConfigError("aim needs a teacher.")
        inputs = student.visual_inputs(forget)
        layers = choose_layers(student, ["projector"])
        prompted = inputs if guide is None else apply_prompt(inputs, guide.prompt)
        with torch.no_grad():
            target = picture_features(teacher, prompted, layers)
        distance = relative_distance(picture_features(student, inputs, layers), target)
        terms = {"forget": self.w_forget * distance}
        if guide is not None and guide.fisher:
            penalty = fisher_penalty(guide.weights, guide.start, guide.fisher)
            terms["fisher"] = self.w_fisher * penalty
        return terms

    def _prompt(self, vlm: VLM, data: Data, trainer: Trainer) -> tuple[TrainingResult, Tensor]:
        """Trains the visual prompt on the frozen model; returns the result and the prompt."""
        pixels = vlm.collate(data.forget[:1]).inputs["pixel_values"]
        shape = pixels.shape[-3:] if pixels.dim() > 3 else pixels.shape[-1:]
        raw = nn.Parameter(torch.zeros(shape, device=vlm.device))
        stage = trainer.stage(
            "prompt", steps=self.prompt_steps, lr=self.prompt_lr, weight_decay=0.0
        )

        def prompt() -> Tensor:
            return self.epsilon * raw.tanh()

        def step(number: int) -> Mapping[str, Tensor]:
            batch = vlm.collate(stage.draw([s for s in data.forget if s.answer], number, 0))
            with torch.no_grad():
                known = sequence_logps(vlm.logits(batch), batch.labels)
            changed = replace(batch, inputs=apply_prompt(batch.inputs, prompt()))
            logps = sequence_logps(vlm.logits(changed), batch.labels)
            return {"prompt": npo_loss(logps, known, self.beta)}

        result = stage.fit(vlm, {"prompt": raw}, step)
        return result, prompt().detach()

    def _fisher(
        self, vlm: VLM, data: Data, weights: Mapping[str, nn.Parameter], seed: int
    ) -> dict[str, Tensor]:
        """Returns the weights' Fisher information, of mean 1; {} without a penalty."""
        if self.w_fisher == 0:
            return {}
        sets: dict[str, Sequence[Any]] = {"forget": data.forget, "retain": data.retain}
        if self.fisher == "strangers":
            samples = [Sample(p.source, "", "", p) for p in data.strangers]
        else:
            samples = one_sample_per_picture(sets[self.fisher])
        if not samples:
            raise DataError(
                f"fisher={self.fisher} needs pictures, and that set has none. Type another of "
                "retain, strangers, forget, or w_fisher=0."
            )
        seed_step(seed, 0)
        squares = squared_gradients(weights, picture_probes(vlm, samples))
        count = sum(square.numel() for square in squares.values())
        mean = sum(float(square.sum()) for square in squares.values()) / count
        return {n: square.float() / max(mean, 1e-30) for n, square in squares.items()}
