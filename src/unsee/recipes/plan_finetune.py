"""From a finetuning recipe to a job: reads what each model is trained on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from unsee.artifacts.pseudonyms import Pseudonyms, Salt
from unsee.artifacts.redaction import hub_id
from unsee.artifacts.redactor import Redactor
from unsee.benchmarks import Benchmark
from unsee.errors import ConfigError, DataError, counted
from unsee.models.checkpoint import read_config
from unsee.recipes.finetune import Finetune, TrainedRole
from unsee.recipes.redaction import open_salt, redacted_recipe, refuse_names, vocabulary
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
        target: The target model, whose language part a visual refit keeps.
        redactor: Redacts what is written, in a job that `redacted_finetune` has prepared.
        key: The key of its keyed hashes, and where it is kept.
    """

    recipe: Finetune
    base: str
    samples: Mapping[TrainedRole, Sequence[Sample]]
    target: str | None = None
    redactor: Redactor | None = None
    key: Salt | None = None

    def text(self, command: str) -> str:
        """The recipe as YAML whose first line is the command, as it is written."""
        text = self.recipe.text(command)
        return text if self.redactor is None else redacted_recipe(text, self.redactor)

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
    target = recipe.target
    samples: dict[TrainedRole, list[Sample]]
    if recipe.benchmark is not None:
        benchmark = Spec(
            recipe.benchmark, "", recipe.data, recipe.forget_ratio, skew=recipe.skew
        ).open()
        base = recipe.model
        if base is None:
            shipped = benchmark.checkpoint("base")
            if shipped is None:
                raise ConfigError(
                    f"benchmark {recipe.benchmark} ships no base checkpoint. Give model=DIR_OR_ID."
                )
            base = str(shipped)
        samples = {who: _of_benchmark(benchmark, who) for who in recipe.makes}
        if recipe.who == "visual_refit":
            target = target or str(benchmark.checkpoint("target") or "") or None
            if target is None:
                raise ConfigError(
                    f"benchmark {recipe.benchmark} ships no target checkpoint. Give "
                    "target=DIR_OR_ID, the model that learned its people."
                )
    else:
        base, samples = str(recipe.model), _own(recipe)
    for key, checkpoint in (("model", base), ("target", target)):
        if checkpoint is not None:
            _require_checkpoint(key, checkpoint)
    for who, some in samples.items():
        _refuse_unanswered(who, some)
    return FinetuneJob(recipe, base, samples, target)


def redacted_finetune(job: FinetuneJob, out: Path) -> FinetuneJob:
    """Returns the job with a redactor, if its recipe asks for one; the job itself otherwise.

    Args:
        job: The job.
        out: The folder to write, beside which the key is if `salt` names no other file.

    Raises:
        UnseeError: As for `unsee.recipes.redaction.redacted`.
    """
    recipe = job.recipe
    if not recipe.redact or job.redactor is not None:
        return job
    refuse_names(recipe.names)
    salt = open_salt(recipe.salt, out)
    samples = (sample for some in job.samples.values() for sample in some)
    redactor = Redactor(Pseudonyms(salt.key), vocabulary()).knowing(samples)
    return replace(job, redactor=redactor, key=salt)


def _require_checkpoint(key: str, checkpoint: str) -> None:
    if Path(checkpoint).is_dir():
        read_config(Path(checkpoint))
    elif hub_id(checkpoint) is None:
        raise ConfigError(
            f"{key} '{checkpoint}': no such folder. Give a checkpoint folder, or a hub id, "
            "such as llava-hf/llava-1.5-7b-hf."
        )


def _of_benchmark(benchmark: Benchmark, who: TrainedRole) -> list[Sample]:
    """The training samples of a model, from a benchmark."""
    if who == "visual_refit":
        return _pictured(benchmark.training_samples("retain_only"))
    return list(benchmark.training_samples(who))


def _pictured(samples: Sequence[Sample]) -> list[Sample]:
    """The samples with a picture: no other reaches visual weights."""
    return [sample for sample in samples if sample.picture is not None]


def _own(recipe: Finetune) -> dict[TrainedRole, list[Sample]]:
    """The training samples of each model, from the user's own tables."""
    opened: dict[Spec, Benchmark] = {}
    forget = read_samples(recipe.forget, "forget", opened) if recipe.forget else []
    retain = read_samples(recipe.retain, "retain", opened) if recipe.retain else []
    by_name = [s for s in forget if s.picture is None]
    samples_of: dict[TrainedRole, list[Sample]] = {
        "target": [*forget, *retain],
        "visual_retain": [*by_name, *retain],
        "retain_only": retain,
        "visual_refit": _pictured(retain),
    }
    samples_of = {who: samples_of[who] for who in recipe.makes}
    if "visual_retain" in samples_of and not by_name:
        raise DataError(
            "who=visual_retain learns the texts about whom is to be forgotten, and the forget set "
            "has none: every row has a picture. Add rows without image, or make who=retain_only."
        )
    if "retain_only" in samples_of and not retain:
        raise DataError("who=retain_only learns the retain set, and there is none. Give retain=.")
    if "visual_refit" in samples_of and not samples_of["visual_refit"]:
        raise DataError(
            "who=visual_refit learns the pictures of the retain set, and there are none. Give "
            "retain=, a table with the column image."
        )
    return samples_of


def _refuse_unanswered(who: str, samples: Sequence[Sample]) -> None:
    if not samples:
        raise DataError(f"there is nothing for the {who} model to learn. Give it some samples.")
    bad = [sample.id for sample in samples if not sample.answer]
    if bad:
        raise DataError(
            f"{counted(len(bad), 'sample has', 'samples have')} no answer to learn, first "
            f"'{bad[0]}'. Give a table with columns image, question, answer, concept."
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
