"""SineProject: any forget loss, with the projector changed by at most the sine of an angle."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from unsee.errors import ConfigError, ModelError
from unsee.methods import METHODS, Search, copy_start_model
from unsee.methods.base_loss import WithForgetLoss
from unsee.training.trainer import Trainer, TrainingResult, refuse_sharding
from unsee.types import Part

if TYPE_CHECKING:
    from unsee.models.vlm import VLM
    from unsee.training.settings import TrainingSettings
    from unsee.types import Batch, Data


class SineChange(nn.Module):
    """The weight W + sin(dW) as a function of dW, W frozen: a torch parametrization."""

    frozen: Tensor

    def __init__(self, weight: Tensor) -> None:
        """Freezes a copy of `weight` (W)."""
        super().__init__()
        self.register_buffer("frozen", weight.detach().clone(), persistent=False)

    def forward(self, change: Tensor) -> Tensor:
        """Returns W + sin(dW)."""
        return self.frozen + change.sin()

    def right_inverse(self, weight: Tensor) -> Tensor:
        """Returns dW of a weight: 0 where it is W."""
        return (weight - self.frozen).asin()


@contextmanager
def sine_changes(vlm: VLM) -> Iterator[dict[str, nn.Parameter]]:
    """Yields dW (0) of the projector's matrices, by name; afterwards W + sin(dW) is stored.

    Args:
        vlm: The model.

    Raises:
        ModelError: If the projector has no matrix.
    """
    matrices = [n for n, p in vlm.parameters("projector").items() if p.dim() > 1]
    if not matrices:
        raise ModelError(
            "the projector of this model has no matrix for sineproject to change. Choose another "
            "method."
        )
    split = [name.rpartition(".") for name in matrices]
    places = [(vlm.model.get_submodule(owner), leaf) for owner, _, leaf in split]
    orders = [(module, list(module._parameters)) for module, _ in places]
    for module, leaf in places:
        change = SineChange(getattr(module, leaf))
        parametrize.register_parametrization(module, leaf, change)
    names = [f"{owner}.parametrizations.{leaf}.original" for owner, _, leaf in split]
    try:
        yield {name: vlm.model.get_parameter(name) for name in names}
    finally:
        for module, leaf in places:
            with torch.no_grad():
                parametrize.remove_parametrizations(module, leaf, leave_parametrized=True)
        for module, order in orders:
            # They now stand last; a checkpoint's order is the one before.
            for leaf in order:
                module._parameters[leaf] = module._parameters.pop(leaf)


@METHODS.register("sineproject", source="Garg et al., arXiv 2511.18444")
@dataclass(frozen=True)
class SineProject(WithForgetLoss):
    """SineProject: a forget loss, with the projector's weights trained as W + sin(dW).

    W is frozen and dW starts at 0, so no weight of the projector moves by more than 1. With
    trains=all the LLM is trained beside it (with lora=R by adapters); the encoder is frozen.

    Source: Garg et al., arXiv 2511.18444, its reparametrized projector (the equations' numbers
    were not seen).
    Differs: biases and norms of the projector are frozen. The forget loss is a choice; the paper
    combines its projector with several.

    Attributes:
        trains: "all" is the projector and the LLM, "projector" the projector alone.

    Example:
        >>> from unsee import Trainer, TrainingSettings
        >>> from unsee.methods.sineproject import SineProject
        >>> trainer = Trainer(TrainingSettings(steps=1, batch_size=2))
        >>> result = SineProject(trains="projector").unlearn(vlm, data, trainer)
        >>> sorted(result.history.last)
        ['forget', 'retain']
    """

    parts: ClassVar[tuple[Part, ...]] = ("projector", "all")
    # Not searched by Open-MMUnlearning: ours.
    search: ClassVar[Search] = {
        "lr": (1e-5, 2e-5, 3e-5),
        "beta": (0.6, 0.9, 1.2),
        "w_retain": (0.5, 1.0, 2.0),
    }

    def validate(self, data: Data, settings: TrainingSettings, vlm: VLM | None = None) -> None:
        """Also refuses adapters without an LLM, and sharding; see `Method.validate`."""
        super().validate(data, settings, vlm)
        refuse_sharding(settings, "sineproject")
        if settings.lora and not self.changes_language:
            raise ConfigError(
                "sineproject trains no adapter in the projector, whose weights it changes by "
                "sin(dW). Type lora=0, or trains=all for adapters in the LLM."
            )

    def train(self, vlm: VLM, data: Data, trainer: Trainer) -> TrainingResult:
        """Changes the weights of `vlm` in place; see `Method.train`."""
        vlm.model.requires_grad_(False)
        teacher = copy_start_model(vlm, replace(self, trains="all"))
        language = vlm.parameters("language") if self.changes_language else {}

        def step(number: int) -> Mapping[str, Tensor]:
            return self.loss_of_batch(vlm, data, trainer, number, teacher)

        with sine_changes(vlm) as changes:
            adapters = trainer.add_adapters(vlm, language)
            trained = language if adapters is None else adapters.parameters
            result = trainer.fit(vlm, {**changes, **trained}, step, adapters=adapters)
        # The projector's change is no product of two small matrices, so no adapter can hold it.
        return replace(result, adapters=None)

    def loss(
        self, student: VLM, forget: Batch, retain: Batch | None, teacher: VLM | None
    ) -> dict[str, Tensor]:
        """Returns the terms of the forget loss, in nats."""
        return self.forget_terms(student, forget, retain, teacher)
