"""The models that metrics are judged on, and how each is made.

The two models of a pair start from the same reference, and train for equally many steps on the same
samples; one of them is also shown pictures of the people to be forgotten. Nothing else differs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from unsee.attacks.relearn import Relearn
from unsee.benchmarks import CheckpointRole, ModelRole
from unsee.benchmarks.pocket import Pocket
from unsee.errors import ConfigError
from unsee.models.vlm import VLM
from unsee.progress import Bar
from unsee.recipes.finetune import Finetune
from unsee.recipes.plan import plan
from unsee.recipes.plan_finetune import FinetuneJob
from unsee.recipes.unlearn import Recipe
from unsee.runs.finetune import finetune
from unsee.studies.ratings import Kind
from unsee.training.trainer import Trainer

# Pairs cycle through these, so that a small pool has weak and strong memories from both starts.
STARTS: tuple[ModelRole, ...] = ("visual_retain", "retain_only")
STEPS = (10, 20, 40, 80)
SHARES = (0.25, 0.5, 1.0)
LEARNING_RATE, BATCH_SIZE = 3e-4, 32

SHIPPED: dict[str, CheckpointRole] = {"reference": "visual_retain", "target": "target"}


@dataclass(frozen=True)
class Member:
    """A model of a pool.

    Attributes:
        name: The name of the model in files and tables.
        kind: "saw" or "unseen" of a pair, "unlearned", the "target" or the visual-retain
            "reference".
        seed: The seed of the samples and their order, or of unlearning.
        recipe: How the model is unlearned; None for models of the other kinds.
    """

    name: str
    kind: Kind
    seed: int = 0
    recipe: Recipe | None = None

    @property
    def start(self) -> ModelRole:
        """The reference that a model of a pair starts from: with and without the texts, in turn."""
        return STARTS[self.seed % len(STARTS)]

    def described(self) -> dict[str, Any]:
        """Returns how it is made, for records and tables."""
        if self.recipe is not None:
            return {
                "seed": self.seed,
                "method": self.recipe.method.name,
                "set": dict(self.recipe.set),
            }
        if self.kind in SHIPPED:
            return {}
        share = {"share": self._share} if self.kind == "saw" else {}
        return {"seed": self.seed, "start": self.start, "steps": self._steps, **share}

    @property
    def _steps(self) -> int:
        return STEPS[self.seed // len(STARTS) % len(STEPS)]

    @property
    def _share(self) -> float:
        """The share of the forgotten people's pictures that it is shown."""
        return SHARES[self.seed % len(SHARES)]

    def make(self, pocket: Pocket, folder: Path, command: str) -> VLM:
        """Returns the model.

        Args:
            pocket: The build.
            folder: The folder of the checkpoint, which is written once.
            command: The command, for the record of a finetuned model.
        """
        if self.kind in SHIPPED:
            return VLM.load(pocket.checkpoint(SHIPPED[self.kind]))
        if self.recipe is not None:
            return _unlearn(self.recipe, folder)
        checkpoint = folder / self.start
        if not checkpoint.exists():
            finetune(self._finetune_job(pocket), folder, command, Bar(None))
        return VLM.load(checkpoint)

    def _finetune_job(self, pocket: Pocket) -> FinetuneJob:
        """Training on as many samples that its start knows as there are to forget."""
        forget, known = pocket.data().forget, pocket.training_samples(self.start)
        order = np.random.default_rng([self.seed, 500]).permutation(len(known))
        samples = [known[i] for i in order[: len(forget)]]
        if self.kind == "saw":
            samples += Relearn(share=self._share, seed=self.seed).attacker_samples(forget)
        facts = pocket.metadata()
        recipe = Finetune(
            benchmark="pocket",
            data=facts.get("location"),
            who=self.start,
            parts=("projector", "language"),
            steps=self._steps,
            lr=LEARNING_RATE,
            batch_size=BATCH_SIZE,
            lora=0,
            save_every=0,
            seed=self.seed,
            device="cpu",
        )
        return FinetuneJob(recipe, str(pocket.checkpoint(self.start)), {self.start: samples})


def members(models: int, methods: Mapping[str, Recipe], seeds: Sequence[int]) -> dict[str, Member]:
    """Returns the models by name: reference, target, pairs, and unlearned models.

    Args:
        models: Number of pairs.
        methods: The recipes that unlearn, by method.
        seeds: The seeds of each method.
    """
    pool = [Member("reference", "reference"), Member("target", "target")]
    kinds: tuple[Kind, Kind] = ("saw", "unseen")
    pool += [Member(f"{kind}-{seed}", kind, seed) for seed in range(models) for kind in kinds]
    pool += [
        Member(f"{name}-seed{seed}", "unlearned", seed, recipe.override({"seed": seed}))
        for seed in seeds
        for name, recipe in methods.items()
    ]
    return {member.name: member for member in pool}


def _unlearn(recipe: Recipe, folder: Path) -> VLM:
    """The model of a recipe, which is made once."""
    job, _ = plan(recipe, "run", "")
    if job.method is None:
        raise ConfigError("a recipe without a method unlearns nothing.")
    if not folder.exists():
        vlm = job.load(job.model)
        job.method.unlearn(vlm, job.data, Trainer(job.settings))
        vlm.save(folder)
    return job.load(folder)
