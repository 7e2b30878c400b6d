"""KL minimisation: gradient ascent on the forget set, KL to the start model on the retain set."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, ClassVar

import torch
from pydantic import Field

from unsee.errors import ConfigError
from unsee.losses import TokenScope, capped, masked_kl, nll, position_kl
from unsee.methods import METHODS, Method, Search

if TYPE_CHECKING:
    from torch import Tensor

    from unsee.models.vlm import VLM
    from unsee.types import Batch


@METHODS.register("kl_min", source="TOFU, arXiv 2401.06121")
@dataclass(frozen=True)
class KLMin(Method):
    """KL minimisation (KL): maximise the forget loss, minimise the KL divergence on the retain set.

    L = -w_forget L_f + w_retain E_{D_r} mean_t KL(p_0 || p), over answer tokens or all positions.

    Source: Maini et al. (TOFU), arXiv 2401.06121, section 4, after Nguyen et al.,
    arXiv 2010.10981.
    Differs: L_f is capped, since unbounded ascent destroys the model; the cap is a field. The
    authors' code averages the divergence over all positions of a batch, prompt, pictures and
    padding included (tokens=all), so that a batch's longest text decides how much the answers
    count; the default is the paper's, over the tokens that are predicted.

    Attributes:
        w_forget: Weight of the forget term.
        w_retain: Weight of the divergence from the start model on the retain set.
        cap: Forget loss (nats a token) above which the gradient is zero.
        tokens: Positions that the divergence runs over: those of the "answer", or "all".

    Example:
        >>> from unsee import Trainer, TrainingSettings
        >>> from unsee.methods.kl_min import KLMin
        >>> trainer = Trainer(TrainingSettings(steps=1, batch_size=2))
        >>> result = KLMin(w_retain=2).unlearn(vlm, data, trainer)
        >>> sorted(result.history.last)
        ['forget', 'retain']
    """

    needs: ClassVar[frozenset[str]] = frozenset({"forget", "retain", "teacher", "answers"})
    search: ClassVar[Search] = {"lr": (1e-5, 2e-5, 3e-5), "w_retain": (0.5, 1.0, 2.0)}
    aliases: ClassVar[Mapping[str, str]] = {"alpha": "w_retain"}

    w_forget: Annotated[float, Field(ge=0)] = 1.0
    w_retain: Annotated[float, Field(ge=0)] = 1.0
    cap: Annotated[float, Field(gt=0)] = 8.0
    tokens: TokenScope = "answer"

    def loss(
        self, student: VLM, forget: Batch, retain: Batch | None, teacher: VLM | None
    ) -> dict[str, Tensor]:
        """Returns -w_forget L_f (capped) and w_retain KL on the retain batch, in nats a token."""
        if teacher is None or retain is None:
            raise ConfigError("kl_min needs a teacher and a retain batch.")
        with torch.no_grad():
            known = teacher.logits(retain)
        ascent = -self.w_forget * capped(nll(student.logits(forget), forget.labels), self.cap)
        logits = student.logits(retain)
        if self.tokens == "all":
            drift = position_kl(known, logits)
        else:
            drift = masked_kl(known, logits, retain.labels)
        return {"forget": ascent, "retain": self.w_retain * drift}
