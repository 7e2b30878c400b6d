"""Finetuning recipes: which models to train from a base checkpoint, on which data, and how.

`target` is trained on everyone; `visual_retain` on all texts, but on no picture of the people to be
forgotten; `retain_only` on nothing about them. All three are trained alike, from the same base.

`visual_refit` is what exact retraining of the visual part alone gives: the base's visual weights,
trained again on the retained answers about pictures, beside the target's language part, which is
frozen and knows the forgotten people by name.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, get_args

from pydantic import BeforeValidator, Field

from unsee.benchmarks import ModelRole
from unsee.errors import ConfigError
from unsee.models.devices import Device
from unsee.recipes import plain_yaml
from unsee.recipes.parsing import parse_overrides, read_yaml, rename_fields, validate
from unsee.recipes.unlearn import ratio_text
from unsee.training.settings import TrainingSettings
from unsee.types import Part

ROLES: tuple[ModelRole, ...] = get_args(ModelRole)

TrainedRole = Literal["target", "visual_retain", "retain_only", "visual_refit"]

# What a refit trains, if nothing else is given: the whole visual part, without adapters.
REFIT: Mapping[str, Any] = {"parts": ("visual",), "lora": 0}
VISUAL: tuple[Part, ...] = ("visual", "encoder", "projector")


@dataclass(frozen=True)
class Finetune(TrainingSettings):
    """A recipe for finetuning a base checkpoint; the defaults are MLLMU-Bench's published settings.

    Training settings that are not listed here are those of `unsee show settings`.

    Source: MLLMU-Bench, arXiv 2410.22108, its appendix on fine-tuning: LoRA of rank 16, alpha 16
    and dropout 0.05, a rate of 2e-5, 5 epochs, batches of 4.

    Attributes:
        model: The base checkpoint; None is the benchmark's own, where it ships one.
        benchmark: A registered benchmark; None takes `forget` and `retain`.
        data: The benchmark's folder or hub id; None is where it is published.
        forget_ratio: The published percentage to forget; None is its default.
        skew: Who of them asks for it, such as gender=female:0.8; the others are kept.
        target: For who=visual_refit, the target model, whose language part is kept; None is the
            benchmark's own, where it ships one.
        who: Which model to make: target, visual_retain, retain_only, all of these three, or
            visual_refit, for which parts is visual and lora 0 where they are not given.
        forget: A table of what only the target is trained on, instead of a benchmark.
        retain: A table of what every model is trained on.
        parts: The parts that are trained: visual, encoder, projector, language, all.
        loss: On the "answer" alone, or on "all" ordinary tokens of the chat.
        epochs: Passes over the samples, where `steps` is 0.
        steps: Optimiser steps; 0 takes `epochs`.
        dtype: What to load and save the weights as; "auto" is what config.json says.
        device: Where to train; "auto" is a GPU where there is one.
        save: The whole "model" (LoRA folded in), the PEFT "adapter", or "both".
        names: Let the saved cards name the people that were learned.
        redact: Keep names, questions, answers, pictures and paths out of every file of the run;
            keyed hashes stand for people and pictures.
        salt: File with the key of those hashes, made if it is missing; None is that of the
            environment variable UNSEE_SALT, else OUT.salt beside the run folder.
        trust_remote_code: Allow a checkpoint's own Python code to run.
    """

    aliases: ClassVar[Mapping[str, str]] = {"ratio": "forget_ratio"}

    model: str | None = None
    benchmark: str | None = None
    data: str | None = None
    forget_ratio: Annotated[str, BeforeValidator(ratio_text)] | None = None
    skew: str | None = None
    target: str | None = None
    who: Literal["target", "visual_retain", "retain_only", "visual_refit", "all"] = "target"
    forget: str | None = None
    retain: str | None = None
    parts: tuple[Part, ...] = ("language",)
    loss: Literal["answer", "all"] = "answer"
    epochs: Annotated[float, Field(gt=0)] = 5.0
    steps: Annotated[int, Field(ge=0)] = 0
    lr: Annotated[float, Field(gt=0)] = 2e-5
    batch_size: Annotated[int, Field(ge=1)] = 4
    lora: Annotated[int, Field(ge=0)] = 16
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    device: Device = "auto"
    save: Literal["model", "adapter", "both"] = "model"
    names: bool = False
    redact: bool = False
    salt: str | None = None
    trust_remote_code: bool = False

    def settings(self, count: int) -> TrainingSettings:
        """The training settings for a number of samples."""
        values = {f.name: getattr(self, f.name) for f in fields(TrainingSettings)}
        if self.steps == 0:
            values["steps"] = math.ceil(self.epochs * count / (self.batch_size * self.accumulate))
        return TrainingSettings(**values)

    @property
    def makes(self) -> tuple[TrainedRole, ...]:
        """The models to train, in order."""
        return ROLES if self.who == "all" else (self.who,)

    def text(self, command: str) -> str:
        """The recipe as YAML whose first line is the command that runs it."""
        content = {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(self).items()}
        return f"# {command}\n" + plain_yaml.dump(content)


def read_finetune(path: Path, overrides: Sequence[str] = ()) -> Finetune:
    """Reads a recipe; key=value after it override its keys.

    Raises:
        ConfigError: If it cannot be read, or anything in it is not allowed.
    """
    changed = rename_fields(Finetune, parse_overrides(overrides))
    content = read_yaml(path, "who: target", trusted="trust_remote_code" in changed)
    return make_finetune(rename_fields(Finetune, content) | changed)


def make_finetune(content: Mapping[str, Any]) -> Finetune:
    """A recipe from its content; checks all that needs no data.

    Raises:
        ConfigError: If anything in it is not allowed.
    """
    values = rename_fields(Finetune, content)
    if isinstance(values.get("parts"), str):
        values["parts"] = [values["parts"]]
    if values.get("who") == "visual_refit":
        values = {**REFIT, **values}
    recipe = validate(Finetune, values)
    own = recipe.forget is not None or recipe.retain is not None
    if own == (recipe.benchmark is not None):
        raise ConfigError(
            "finetune learns from a benchmark or from tables of your own. Give either benchmark= "
            "or forget= and retain=."
        )
    if own and recipe.model is None:
        raise ConfigError("which base checkpoint? Give model=DIR_OR_ID.")
    _check_refit(recipe)
    if not recipe.parts:
        raise ConfigError("parts is empty. Name what is trained, such as parts=language.")
    if recipe.lora == 0 and recipe.save != "model":
        raise ConfigError(
            f"save={recipe.save}: only LoRA adapters can be saved as one, and lora=0 trains the "
            "weights themselves. Type lora=16, or save=model."
        )
    return recipe


def _check_refit(recipe: Finetune) -> None:
    """Refuses a refit that would change the language part, or lacks the target's."""
    if recipe.who != "visual_refit":
        if recipe.target is not None:
            raise ConfigError(
                f"target={recipe.target} is for who=visual_refit alone, and who is {recipe.who}. "
                "Leave target out, or type who=visual_refit."
            )
        return
    if any(part not in VISUAL for part in recipe.parts):
        raise ConfigError(
            f"parts={', '.join(recipe.parts)}: who=visual_refit leaves the language part as it is. "
            f"Name {', '.join(VISUAL)}, or leave parts out."
        )
    if recipe.benchmark is None and recipe.target is None:
        raise ConfigError(
            "who=visual_refit keeps the target's language part. Give target=DIR_OR_ID; model is "
            "the checkpoint before the people were learned."
        )
