"""Trainer."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unsee.errors import ConfigError
from unsee.training.distributed import DistributedContext, parallel
from unsee.training.launcher import world_size
from unsee.training.loop import Progress, fit
from unsee.training.lora import Lora, LoraAdapters
from unsee.training.prefetch import Prefetcher, T, threads_for
from unsee.training.preparation import prepared_model
from unsee.training.sampling import batch_indices, seed_step
from unsee.training.settings import TrainingSettings
from unsee.training.state import TrainingHistory
from unsee.types import Sample

if TYPE_CHECKING:
    from torch import Tensor, nn

    from unsee.models.vlm import VLM


WHOLE = "needs whole weights, and they are shared out among processes. Type parallel=ddp."


@dataclass
class Trainer:
    """What a method trains with: settings, and where state, log and progress go.

    Attributes:
        settings: Steps, rate, seed and so on.
        folder: Keeps the resumable state; None keeps none.
        log: Gets a line a step.
        progress: Is told about every step.
        engine: How steps are computed, and with which other processes; None is what the settings
            and the launcher say.
        history: What the training did.
        adapters: The LoRA adapters that were trained, if the settings ask for some.
        choices: What the method chose before it trained, such as how many weights a mask lets
            through and where; the record holds it, so it must be JSON.
    """

    settings: TrainingSettings
    folder: Path | None = None
    log: Path | None = None
    progress: Progress | None = None
    engine: DistributedContext | None = None
    history: TrainingHistory = field(default_factory=TrainingHistory)
    adapters: LoraAdapters | None = None
    choices: dict[str, Any] = field(default_factory=dict)

    def adapt(self, vlm: VLM, parameters: Mapping[str, nn.Parameter]) -> Mapping[str, nn.Parameter]:
        """What to train in place of `parameters`: LoRA adapters if the settings ask for them.

        `fit` folds them into the weights once they are trained.

        Raises:
            ConfigError: If a part has no layer that can be adapted.
            ModelError: If the model is quantized.
        """
        vlm.refuse_training()
        settings = self.settings
        if settings.lora == 0:
            return parameters
        # Drawn at random: a resumed run must start from the same ones.
        seed_step(settings.seed, settings.steps)
        lora = Lora(settings.lora, settings.lora_alpha, settings.lora_dropout)
        self.adapters = LoraAdapters(vlm, parameters, lora)
        return self.adapters.parameters

    def fit(
        self,
        vlm: VLM,
        parameters: Mapping[str, nn.Parameter],
        step: Callable[[int], Mapping[str, Tensor]],
        gradient: Callable[[Mapping[str, nn.Parameter]], None] | None = None,
    ) -> TrainingHistory:
        """Trains these parameters of a model; see `unsee.train.fit`.

        Raises:
            ConfigError: If the model cannot be trained as the settings say.
        """
        joined = self.engine or DistributedContext.initialize(self.settings, vlm.device.type)
        if gradient is not None and joined.parallel != "ddp":
            raise ConfigError(f"a mask on the gradients {WHOLE}")
        with prepared_model(joined, vlm, parameters, self.settings) as (engine, trained):
            self.history = fit(
                trained,
                step,
                self.settings,
                engine=engine,
                folder=self.folder,
                log=self.log,
                progress=self.progress,
                gradient=gradient,
            )
        if self.adapters is not None:
            self.adapters.merge()
        return self.history

    @property
    def share(self) -> float:
        """What a batch's gradient counts in a step, for those who add to `.grad` themselves.

        Raises:
            ConfigError: If gradients or weights are shared out among processes.
        """
        if parallel(self.settings) != "ddp":
            raise ConfigError(f"inner relearning {WHOLE}")
        return world_size() / self.settings.accumulate

    def draw(self, samples: Sequence[Sample], step: int, stream: int = 0) -> list[Sample]:
        """The samples of a batch; streams of different sets are shuffled apart."""
        settings = self.settings
        seed = settings.seed * 101 + stream
        return [samples[i] for i in batch_indices(len(samples), settings.batch_size, step, seed)]

    def prefetch(self, vlm: VLM, make: Callable[[int], T]) -> Prefetcher[T]:
        """What the steps need, made while the one before is computed.

        Args:
            vlm: The model.
            make: Given the number of a batch, what it needs; must depend on nothing else.
        """
        settings = self.settings
        threads = threads_for(settings.workers, vlm.device.type)
        return Prefetcher(make, threads, settings.steps * settings.accumulate, world_size())
