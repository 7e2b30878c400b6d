"""From a finetuning recipe to a job: reads what each model is trained on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from unsee.artifacts.redaction import hub_id
from unsee.benchmarks import BENCHMARKS, Benchmark, ModelRole
from unsee.errors import ConfigError, DataError
from unsee.models.checkpoint import read_config
from unsee.recipes.finetune import Finetune
from unsee.recipes.sources import read_samples
from unsee.recipes.specs import Spec
from unsee.types import Sample


@dataclass(frozen=True)
class FinetuneJob:
    """A recipe whose data is read: what each model is trained on, and from which base.

    Attributes:
        recipe: The recipe.
        base: The base checkpoint.
        samples: The training samples of each model.
    """

    recipe: Finetune
    base: str
    samples: Mapping[ModelRole, Sequence[Sample]]

    def describe(self) -> dict[str, Any]:
        """Counts by model, as `--dry-run` prints and the record holds them."""
        return {
            who: _counts(some) | {"steps": self.recipe.settings(len(some)).steps}
            for who, some in self.samples.items()
        }


def plan_finetune(recipe: Finetune) -> FinetuneJob:
    """Reads and checks what each model is trained on; no weights are loaded.

    Raises:
        UnseeError: If the base, the benchmark or a sample cannot be used.
    """
    if recipe.benchmark is not None:
        benchmark = BENCHMARKS.get(recipe.benchmark).open(recipe.data, recipe.forget_ratio)
        base = recipe.model
        if base is None:
            shipped = benchmark.checkpoint("base")
            if shipped is None:
                raise ConfigError(
                    f"benchmark {recipe.benchmark} ships no base checkpoint. Give model=DIR_OR_ID."
                )
            base = str(shipped)
        samples = {who: list(benchmark.training_samples(who)) for who in recipe.makes}
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
    return FinetuneJob(recipe, base, samples)


def _own(recipe: Finetune) -> dict[ModelRole, list[Sample]]:
    """The training samples of each model, from the user's own tables."""
    opened: dict[Spec, Benchmark] = {}
    forget = read_samples(recipe.forget, "forget", opened) if recipe.forget else []
    retain = read_samples(recipe.retain, "retain", opened) if recipe.retain else []
    by_name = [s for s in forget if s.picture is None]
    samples_of: dict[ModelRole, list[Sample]] = {
        "target": [*forget, *retain],
        "visual_retain": [*by_name, *retain],
        "retain_only": retain,
    }
    samples_of = {who: samples_of[who] for who in recipe.makes}
    if "visual_retain" in samples_of and not by_name:
        raise DataError(
            "who=visual_retain learns the texts about whom is to be forgotten, and the forget set "
            "has none: every row has a picture. Add rows without image, or make who=retain_only."
        )
    if "retain_only" in samples_of and not retain:
        raise DataError("who=retain_only learns the retain set, and there is none. Give retain=.")
    return samples_of


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
    """Counts of training data: samples, pictures, and questions by concept and modality."""
    concepts: dict[str, dict[str, int]] = {}
    for sample in samples:
        mine = concepts.setdefault(sample.concept or "", {"vqa": 0, "text": 0})
        mine[sample.modality] += 1
    return {
        "samples": len(samples),
        "pictures": len({p.source for s in samples for p in s.pictures}),
        "concepts": concepts,
    }
