"""Gradient ascent: raise the loss on what is to be forgotten, and nothing else."""

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
    """Gradient ascent (GA): raise the forget loss; nothing holds what is to be kept.

    L = -L_f.

    Source: Maini et al. (TOFU), arXiv 2401.06121, section 4, gradient ascent.
    Differs: L_f is capped, since unbounded ascent destroys the model; the cap is a field.

    Attributes:
        cap: Forget loss (nats a token) above which it no longer pushes.
    """

    needs: ClassVar[frozenset[str]] = frozenset({"forget", "answers"})
    search: ClassVar[Search] = {"lr": (1e-5, 2e-5, 3e-5)}

    cap: Annotated[float, Field(gt=0)] = 8.0

    def loss(
        self, student: VLM, forget: Batch, retain: Batch | None, teacher: VLM | None
    ) -> dict[str, Tensor]:
        """-L_f (capped), in nats; what is to be kept is not looked at."""
        return {"forget": -capped(nll(student.logits(forget), forget.labels), self.cap)}
