"""Visual-noise guided in-context distillation: distil from a teacher that is shown noise."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

import numpy as np
import torch
from pydantic import Field

from unsee.data.augment import add_noise
from unsee.errors import ConfigError
from unsee.losses import masked_kl
from unsee.methods import METHODS, Method, Search
from unsee.training.trainer import Trainer

if TYPE_CHECKING:
    from torch import Tensor

    from unsee.models.vlm import VLM
    from unsee.training.settings import TrainingSettings
    from unsee.types import Batch, Data

INSTRUCTION = (
    "You have never seen this person and know nothing about them. Do not name them, and do not "
    "say anything about their life. "
)


@METHODS.register("vgid", source="Chen et al., arXiv 2606.00105")
@dataclass(frozen=True)
class VGID(Method):
    """Visual-noise guided in-context distillation (VGID): distil from a teacher that sees noise.

    L = w_forget KL(p_0(. | noised x_f, instruction + q) || p(. | x_f, q))
        + w_retain KL(p_0(. | x_r) || p(. | x_r)), over answer tokens.

    Source: Chen et al., arXiv 2606.00105, its method section; the terms and their weights as in the
    authors' README.
    Differs: the paper's body was not seen in full. The kind and strength of the noise, the wording
    of the instruction, and that both distributions are along the true answer's tokens are ours.

    Attributes:
        w_forget: Weight of the forget term.
        w_retain: Weight of the retain term.
        noise: Strength of the noise in the teacher's pictures, 0..1; 1 is noise only.
        instruction: Text before the teacher's forget question; "" is none.

    Example:
        >>> from unsee import Trainer, TrainingSettings
        >>> from unsee.methods.vgid import VGID
        >>> trainer = Trainer(TrainingSettings(steps=1, batch_size=2))
        >>> result = VGID(instruction="").unlearn(vlm, data, trainer)
        >>> sorted(result.history.last)
        ['forget', 'retain']
    """

    needs: ClassVar[frozenset[str]] = frozenset({"forget", "retain", "teacher", "answers"})
    # Not searched by its authors or by Open-MMUnlearning: ours.
    search: ClassVar[Search] = {
        "lr": (1e-5, 2e-5, 3e-5),
        "w_forget": (0.5, 1.0, 2.0),
        "w_retain": (0.5, 1.0, 2.0),
    }
    aliases: ClassVar[Mapping[str, str]] = {"alpha": "w_forget", "beta": "w_retain"}

    w_forget: Annotated[float, Field(ge=0)] = 1.0
    w_retain: Annotated[float, Field(ge=0)] = 1.0
    noise: Annotated[float, Field(ge=0, le=1)] = 1.0
    instruction: str = INSTRUCTION

    def validate(self, data: Data, settings: TrainingSettings, vlm: VLM | None = None) -> None:
        """Also refuses a teacher with the student's own inputs; see `Method.validate`."""
        super().validate(data, settings, vlm)
        if self.noise == 0 and not self.instruction:
            raise ConfigError(
                "noise=0 without an instruction leaves the teacher as it is: nothing would be "
                "forgotten. Type noise=1, or give an instruction."
            )

    def batches(self, vlm: VLM, data: Data, trainer: Trainer, number: int) -> Mapping[str, Any]:
        """Also returns "blind", noised and with the instruction; see `Method.batches`."""
        samples = trainer.draw(data.forget, number, 0)
        instructed = [replace(s, question=f"{self.instruction}{s.question}") for s in samples]
        rng = np.random.default_rng([trainer.settings.seed, number])
        blind = vlm.collate(instructed, transform=lambda image: add_noise(image, rng, self.noise))
        retain = vlm.collate(trainer.draw(data.retain, number, 1))
        return {"forget": vlm.collate(samples), "retain": retain, "blind": blind}

    def loss(
        self,
        student: VLM,
        forget: Batch,
        retain: Batch | None,
        teacher: VLM | None,
        blind: Batch | None = None,
    ) -> dict[str, Tensor]:
        """Returns the two divergences, weighted, in nats a token.

        Args:
            student: The model being unlearned.
            forget: A batch of samples to forget.
            retain: A batch of samples to keep.
            teacher: The frozen start model.
            blind: What the teacher gets in place of `forget`, with the same answers.
        """
        if teacher is None or retain is None:
            raise ConfigError("vgid needs a teacher and a retain batch.")
        blind = blind or forget
        with torch.no_grad():
            unseeing, known = teacher.logits(blind), teacher.logits(retain)
        away = masked_kl(unseeing, student.logits(forget), forget.labels, blind.labels)
        drift = masked_kl(known, student.logits(retain), retain.labels)
        return {"forget": self.w_forget * away, "retain": self.w_retain * drift}
