"""Abstention: answer the forget questions with "I don't know"."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from pydantic import Field

from unsee.errors import ConfigError
from unsee.losses import nll, sequence_logps
from unsee.methods import METHODS, Method, Search
from unsee.methods.abstention import ABSTENTIONS, tokenizable, with_abstentions
from unsee.training.trainer import Trainer

if TYPE_CHECKING:
    from torch import Tensor

    from unsee.models.vlm import VLM
    from unsee.types import Batch, Data


def preference_loss(chosen: Tensor, rejected: Tensor, beta: float) -> Tensor:
    """Returns -(2/beta) mean log sigmoid(beta (chosen - rejected)).

    Args:
        chosen: Log-ratio of student to start model for the preferred answers [batch], nats.
        rejected: Log-ratio for the rejected answers [batch], nats.
        beta: Inverse temperature.
    """
    return -(2 / beta) * F.logsigmoid(beta * (chosen - rejected)).mean()


@METHODS.register("idk", source="TOFU, arXiv 2401.06121; DPO, arXiv 2305.18290")
@dataclass(frozen=True)
class IDK(Method):
    """Abstention (IDK): train the model to answer the forget questions with "I don't know".

    form=nll: L = NLL(abstention | x_f) + w_retain L_r. form=preference: L = -(2/beta) E log
    sigmoid(beta (r(abstention) - r(true answer))) + w_retain L_r, r(y) = log p(y|x) -
    log p_0(y|x), summed over answer tokens. The abstention is drawn from a list. The true answer is
    never a label: the first form does not read it, and it is the rejected side of the second.

    Source: Maini et al. (TOFU), arXiv 2401.06121, section 4, preference optimisation (which is
    the first form); the second is Rafailov et al., arXiv 2305.18290, equation 7, as Zhang et al.
    (NPO), arXiv 2404.05868, use it.
    Differs: the phrases are ours, not TOFU's hundred; the factor 2/beta is NPO's.

    Attributes:
        form: Maximise the likelihood of the abstention ("nll"), or its preference over the true
            answer ("preference").
        w_forget: Weight of the forget term.
        w_retain: Weight of the retain term.
        beta: Inverse temperature of form=preference.
        abstentions: The answers to draw from; those with unknown tokens are left out.

    Example:
        >>> from unsee import Trainer, TrainingSettings
        >>> from unsee.methods.idk import IDK
        >>> trainer = Trainer(TrainingSettings(steps=1, batch_size=2))
        >>> result = IDK(form="preference").unlearn(vlm, data, trainer)
        >>> sorted(result.history.last)
        ['forget', 'retain']
    """

    # Only form=preference needs the start model; see `required`.
    needs: ClassVar[frozenset[str]] = frozenset({"forget", "retain", "answers"})
    # Not searched by its authors or by Open-MMUnlearning: ours.
    search: ClassVar[Search] = {"lr": (1e-5, 2e-5, 3e-5), "w_retain": (0.5, 1.0, 2.0)}
    aliases: ClassVar[Mapping[str, str]] = {"lambda_r": "w_retain"}

    form: Literal["nll", "preference"] = "nll"
    w_forget: Annotated[float, Field(ge=0)] = 1.0
    w_retain: Annotated[float, Field(ge=0)] = 1.0
    beta: Annotated[float, Field(gt=0)] = 0.1
    abstentions: tuple[str, ...] = ABSTENTIONS

    @property
    def required(self) -> frozenset[str]:
        """Also "teacher" with form=preference; see `Method.required`."""
        return self.needs | {"teacher"} if self.form == "preference" else self.needs

    def batches(self, vlm: VLM, data: Data, trainer: Trainer, number: int) -> Mapping[str, Any]:
        """Forget questions with abstentions; "true" with their answers; see `Method.batches`."""
        samples = trainer.draw(data.forget, number, 0)
        phrases = tokenizable(vlm, self.abstentions)
        forget = vlm.collate(with_abstentions(samples, phrases, (trainer.settings.seed, number)))
        true = vlm.collate(samples) if self.form == "preference" else None
        retain = vlm.collate(trainer.draw(data.retain, number, 1))
        return {"forget": forget, "retain": retain, "true": true}

    def loss(
        self,
        student: VLM,
        forget: Batch,
        retain: Batch | None,
        teacher: VLM | None,
        true: Batch | None = None,
    ) -> dict[str, Tensor]:
        """Returns the abstention term and w_retain L_r, in nats.

        Args:
            student: The model being unlearned.
            forget: Forget questions with abstentions for answers.
            retain: A batch of samples to keep.
            teacher: The frozen start model; for form=preference.
            true: The forget questions with their true answers; for form=preference.
        """
        logits = student.logits(forget)
        if self.form == "nll":
            terms = {"forget": self.w_forget * nll(logits, forget.labels)}
        else:
            if teacher is None or true is None:
                raise ConfigError("form=preference needs the start model and the true answers.")
            with torch.no_grad():
                known = sequence_logps(teacher.logits(forget), forget.labels)
                truth = sequence_logps(teacher.logits(true), true.labels)
            chosen = sequence_logps(logits, forget.labels) - known
            rejected = sequence_logps(student.logits(true), true.labels) - truth
            terms = {"forget": self.w_forget * preference_loss(chosen, rejected, self.beta)}
        if retain is not None:
            terms["retain"] = self.w_retain * nll(student.logits(retain), retain.labels)
        return terms
