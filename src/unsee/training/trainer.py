"""`Trainer`, the inputs of a training besides model and data, and `TrainingResult`, its result."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unsee.errors import ConfigError
from unsee.training.distributed import DistributedContext, choose_strategy
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


NEEDS_DDP = "needs whole weights, and they are sharded among processes. Type parallel=ddp."


def refuse_sharding(settings: TrainingSettings, what: str) -> None:
    """Refuses weights that are sharded among processes (FSDP).

    Args:
        settings: The training settings.
        what: What needs whole weights; begins the message.

    Raises:
        ConfigError: If the weights are sharded.
    """
    if choose_strategy(settings) == "fsdp":
        raise ConfigError(f"{what} {NEEDS_DDP}")


@dataclass(frozen=True)
class TrainingResult:
    """The result of a training, except for the weights, which are trained in place.

    Attributes:
        history: Steps, seconds and the last loss terms.
        adapters: The LoRA adapters that were trained and merged, if the settings ask for some.
        choices: What the method chose before it trained, such as how many weights a mask lets
            through and where; the record holds it, so it must be JSON.
    """

    history: TrainingHistory = field(default_factory=TrainingHistory)
    adapters: LoraAdapters | None = None
    choices: Mapping[str, Any] = field(default_factory=dict)

    def after(self, stage: str, first: TrainingResult) -> TrainingResult:
        """Returns the result of a training that followed a first stage.

        Args:
            stage: The name of the first stage, under which the choices hold its steps and last
                loss terms.
            first: Its result; its time counts too.
        """
        seconds = first.history.seconds + self.history.seconds
        told = {"steps": first.history.steps, "last": first.history.last}
        return replace(
            self,
            history=replace(self.history, seconds=seconds),
            choices={**self.choices, stage: told},
        )

    def __repr__(self) -> str:
        """One line: steps, seconds, last loss terms, and the names of the choices."""
        terms = ", ".join(f"{name}={value:.4g}" for name, value in self.history.last.items())
        parts = [f"steps={self.history.steps}", f"seconds={self.history.seconds:.1f}"]
        parts += [f"last=({terms})"] if terms else []
        parts += [f"adapters={len(self.adapters.targets)}"] if self.adapters is not None else []
        parts += [f"choices=[{', '.join(self.choices)}]"] if self.choices else []
        return f"TrainingResult({', '.join(parts)})"


@dataclass(frozen=True)
class Trainer:
    """Inputs of a training besides model and data: settings, state folder, log and progress.

    `fit` returns a `TrainingResult`; the trainer itself does not change.

    Example:
        >>> trainer = Trainer(TrainingSettings(steps=1, batch_size=2))
        >>> from unsee.methods import METHODS
        >>> result = METHODS.get("grad_diff")().unlearn(vlm, data, trainer)
        >>> result.history.steps
        1

    Attributes:
        settings: Steps, learning rate, seed and so on.
        folder: Keeps the resumable state; None keeps none.
        log: A JSONL file that gets one line a step; None writes none.
        progress: Called after every step.
        context: How steps are computed, and with which other processes; None initializes it from
            the settings and the launcher's environment.
    """

    settings: TrainingSettings
    folder: Path | None = None
    log: Path | None = None
    progress: Progress | None = None
    context: DistributedContext | None = None

    def add_adapters(self, vlm: VLM, parameters: Mapping[str, nn.Parameter]) -> LoraAdapters | None:
        """LoRA adapters to train in place of `parameters`; None if the settings ask for none.

        Pass them to `fit`, which merges them into the weights once they are trained.

        Raises:
            ConfigError: If a part has no layer that can be adapted.
            ModelError: If the model is quantized.
        """
        vlm.refuse_training()
        settings = self.settings
        if settings.lora == 0:
            return None
        # Drawn at random: a resumed run must start from the same ones.
        seed_step(settings.seed, settings.steps)
        lora = Lora(settings.lora, settings.lora_alpha, settings.lora_dropout)
        return LoraAdapters(vlm, parameters, lora)

    def fit(
        self,
        vlm: VLM,
        parameters: Mapping[str, nn.Parameter],
        step: Callable[[int], Mapping[str, Tensor]],
        *,
        adapters: LoraAdapters | None = None,
        gradient: Callable[[Mapping[str, nn.Parameter]], None] | None = None,
    ) -> TrainingResult:
        """Trains parameters of a model in place; see `unsee.training.loop.fit`.

        Args:
            vlm: The model that holds them.
            parameters: What to train, by name.
            step: Given the number of a (micro-)batch, its named loss terms.
            adapters: The LoRA adapters among `parameters`, which are merged into the weights at
                the end.
            gradient: Edits the gradients in place before each update, such as a mask.

        Raises:
            ConfigError: If the model cannot be trained as the settings say.
        """
        context = self.context or DistributedContext.initialize(self.settings, vlm.device.type)
        if gradient is not None and context.strategy != "ddp":
            raise ConfigError(f"a mask on the gradients {NEEDS_DDP}")
        with prepared_model(context, vlm, parameters, self.settings) as (prepared, trained):
            history = fit(
                trained,
                step,
                self.settings,
                context=prepared,
                folder=self.folder,
                log=self.log,
                progress=self.progress,
                gradient=gradient,
            )
        if adapters is not None:
            adapters.merge()
        return TrainingResult(history, adapters)

    @property
    def gradient_scale(self) -> float:
        """The weight of a batch's gradient in a step, for code that adds to `.grad` itself.

        Raises:
            ConfigError: If gradients or weights are sharded among processes.
        """
        if choose_strategy(self.settings) != "ddp":
            raise ConfigError(f"inner relearning {NEEDS_DDP} Or leave it out: relearn_steps=0.")
        return world_size() / self.settings.accumulate

    def stage(self, name: str, **changes: Any) -> Trainer:
        """A trainer for a stage before the training itself, which the log does not show.

        It keeps its state in a subfolder, so that a resumed run does not repeat the stage.

        Args:
            name: Name of the subfolder.
            **changes: Settings in which the stage differs.
        """
        folder = None if self.folder is None else self.folder / name
        settings = replace(self.settings, **changes)
        return replace(self, settings=settings, folder=folder, log=None, progress=None)

    def draw(self, samples: Sequence[Sample], step: int, stream: int = 0) -> list[Sample]:
        """The samples of a batch.

        Args:
            samples: The samples to draw from.
            step: The number of the (micro-)batch.
            stream: Number of the random stream; different sets are shuffled independently.
        """
        settings = self.settings
        seed = settings.seed * 101 + stream
        return [samples[i] for i in batch_indices(len(samples), settings.batch_size, step, seed)]

    def prefetch(self, vlm: VLM, make: Callable[[int], T]) -> Prefetcher[T]:
        """Makes the inputs of the next steps in threads while a step is computed.

        Args:
            vlm: The model.
            make: Returns the inputs of the batch with the given number; must depend on nothing
                else.
        """
        settings = self.settings
        threads = threads_for(settings.workers, vlm.device.type)
        return Prefetcher(make, threads, settings.steps * settings.accumulate, world_size())
