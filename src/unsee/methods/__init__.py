"""Unlearning methods: one module each, and the base class `Method`.

A method is a frozen dataclass: its fields are its hyperparameters, its configuration schema and its
command-line keys. Most override `loss` only. Those that change the samples of a batch also override
`batches`; those with a state of their own, or without training, override `train`.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, final

from unsee.errors import ConfigError, DataError, TrainingError
from unsee.files import require_free_space
from unsee.registry import Registry
from unsee.training.preparation import float32_model
from unsee.training.settings import TrainingSettings
from unsee.training.trainer import Trainer, TrainingResult
from unsee.types import Batch, Data, Part

if TYPE_CHECKING:
    from torch import Tensor

    from unsee.models.vlm import VLM


METHODS: Registry[type[Method]] = Registry("method", "unsee.methods")


# Values to try, by field of the method or of the training settings.
Search = Mapping[str, tuple[Any, ...]]


# Methods of `Method` that earlier releases had, and what replaces each.
REMOVED = {
    "change": "train",
    "check": "validate",
    "check_settings": "validate",
    "ready": "validate",
    "teacher": "required",
    "terms": "batches",
    "uses_teacher": "required",
}


@dataclass(frozen=True)
class Method:
    """Base class of all unlearning methods.

    Attributes:
        name: The registered name; `METHODS.register` sets it.
        source: The paper; `METHODS.register` sets it.
        needs: What every configuration needs; see `required`.
        defaults: Training settings that suit the method, where they differ from the usual ones.
        presets: By name, the values of fields and of training settings that a recipe gets by
            setting that name to true. Values that are also given by themselves take precedence.
        for_encoders: Values of fields and of training settings that suit image encoders, where they
            are not set.
        rate_width: Width of the vision encoder that the default learning rate is for; a wider one
            gets a smaller rate. 0 is any width.
        training_free: Whether it takes no optimizer steps, whatever the settings are.
        weights_only: Whether it edits single weights, which excludes LoRA.
        parts: The parts that `trains` may name.
        search: Values by field that `unsee compare` tries, published ranges where there are any.
            Learning rates are for 7 billion parameters; a benchmark may scale them (`rate_scale`).
        aliases: Earlier names of fields, old to new. They work, with a warning, for one release.
        value_aliases: Earlier values of a field, by its current name: old to new, likewise.
        language_field: The field that decides whether the language part changes; with the value
            "visual" it does not.
        trains: The part whose parameters may change.
    """

    name: ClassVar[str]
    source: ClassVar[str]
    needs: ClassVar[frozenset[str]] = frozenset({"forget", "retain"})
    defaults: ClassVar[Mapping[str, object]] = {}
    presets: ClassVar[Mapping[str, Mapping[str, object]]] = {}
    for_encoders: ClassVar[Mapping[str, Any]] = {}
    rate_width: ClassVar[int] = 0
    training_free: ClassVar[bool] = False
    weights_only: ClassVar[bool] = False
    parts: ClassVar[tuple[Part, ...]] = ("visual", "encoder", "projector", "language", "all")
    search: ClassVar[Search] = {}
    aliases: ClassVar[Mapping[str, str]] = {}
    value_aliases: ClassVar[Mapping[str, Mapping[str, str]]] = {}
    language_field: ClassVar[str] = "trains"

    trains: Part = "all"

    def __init_subclass__(cls) -> None:
        """Refuses classes that override a method which is not called any more.

        Raises:
            ConfigError: If `cls` does.
        """
        super().__init_subclass__()
        for old, new in REMOVED.items():
            if callable(getattr(cls, old, None)) or isinstance(vars(cls).get(old), property):
                raise ConfigError(f"{cls.__name__}.{old} is never called. Override {new} instead.")

    @classmethod
    def expanded(cls, given: Mapping[str, object]) -> dict[str, object]:
        """Returns `defaults`, the values of the presets that are true, and what was given.

        Args:
            given: Values of fields, presets and training settings, by name.
        """
        values = dict(cls.defaults)
        for name, preset in cls.presets.items():
            if given.get(name) is True:
                values |= preset
        return values | {k: v for k, v in given.items() if k not in cls.presets}

    @property
    def changes_language(self) -> bool:
        """Whether the language part is trained; a visual patch cannot carry such a change."""
        return self.trains in ("all", "language")

    @property
    def required(self) -> frozenset[str]:
        """Everything this configuration needs: `needs`, and what its fields add to it.

        Any of "forget", "retain", "strangers" (sets of the data), "answers" (to questions about
        the forget pictures) and "teacher" (a frozen copy of the start model).
        """
        return self.needs

    @property
    def reads_language(self) -> bool:
        """Whether this configuration runs the language model; if not, it need not be loaded."""
        return True

    @property
    def merges_first_stage(self) -> bool:
        """Whether adapters of a stage before the last are merged, so that no adapter has them."""
        return False

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

    def replace_missing(self, data: Data, given: Collection[str] = ()) -> tuple[Method, list[str]]:
        """Returns the method without fields that need what the data lacks, and notes for the user.

        The part of `adapt_to` that a benchmark's data calls for too. The default changes nothing.

        Args:
            data: What the user, or a benchmark, gave.
            given: Names of the fields that the user set, which must stay as they are.
        """
        return self, []

    def rate_share(self, data: Data) -> float:
        """Returns the share of the default learning rate that suits the data; 1 by default.

        Args:
            data: What to forget and what to keep.
        """
        return 1.0

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
            TrainingError: If training fails, or if `train` does not return a `TrainingResult`.
        """
        self.validate(data, trainer.settings, vlm)
        with float32_model(vlm, trainer.settings):
            result: object = self.train(vlm, data, trainer)
        if not isinstance(result, TrainingResult):
            raise TrainingError(
                f"{type(self).__name__}.train returned {type(result).__name__}. It must return "
                "the TrainingResult of trainer.fit: end it with `return trainer.fit(...)`."
            )
        return result

    def train(self, vlm: VLM, data: Data, trainer: Trainer) -> TrainingResult:
        """Changes the weights of `vlm` in place; by default by minimising `loss`.

        Override it for methods with a state of their own or without training.

        Args:
            vlm: The model, after `validate`.
            data: What to forget and what to keep.
            trainer: Draws batches, and trains parameters on the loss of a step.

        Returns:
            The result of `trainer.fit`; a method without training returns a `TrainingResult`.
        """
        vlm.model.requires_grad_(False)
        teacher = copy_start_model(vlm, self, adapters=trainer.settings.lora > 0)

        def step(number: int) -> Mapping[str, Tensor]:
            return self.loss_of_batch(vlm, data, trainer, number, teacher)

        weights = vlm.parameters(self.trains)
        adapters = trainer.add_adapters(vlm, weights)
        parameters = weights if adapters is None else adapters.parameters
        return trainer.fit(vlm, parameters, step, adapters=adapters)

    @final
    def loss_of_batch(
        self, vlm: VLM, data: Data, trainer: Trainer, number: int, teacher: VLM | None
    ) -> dict[str, Tensor]:
        """Returns the loss terms of a (micro-)batch: `loss` on what `batches` makes.

        Args:
            vlm: The model being unlearned.
            data: What to forget and what to keep.
            trainer: Draws the samples.
            number: Number of the (micro-)batch.
            teacher: The frozen start model, if the method needs one.
        """
        batches = dict(self.batches(vlm, data, trainer, number))
        forget, retain = batches.pop("forget"), batches.pop("retain", None)
        return self.loss(vlm, forget, retain, teacher, **batches)

    def batches(self, vlm: VLM, data: Data, trainer: Trainer, number: int) -> Mapping[str, Any]:
        """Returns what `loss` gets for a (micro-)batch, by argument: "forget", "retain", and more.

        Must depend on nothing but its arguments. By default the samples as they are.

        Args:
            vlm: The model being unlearned.
            data: What to forget and what to keep.
            trainer: Draws the samples.
            number: Number of the (micro-)batch.
        """
        forget = vlm.collate(trainer.draw(data.forget, number, 0))
        if "retain" not in self.needs or not data.retain:
            return {"forget": forget}
        return {"forget": forget, "retain": vlm.collate(trainer.draw(data.retain, number, 1))}

    def loss(
        self, student: VLM, forget: Batch, retain: Batch | None, teacher: VLM | None
    ) -> dict[str, Tensor]:
        """Returns the named loss terms of a batch, already weighted; their sum is minimised.

        A method whose `batches` have more entries takes these as further arguments.

        Args:
            student: The model being unlearned.
            forget: A batch of samples to forget.
            retain: A batch of samples to keep; None if the method needs none.
            teacher: The frozen start model; None if the method needs none.
        """
        raise NotImplementedError

    def validate(self, data: Data, settings: TrainingSettings, vlm: VLM | None = None) -> None:
        """Refuses data, training settings and models that the method cannot be applied to.

        Args:
            data: What to forget and what to keep.
            settings: How to train.
            vlm: The model; None checks only what needs none, before it is loaded.

        Raises:
            DataError: If a needed set is empty, or answers are missing.
            ConfigError: If settings ask for adapters of a method that edits single weights, or for
                more disk than there is; or if `trains` is none of the method's `parts`.
            ModelError: If the model is quantized.
        """
        for need in ("forget", "retain", "strangers"):
            if need in self.required and not getattr(data, need):
                raise DataError(
                    f"method '{self.name}' needs a {need} set, and there is none. "
                    f"Give one with --{need} PATH."
                )
        if "answers" in self.required and not any(s.answer for s in data.forget):
            raise DataError(
                f"method '{self.name}' needs questions and answers about the forget pictures. "
                "Give a JSONL, CSV or parquet file with columns image, question, answer, concept, "
                "or forget from pictures alone: --method vkd --supervision features."
            )
        if self.weights_only and settings.lora:
            raise ConfigError(
                f"{self.name} edits single weights, which LoRA does not train. Type lora=0."
            )
        if self.trains not in self.parts:
            raise ConfigError(
                f"{self.name} cannot change the part '{self.trains}'. Allowed: "
                f"{', '.join(self.parts)}. Type trains={self.parts[0]}."
            )
        if vlm is not None:
            self._validate_model(vlm, settings)

    def _validate_model(self, vlm: VLM, settings: TrainingSettings) -> None:
        vlm.refuse_training()
        if settings.offload is not None:
            weights = [] if settings.lora else list(vlm.parameters(self.trains).values())
            # In half precision the trained weights, and so their state, are of 32 bits.
            least = 1 if settings.precision == "no" else 4
            needed = 2 * sum(w.numel() * max(w.itemsize, least) for w in weights)
            claim = f": {needed / 1e9:.1f} GB are needed and"
            require_free_space("offload", settings.offload, needed, claim)


def copy_start_model(vlm: VLM, method: Method, adapters: bool = False) -> VLM | None:
    """Returns a frozen copy of the model before training; None if the method needs no teacher.

    Args:
        vlm: The model, not yet trained.
        method: Whose `required` says whether it needs one.
        adapters: Whether LoRA adapters are trained. The weights then stay as they are until the
            adapters are merged, so the copy shares all of them.
    """
    if "teacher" not in method.required:
        return None
    if adapters:
        return vlm.frozen_copy(own=())
    return vlm.frozen_copy() if method.changes_language else vlm.frozen_visual_copy()
