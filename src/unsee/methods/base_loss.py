"""Base class of methods that add something to another method's loss."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from pydantic import Field

from unsee.methods import Method
from unsee.methods.grad_diff import GradDiff
from unsee.methods.npo import NPO

if TYPE_CHECKING:
    from torch import Tensor

    from unsee.models.vlm import VLM
    from unsee.types import Batch


@dataclass(frozen=True)
class WithForgetLoss(Method):
    """A method on top of NPO's or gradient difference's loss.

    Attributes:
        forget_loss: The loss: of the methods "npo" or "grad_diff".
        beta: Inverse temperature of NPO.
        cap: Forget loss (nats a token) above which the gradient of grad_diff is zero.
        w_forget: Weight of its forget term.
        w_retain: Weight of its retain term.
    """

    needs: ClassVar[frozenset[str]] = frozenset({"forget", "retain", "answers"})

    forget_loss: Literal["npo", "grad_diff"] = "npo"
    beta: Annotated[float, Field(gt=0)] = 0.9
    cap: Annotated[float, Field(gt=0)] = 8.0
    w_forget: Annotated[float, Field(ge=0)] = 1.0
    w_retain: Annotated[float, Field(ge=0)] = 1.0

    @property
    def required(self) -> frozenset[str]:
        """Also what the loss needs; see `Method.required`."""
        return self.needs | (NPO.needs if self.forget_loss == "npo" else GradDiff.needs)

    def forget_terms(
        self, student: VLM, forget: Batch, retain: Batch | None, teacher: VLM | None
    ) -> dict[str, Tensor]:
        """Returns the terms "forget" and "retain" of the chosen loss, in nats.

        Args:
            student: The model being unlearned.
            forget: A batch of samples to forget.
            retain: A batch of samples to keep.
            teacher: The frozen start model.
        """
        method: Method = NPO(beta=self.beta, w_forget=self.w_forget, w_retain=self.w_retain)
        if self.forget_loss == "grad_diff":
            method = GradDiff(w_forget=self.w_forget, w_retain=self.w_retain, cap=self.cap)
        return method.loss(student, forget, retain, teacher)
