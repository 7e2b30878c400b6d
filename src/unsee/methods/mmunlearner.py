"""MMUnlearner: gradient ascent restricted to weights that matter mainly for the forget set."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

import torch
from pydantic import Field

from unsee.errors import DataError
from unsee.features.saliency import answer_probes, mask_counts, ratio_masks, squared_gradients
from unsee.methods import METHODS, Method, Search
from unsee.methods.grad_diff import GradDiff
from unsee.training.trainer import Trainer, TrainingResult

if TYPE_CHECKING:
    from torch import Tensor, nn

    from unsee.models.vlm import VLM
    from unsee.types import Data


# Of both sides of the ratio, in the authors' code; small, so that small gradients have a ratio too.
EPS = 1e-15


@METHODS.register("mmunlearner", source="Huo et al., arXiv 2502.11051")
@dataclass(frozen=True)
class MMUnlearner(Method):
    """MMUnlearner: gradient difference with the ascent masked by weight saliency.

    Update = -m * grad L_f + w_retain grad L_r,
    m = 1[(S(target) + eps) / (S(preserve) + eps) >= beta_s], eps = 1e-15 as in the authors' code,
    S the mean squared gradient at the start. Target: the questions on forget pictures. Preserve,
    for the visual part: the questions on retain pictures; for the LLM also the text-only questions
    about other people, and those about the forgotten people by name.

    Source: Huo et al., arXiv 2502.11051, its weight saliency map and masked update (the equations'
    numbers were not seen).
    Differs: L_f is capped. S is a mean over batches, so that beta_s does not depend on the sizes of
    the sets, and the sets to preserve have equal weight. Questions by name come from
    `Data.text_only` or the forget set's own; the record says how many there were, none included.

    Attributes:
        saliency_threshold: Smallest ratio of a weight that gradient ascent changes (beta_s).
        w_forget: Weight of the forget term.
        w_retain: Weight of the retain term.
        cap: Forget loss (nats a token) above which the gradient is zero.

    Example:
        >>> from unsee import Trainer, TrainingSettings
        >>> from unsee.methods.mmunlearner import MMUnlearner
        >>> trainer = Trainer(TrainingSettings(steps=1, batch_size=2))
        >>> result = MMUnlearner(saliency_threshold=0.5).unlearn(vlm, data, trainer)
        >>> sorted(result.history.last)
        ['forget', 'retain']
    """

    needs: ClassVar[frozenset[str]] = frozenset({"forget", "retain", "answers"})
    weights_only: ClassVar[bool] = True
    search: ClassVar[Search] = {"lr": (1e-5, 2e-5, 3e-5), "saliency_threshold": (0.5, 1.0, 2.0)}
    aliases: ClassVar[Mapping[str, str]] = {"lambda_r": "w_retain"}

    saliency_threshold: Annotated[float, Field(gt=0)] = 1.0
    w_forget: Annotated[float, Field(ge=0)] = 1.0
    w_retain: Annotated[float, Field(ge=0)] = 1.0
    cap: Annotated[float, Field(gt=0)] = 8.0

    def train(self, vlm: VLM, data: Data, trainer: Trainer) -> TrainingResult:
        """Changes the weights of `vlm` in place; see `Method.train`."""
        vlm.model.requires_grad_(False)
        target = [s for s in data.forget if s.picture is not None]
        parameters = vlm.parameters(self.trains)
        masks, choices = self._masks(vlm, data, parameters)
        share = 1 / trainer.settings.accumulate

        def step(number: int) -> Mapping[str, Tensor]:
            forget = vlm.collate(trainer.draw(target, number, 0))
            retain = vlm.collate(trainer.draw(data.retain, number, 1))
            terms = self.loss(vlm, forget, retain, None)
            # Only the ascent is masked, so its gradient is taken apart from the rest.
            ascend(parameters, masks, share * terms["forget"])
            return terms | {"forget": terms["forget"].detach()}

        return replace(trainer.fit(vlm, parameters, step), choices={"mask": choices})

    def loss(
        self, student: VLM, forget: Any, retain: Any, teacher: VLM | None
    ) -> dict[str, Tensor]:
        """Returns -w_forget L_f (capped) and w_retain L_r, in nats, before the mask."""
        plain = GradDiff(w_forget=self.w_forget, w_retain=self.w_retain, cap=self.cap)
        return plain.loss(student, forget, retain, teacher)

    def _masks(
        self, vlm: VLM, data: Data, parameters: Mapping[str, nn.Parameter]
    ) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Masks of the ascent by parameter, and how many weights they let through by part."""
        target = [s for s in data.forget if s.picture is not None and s.answer]
        shown = [s for s in data.retain if s.picture is not None and s.answer]
        told = [s for s in data.retain if s.picture is None]
        if not target or not shown:
            raise DataError(
                "mmunlearner weighs questions on forget pictures against questions on retain "
                "pictures, and one of the two is missing. Give both with --forget and --retain."
            )
        by_name = data.forget_by_name
        sides = {"visual": [shown], "language": [s for s in (shown, told, by_name) if s]}
        masks: dict[str, Tensor] = {}
        record: dict[str, Any] = {"preserved_by_name": len(by_name)}
        for part, sets in sides.items():
            mine = {n: p for n, p in parameters.items() if n in vlm.parameters(part)}
            if not mine:
                continue
            preserved = [squared_gradients(mine, answer_probes(vlm, some)) for some in sets]
            kept = {n: torch.stack([s[n] for s in preserved]).mean(0) for n in mine}
            found = squared_gradients(mine, answer_probes(vlm, target))
            chosen = ratio_masks(
                found, kept, threshold=self.saliency_threshold, eps=EPS, eps_forget=EPS
            )
            record[part] = mask_counts(chosen)
            masks |= chosen
        return masks, record


def ascend(
    parameters: Mapping[str, nn.Parameter], masks: Mapping[str, Tensor], loss: Tensor
) -> None:
    """Adds the masked gradient of a loss to `.grad`.

    Args:
        parameters: The trained weights, by name.
        masks: 1 on the weights that the loss may change, 0 elsewhere.
        loss: Scalar.
    """
    if not loss.requires_grad:
        return
    values = list(parameters.values())
    grads = torch.autograd.grad(loss, values, allow_unused=True)
    for (name, parameter), grad in zip(parameters.items(), grads, strict=True):
        if grad is not None:
            grad = grad * masks[name].to(grad.dtype)
            parameter.grad = grad if parameter.grad is None else parameter.grad + grad
