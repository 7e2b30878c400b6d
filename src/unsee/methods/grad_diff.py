"""Gradient difference: gradient ascent on the forget set, descent on the retain set."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, ClassVar

from pydantic import Field

from unsee.losses import capped, nll
from unsee.methods import METHODS, Method, Search

if TYPE_CHECKING:
    from torch import Tensor

    from unsee.models.vlm import VLM
    from unsee.types import Batch


@METHODS.register("grad_diff", source="TOFU, arXiv 2401.06121")
@dataclass(frozen=True)
class GradDiff(Method):
    """Gradient difference (GD): maximise the forget loss, minimise the retain loss.

    L = -w_forget L_f + w_retain L_r.

    Source: Maini et al. (TOFU), arXiv 2401.06121, section 4; Liu et al., arXiv 2203.12817.
    Differs: L_f is capped, since unbounded ascent destroys the model; the cap is a field.

    Attributes:
        w_forget: Weight of the forget term.
        w_retain: Weight of the retain term.
        cap: Forget loss (nats a token) above which the gradient is zero.

    Example:
        >>> from unsee import Trainer, TrainingSettings
        >>> from unsee.methods.grad_diff import GradDiff
        >>> trainer = Trainer(TrainingSettings(steps=1, batch_size=2))
        >>> result = GradDiff(w_retain=2).unlearn(vlm, data, trainer)
        >>> sorted(result.history.last)
        ['forget', 'retain']
    """

    needs: ClassVar[frozenset[str]] = frozenset({"forget", "retain", "answers"})
    search: ClassVar[Search] = {"lr": (1e-5, 2e-5, 3e-5), "w_retain": (0.5, 1.0, 2.0)}
    aliases: ClassVar[Mapping[str, str]] = {"lambda_r": "w_retain"}

    w_forget: Annotated[float, Field(ge=0)] = 1.0
    w_retain: Annotated[float, Field(ge=0)] = 1.0
    cap: Annotated[float, Field(gt=0)] = 8.0

    def loss(
        self, student: VLM, forget: Batch, retain: Batch | None, teacher: VLM | None
    ) -> dict[str, Tensor]:
        """Returns -w_forget L_f (capped) and w_retain L_r, in nats a token."""
        terms = {
            "forget": -self.w_forget * capped(nll(student.logits(forget), forget.labels), self.cap)
        }
        if retain is not None:
            terms["retain"] = self.w_retain * nll(student.logits(retain), retain.labels)
        return terms
