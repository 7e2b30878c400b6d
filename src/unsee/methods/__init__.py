"""Unlearning methods: one file each, and what they have in common.

A method is a frozen dataclass: its fields are its hyperparameters, its configuration schema and its
command-line keys. Most override `loss` alone; those with a state of their own, or without training,
override `change`.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from unsee.errors import ConfigError, DataError
from unsee.files import require_free_space
from unsee.registry import Registry
from unsee.training.preparation import float32_model
from unsee.training.settings import TrainingSettings
from unsee.training.trainer import Trainer, TrainingResult
from unsee.types import Batch, Data, Part

if TYPE_CHECKING:
    from torch import Tensor

    from unsee.benchmarks import CheckpointRole
    from unsee.models.vlm import VLM


METHODS: Registry[type[Method]] = Registry("method", "unsee.methods")


# Values to try, by field of the method or of the training settings.
Search = Mapping[str, tuple[Any, ...]]


@dataclass(frozen=True)
class Method:
    """Base of all methods.

    Attributes:
        defaults: Training settings that suit it, where they are not the usual ones.
        presets: What a name stands for where a recipe sets it to true: values of fields and of
            training settings. Those given beside it count more.
        training_free: Whether it takes no optimiser step, whatever the settings say.
        weights_only: Whether it edits single weights, and so refuses LoRA, which trains none.
        search: What `unsee compare` tries, the published ranges where there are any; learning rates
            are those of 7 billion parameters, which a benchmark may scale (`rate_scale`).
        aliases: Earlier names of fields, old to new. They work, with a warning, for one release.
        value_aliases: Earlier values of a field, by its current name: old to new, likewise.
        trains: The part whose parameters may change.
    """

    name: ClassVar[str]
    source: ClassVar[str]
    needs: ClassVar[frozenset[str]] = frozenset({"forget", "retain"})
    defaults: ClassVar[Mapping[str, object]] = {}
    presets: ClassVar[Mapping[str, Mapping[str, object]]] = {}
    training_free: ClassVar[bool] = False
    weights_only: ClassVar[bool] = False
    search: ClassVar[Search] = {}
    aliases: ClassVar[Mapping[str, str]] = {}
    value_aliases: ClassVar[Mapping[str, Mapping[str, str]]] = {}

    trains: Part = "all"

    @classmethod
    def expanded(cls, given: Mapping[str, object]) -> dict[str, object]:
        """`defaults` and what was given; a preset that is true by what it stands for."""
        found = dict(cls.defaults)
        for name, values in cls.presets.items():
            if given.get(name) is True:
                found |= values
        return found | {k: v for k, v in given.items() if k not in cls.presets}

    @property
    def changes_language(self) -> bool:
        """Whether the language part is trained: no teacher can share it, no patch carry it."""
        return self.trains in ("all", "language")

    @property
    def required(self) -> frozenset[str]:
        """What this configuration needs: `needs`, and what its fields add to it.

        Any of "forget", "retain", "strangers" (sets of the data), "answers" (to questions about
        the forget pictures) and "teacher" (a frozen copy of the start model).
        """
        return self.needs

    @property
    def reads_language(self) -> bool:
        """Whether this configuration runs the language model; if not, it need not be loaded."""
        return True

    @property
    def missing_checkpoints(self) -> Mapping[str, CheckpointRole]:
        """Fields that must name a checkpoint and do not yet: field to the role of the checkpoint.

        A benchmark that ships a checkpoint of that role ("base": before it learned the people)
        fills the field in.
        """
        return {}

    def adapt_to(self, data: Data, given: Collection[str] = ()) -> tuple[Method, list[str]]:
        """Returns the method with fields that suit the data, and notes for the user about them.

        Called once, before anything is loaded. The default changes nothing.

        Args:
            data: What the user gave. An empty `retain` or `strangers` was not given, and gets a
                default later.
            given: Names of the fields that the user set, which must stay as they are.

        Raises:
            ConfigError: If a field in `given` contradicts the data.
        """
        return self, []

    def unlearn(self, vlm: VLM, data: Data, trainer: Trainer) -> TrainingResult:
        """Unlearns in place: the weights of `vlm` itself are changed.

        Args:
            vlm: The model; afterwards it is the unlearned one.
            data: What to forget and what to keep.
            trainer: Settings, and where state and log go.

        Returns:
            What the training did: history, adapters and the method's choices.

        Raises:
            UnseeError: If data, model or settings do not suit; nothing is changed then.
            TrainingError: If training fails.
        """
        self.validate(vlm, data, trainer.settings)
        with float32_model(vlm, trainer.settings):
            return self.train(vlm, data, trainer)

    def train(self, vlm: VLM, data: Data, trainer: Trainer) -> TrainingResult:
        """What `unlearn` does to a model that is ready for it: by default, minimises `loss`."""
        vlm.model.requires_grad_(False)
        teacher = self.teacher(vlm, adapted=trainer.settings.lora > 0)

        def step(number: int) -> Mapping[str, Tensor]:
            return self.step_terms(vlm, data, trainer, number, teacher)

        weights = vlm.parameters(self.trains)
        adapters = trainer.add_adapters(vlm, weights)
        parameters = weights if adapters is None else adapters.parameters
        return trainer.fit(vlm, parameters, step, adapters=adapters)

    def step_terms(
        self, vlm: VLM, data: Data, trainer: Trainer, number: int, teacher: VLM | None
    ) -> Mapping[str, Tensor]:
        """The loss terms of a (micro-)batch: draws it, and asks `loss`.

        Must depend on nothing but its arguments, and on the weights.
        """
        forget = vlm.collate(trainer.draw(data.forget, number, 0))
        kept = "retain" in self.needs and data.retain
        retain = vlm.collate(trainer.draw(data.retain, number, 1)) if kept else None
        return self.loss(vlm, forget, retain, teacher)

    @property
    def uses_teacher(self) -> bool:
        """Whether the loss compares with the model at the start."""
        return "teacher" in self.needs

    def teacher(self, vlm: VLM, adapted: bool = False) -> VLM | None:
        """A frozen copy of the model at the start, if the method needs one.

        Args:
            vlm: The model.
            adapted: Whether adapters are trained beside its weights. These then stay as they are
                until the adapters are folded in, so the teacher needs none of its own.
        """
        if not self.uses_teacher:
            return None
        if adapted:
            return vlm.frozen_copy(own=())
        return vlm.frozen_copy() if self.changes_language else vlm.frozen_visual_copy()

    def loss(
        self, student: VLM, forget: Batch, retain: Batch | None, teacher: VLM | None
    ) -> dict[str, Tensor]:
        """Named loss terms of one step, already weighted; their sum is minimised."""
        raise NotImplementedError

    def validate(self, vlm: VLM, data: Data, settings: TrainingSettings) -> None:
        """Refuses what cannot be done, before anything is: see `check` and `check_settings`.

        Raises:
            ModelError: If the model is quantized.
        """
        self.check(data)
        self.check_settings(settings)
        vlm.refuse_training()
        if settings.offload is not None:
            weights = [] if settings.lora else list(vlm.parameters(self.trains).values())
            # In half precision the trained weights, and so their state, are of 32 bits.
            least = 1 if settings.precision == "no" else 4
            needed = 2 * sum(w.numel() * max(w.itemsize, least) for w in weights)
            claim = f": {needed / 1e9:.1f} GB are needed and"
            require_free_space("offload", settings.offload, needed, claim)

    def check(self, data: Data) -> None:
        """Refuses data that lacks what the method needs.

        Raises:
            DataError: If a needed set is empty, or answers are missing.
        """
        for need in ("forget", "retain", "strangers"):
            if need in self.needs and not getattr(data, need):
                raise DataError(
                    f"method '{self.name}' needs a {need} set, and there is none. "
                    f"Give one with --{need} PATH."
                )
        if "answers" in self.needs and not any(s.answer for s in data.forget):
            raise DataError(
                f"method '{self.name}' needs questions and answers about the forget pictures. "
                "Give a JSONL, CSV or parquet file with columns image, question, answer, concept, "
                "or forget from pictures alone: --method vkd --supervision features."
            )

    def check_settings(self, settings: TrainingSettings) -> None:
        """Refuses training settings that the method cannot follow.

        Raises:
            ConfigError: If adapters are asked of a method that edits single weights.
        """
        if self.weights_only and settings.lora:
            raise ConfigError(
                f"{self.name} edits single weights, which LoRA does not train. Type lora=0."
            )
