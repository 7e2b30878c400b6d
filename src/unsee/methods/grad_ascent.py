"""Gradient ascent: maximise the loss on the forget set."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, ClassVar

from pydantic import Field

from unsee.losses import capped, nll
from unsee.methods import METHODS, Method, Search

if TYPE_CHECKING:
    from torch import Tensor

    from unsee.models.vlm import VLM
    from unsee.types import Batch


@METHODS.register("grad_ascent", source="TOFU, arXiv 2401.06121")
@dataclass(frozen=True)
class GradAscent(Method):
    """Gradient ascent (GA): maximise the forget loss, without a retain term.

    L = -L_f.

    Source: Maini et al. (TOFU), arXiv 2401.06121, section 4, gradient ascent.
    Differs: L_f is capped, since unbounded ascent destroys the model; the cap is a field.

    Attributes:
        cap: Forget loss (nats a token) above which the gradient is zero.

    Example:
        >>> from unsee import Trainer, TrainingSettings
        >>> from unsee.methods.grad_ascent import GradAscent
        >>> trainer = Trainer(TrainingSettings(steps=1, batch_size=2))
        >>> result = GradAscent(cap=4).unlearn(vlm, data, trainer)
        >>> sorted(result.history.last)
        ['forget']
    """

    needs: ClassVar[frozenset[str]] = frozenset({"forget", "answers"})
    search: ClassVar[Search] = {"lr": (1e-5, 2e-5, 3e-5)}

    cap: Annotated[float, Field(gt=0)] = 8.0

    def loss(
        self, student: VLM, forget: Batch, retain: Batch | None, teacher: VLM | None
    ) -> dict[str, Tensor]:
        """Returns -L_f (capped), in nats a token; `retain` is not used."""
        return {"forget": -capped(nll(student.logits(forget), forget.labels), self.cap)}
