"""Finetuning recipes: which models to make from a base checkpoint, of what, and how.

`target` knows everyone, `visual_retain` has read all texts but seen no picture of whom is to be
forgotten, `retain_only` knows nothing of them. All three are trained alike, from the same start.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

import yaml
from pydantic import Field

from unsee.benchmarks import BENCHMARKS, Benchmark, Knower
from unsee.card import hub_id
from unsee.checkpoint import read_config
from unsee.config import parse_overrides, read_yaml, validate
from unsee.data import read_samples
from unsee.errors import ConfigError, DataError
from unsee.methods import Part
from unsee.spec import Spec
from unsee.train import Settings
from unsee.types import Sample

KNOWERS: tuple[Knower, ...] = get_args(Knower)


@dataclass(frozen=True)
class Finetune(Settings):
    """What to teach a base checkpoint, and how; the defaults are MLLMU-Bench's published setting.

    Training settings that are not listed here are those of `unsee show settings`.

    Source: MLLMU-Bench, arXiv 2410.22108, its appendix on fine-tuning: LoRA of rank 16, alpha 16
    and dropout 0.05, a rate of 2e-5, 5 epochs, batches of 4.

    Attributes:
        model: The base checkpoint; None is the benchmark's own, where it ships one.
        benchmark: A registered benchmark; None takes `forget` and `retain`.
        data: The benchmark's folder or hub id; None is where it is published.
        ratio: Its share to forget (%); None is its default.
        who: Which model to make: target, visual_retain, retain_only, or all three.
        forget: A table of what only the target is to know, instead of a benchmark.
        retain: A table of what every model is to know.
        parts: The parts that are trained: visual, encoder, projector, language, all.
        loss: On the "answer" alone, or on "all" ordinary tokens of the chat.
        epochs: Passes over the samples, where `steps` is 0.
        steps: Optimiser steps; 0 takes `epochs`.
        dtype: What to load and save the weights as; "auto" is what config.json says.
        device: Where to train; "auto" is a GPU where there is one.
        save: The whole "model" (LoRA folded in), the PEFT "adapter", or "both".
        names: Let the saved cards name who was learned.
        trust_remote_code: Allow a checkpoint's own Python code to run.
    """

    model: str | None = None
    benchmark: str | None = None
    data: str | None = None
    ratio: str | None = None
    who: Literal["target", "visual_retain", "retain_only", "all"] = "target"
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
    device: Literal["auto", "cpu", "cuda"] = "auto"
    save: Literal["model", "adapter", "both"] = "model"
    names: bool = False
    trust_remote_code: bool = False

    def settings(self, count: int) -> Settings:
        """How to train on this many samples."""
        values = {f.name: getattr(self, f.name) for f in fields(Settings)}
        if self.steps == 0:
            values["steps"] = math.ceil(self.epochs * count / (self.batch_size * self.accumulate))
        return Settings(**values)

    @property
    def makes(self) -> tuple[Knower, ...]:
        """The models to make, in order."""
        return KNOWERS if self.who == "all" else (self.who,)

    def text(self, command: str) -> str:
        """The recipe as YAML whose first line is the command that runs it."""
        content = {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(self).items()}
        return f"# {command}\n" + yaml.safe_dump(content, sort_keys=False, allow_unicode=True)


@dataclass(frozen=True)
class Lesson:
    """A recipe whose data is read: what each model is to learn, and from which base.

    Attributes:
        recipe: What was asked for.
        base: The base checkpoint.
        samples: What each model learns.
    """

    recipe: Finetune
    base: str
    samples: Mapping[Knower, Sequence[Sample]]

    def describe(self) -> dict[str, Any]:
        """Counts by model, as `--dry-run` prints and the record holds them."""
        return {
            who: _counts(some) | {"steps": self.recipe.settings(len(some)).steps}
            for who, some in self.samples.items()
        }


def read_finetune(path: Path, overrides: Sequence[str] = ()) -> Finetune:
    """Reads a recipe; key=value after it override its keys.

    Raises:
        ConfigError: If it cannot be read, or anything in it is not allowed.
    """
    return make_finetune(read_yaml(path, "who: target") | parse_overrides(overrides))


def make_finetune(content: Mapping[str, Any]) -> Finetune:
    """A recipe from its content; checks all that needs no data.

    Raises:
        ConfigError: If anything in it is not allowed.
    """
    values = dict(content)
    if isinstance(values.get("parts"), str):
        values["parts"] = [values["parts"]]
    if isinstance(values.get("ratio"), int | float):
        values["ratio"] = f"{values['ratio']:g}"
    recipe = validate(Finetune, values)
    own = recipe.forget is not None or recipe.retain is not None
    if own == (recipe.benchmark is not None):
        raise ConfigError(
            "finetune learns from a benchmark or from tables of your own. Give either benchmark= "
            "or forget= and retain=."
        )
    if own and recipe.model is None:
        raise ConfigError("which base checkpoint? Give model=DIR_OR_ID.")
    if not recipe.parts:
        raise ConfigError("parts is empty. Name what is trained, such as parts=language.")
    if recipe.lora == 0 and recipe.save != "model":
        raise ConfigError(
            f"save={recipe.save}: only LoRA adapters can be saved as one, and lora=0 trains the "
            "weights themselves. Type lora=16, or save=model."
        )
    return recipe


def plan_finetune(recipe: Finetune) -> Lesson:
    """Reads and checks what each model is to learn; no weights are loaded.

    Raises:
        UnseeError: If the base, the benchmark or a sample cannot be used.
    """
    if recipe.benchmark is not None:
        benchmark: Any = BENCHMARKS.get(recipe.benchmark).open(recipe.data, recipe.ratio)
        base = recipe.model
        if base is None:
            if not hasattr(benchmark, "checkpoint"):
                raise ConfigError(
                    f"benchmark {recipe.benchmark} ships no base checkpoint. Give model=DIR_OR_ID."
                )
            base = str(benchmark.checkpoint("base"))
        samples = {who: list(benchmark.knowledge(who)) for who in recipe.makes}
    else:
        base, samples = str(recipe.model), _own(recipe)
    if Path(base).is_dir():
        read_config(Path(base))
    elif hub_id(base) is None:
        raise ConfigError(
            f"model '{base}': no such folder. Give a checkpoint folder, or a hub id, "
            "such as llava-hf/llava-1.5-7b-hf."
        )
    for who, some in samples.items():
        _refuse_unanswered(who, some)
    return Lesson(recipe, base, samples)


def _own(recipe: Finetune) -> dict[Knower, list[Sample]]:
    """What each model learns from the user's own tables."""
    opened: dict[Spec, Benchmark] = {}
    forget = read_samples(recipe.forget, "forget", opened) if recipe.forget else []
    retain = read_samples(recipe.retain, "retain", opened) if recipe.retain else []
    by_name = [s for s in forget if s.picture is None]
    found: dict[Knower, list[Sample]] = {
        "target": [*forget, *retain],
        "visual_retain": [*by_name, *retain],
        "retain_only": retain,
    }
    found = {who: found[who] for who in recipe.makes}
    if "visual_retain" in found and not by_name:
        raise DataError(
            "who=visual_retain learns the texts about whom is to be forgotten, and the forget set "
            "has none: every row has a picture. Add rows without image, or make who=retain_only."
        )
    if "retain_only" in found and not retain:
        raise DataError("who=retain_only learns the retain set, and there is none. Give retain=.")
    return found


def _refuse_unanswered(who: str, samples: Sequence[Sample]) -> None:
    if not samples:
        raise DataError(f"there is nothing for the {who} model to learn. Give it some samples.")
    bad = [sample.id for sample in samples if not sample.answer]
    if bad:
        raise DataError(
            f"{len(bad)} samples have no answer to learn, first '{bad[0]}'. Give a table with "
            "columns image, question, answer, concept."
        )


def _counts(samples: Sequence[Sample]) -> dict[str, Any]:
    """What there is to learn: samples, pictures, and questions of both modalities by concept."""
    concepts: dict[str, dict[str, int]] = {}
    for sample in samples:
        mine = concepts.setdefault(sample.concept or "", {"vqa": 0, "text": 0})
        mine[sample.modality] += 1
    return {
        "samples": len(samples),
        "pictures": len({p.source for s in samples for p in s.pictures}),
        "concepts": concepts,
    }
