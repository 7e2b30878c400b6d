"""Self-distillation from the start model's logits, with the true token's logit lowered."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, ClassVar

import torch
from pydantic import Field

from unsee.errors import ConfigError
from unsee.losses import TokenScope, adjusted_cross_entropy, nll
from unsee.methods import METHODS, Method, Search

if TYPE_CHECKING:
    from torch import Tensor

    from unsee.models.vlm import VLM
    from unsee.types import Batch


@METHODS.register("undial", source="Dong et al., arXiv 2402.10052")
@dataclass(frozen=True)
class UNDIAL(Method):
    """UNDIAL: self-distillation from the start model's logits, the true token's lowered by gamma.

    L = w_forget CE(softmax(z_0 - gamma onehot(y_t)), p) on D_f + w_retain L_r, over answer tokens
    or all positions of D_f.

    Source: Dong et al., arXiv 2402.10052, its self-distillation loss with adjusted logits (the
    equation's number was not seen).
    Differs: L_r is added, as Open-MMUnlearning (arXiv 2610.10358) does; w_retain=0 is the paper's.
    The authors' code runs over all positions of a batch, prompt, pictures and padding included
    (tokens=all), and so unlearns the question too; the default is the answer's, as in
    Open-MMUnlearning.

    Attributes:
        gamma: Amount subtracted from the true token's logit (nats).
        w_forget: Weight of the forget term.
        w_retain: Weight of the retain term.
        tokens: Positions of forget samples that are distilled: those of the "answer", or "all".

    Example:
        >>> from unsee import Trainer, TrainingSettings
        >>> from unsee.methods.undial import UNDIAL
        >>> trainer = Trainer(TrainingSettings(steps=1, batch_size=2))
        >>> result = UNDIAL(gamma=5).unlearn(vlm, data, trainer)
        >>> sorted(result.history.last)
        ['forget', 'retain']
    """

    needs: ClassVar[frozenset[str]] = frozenset({"forget", "retain", "teacher", "answers"})
    search: ClassVar[Search] = {"lr": (1e-5, 1e-4, 3e-4), "gamma": (3.0, 10.0, 30.0)}
    aliases: ClassVar[Mapping[str, str]] = {"lambda_r": "w_retain"}

    gamma: Annotated[float, Field(ge=0)] = 10.0
    w_forget: Annotated[float, Field(ge=0)] = 1.0
    w_retain: Annotated[float, Field(ge=0)] = 1.0
    tokens: TokenScope = "answer"

    def loss(
        self, student: VLM, forget: Batch, retain: Batch | None, teacher: VLM | None
    ) -> dict[str, Tensor]:
        """Returns the distillation term and w_retain L_r, in nats a token."""
        if teacher is None:
            raise ConfigError("undial needs a teacher.")
        with torch.no_grad():
            known = teacher.logits(forget)
        logits = student.logits(forget)
        true = forget.inputs["input_ids"] if self.tokens == "all" else forget.labels
        distilled = adjusted_cross_entropy(known, logits, true, self.gamma)
        terms = {"forget": self.w_forget * distilled}
        if retain is not None:
            terms["retain"] = self.w_retain * nll(student.logits(retain), retain.labels)
        return terms
