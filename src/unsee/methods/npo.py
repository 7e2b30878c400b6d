"""Negative preference optimisation: the forget answers as the rejected side of a preference."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, ClassVar

import torch
import torch.nn.functional as F
from pydantic import Field

from unsee.errors import ConfigError
from unsee.losses import nll, sequence_logps
from unsee.methods import METHODS, Method, Search

if TYPE_CHECKING:
    from torch import Tensor

    from unsee.models.vlm import VLM
    from unsee.types import Batch


def npo_loss(logps: Tensor, reference: Tensor, beta: float) -> Tensor:
    """Returns -(2/beta) mean log sigmoid(-beta r), r the log-ratio of student to start model.

    Args:
        logps: The student's log-probability of each answer [batch], nats.
        reference: The frozen start model's log-probability of each answer [batch], nats.
        beta: Inverse temperature.
    """
    return -(2 / beta) * F.logsigmoid(-beta * (logps - reference)).mean()


@METHODS.register("npo", source="Zhang et al., arXiv 2404.05868")
@dataclass(frozen=True)
class NPO(Method):
    """Negative preference optimisation (NPO): ascent that slows down as answers become unlikely.

    L = -w_forget (2/beta) E log sigmoid(-beta r) + w_retain L_r, r = log p(y|x) - log p_0(y|x),
    summed over answer tokens.

    Source: Zhang et al., arXiv 2404.05868, equation 3.

    Attributes:
        beta: Inverse temperature.
        w_forget: Weight of the forget term.
        w_retain: Weight of the retain term.

    Example:
        >>> from unsee import Trainer, TrainingSettings
        >>> from unsee.methods.npo import NPO
        >>> trainer = Trainer(TrainingSettings(steps=1, batch_size=2))
        >>> result = NPO(beta=0.1).unlearn(vlm, data, trainer)
        >>> sorted(result.history.last)
        ['forget', 'retain']
    """

    needs: ClassVar[frozenset[str]] = frozenset({"forget", "retain", "teacher", "answers"})
    search: ClassVar[Search] = {
        "lr": (1e-5, 2e-5, 3e-5),
        "beta": (0.6, 0.9, 1.2),
        "w_retain": (0.5, 1.0, 2.0),
    }
    aliases: ClassVar[Mapping[str, str]] = {"lambda_r": "w_retain"}

    beta: Annotated[float, Field(gt=0)] = 0.9
    w_forget: Annotated[float, Field(ge=0)] = 1.0
    w_retain: Annotated[float, Field(ge=0)] = 1.0

    def loss(
        self, student: VLM, forget: Batch, retain: Batch | None, teacher: VLM | None
    ) -> dict[str, Tensor]:
        """Returns the preference term and w_retain L_r, in nats."""
        if teacher is None:
            raise ConfigError("npo needs a teacher.")
        with torch.no_grad():
            reference = sequence_logps(teacher.logits(forget), forget.labels)
        logps = sequence_logps(student.logits(forget), forget.labels)
        terms = {"forget": self.w_forget * npo_loss(logps, reference, self.beta)}
        if retain is not None:
            terms["retain"] = self.w_retain * nll(student.logits(retain), retain.labels)
        return terms
