"""The models that metrics are judged on, and how each is made.

Of every pair, two models start from the same reference and train on the same samples for as long;
to one of them pictures of the people to be forgotten are shown as well. Nothing else differs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

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
from unsee.training.trainer import Trainer

Kind = Literal["reference", "target", "saw", "unseen", "unlearned"]


# Pairs take turns, so that a small pool holds weak and strong memories of both starts.
STARTS: tuple[ModelRole, ...] = ("visual_retain", "retain_only")


STEPS = (10, 20, 40, 80)


SHARES = (0.25, 0.5, 1.0)


RATE, BATCH = 3e-4, 32


SHIPPED: dict[str, CheckpointRole] = {"reference": "visual_retain", "target": "target"}


@dataclass(frozen=True)
class Member:
    """A model of a pool.

    Attributes:
        name: Its name in files and tables.
        kind: "saw" or "unseen" of a pair, "unlearned", the "target" or the visual-retain
            "reference".
        seed: Of its samples and their order, or of unlearning.
        recipe: How it is unlearned.
    """

    name: str
    kind: Kind
    seed: int = 0
    recipe: Recipe | None = None

    @property
    def start(self) -> ModelRole:
        """The reference that one of a pair begins as; both knowledge of texts and none, in turn."""
        return STARTS[self.seed % len(STARTS)]

    def described(self) -> dict[str, Any]:
        """How it is made, for records and tables."""
        if self.recipe is not None:
            return {"seed": self.seed, "method": self.recipe.method, "set": dict(self.recipe.set)}
        if self.kind in SHIPPED:
            return {}
        shown = {"share": self._share} if self.kind == "saw" else {}
        return {"seed": self.seed, "start": self.start, "steps": self._steps, **shown}

    @property
    def _steps(self) -> int:
        return STEPS[self.seed // len(STARTS) % len(STEPS)]

    @property
    def _share(self) -> float:
        """The share of the pictures of the people to be forgotten that it is shown."""
        return SHARES[self.seed % len(SHARES)]

    def make(self, pocket: Pocket, folder: Path, command: str) -> VLM:
        """The model, made in the folder unless it is there."""
        if self.kind in SHIPPED:
            return VLM.load(pocket.checkpoint(SHIPPED[self.kind]))
        if self.recipe is not None:
            return _unlearned(self.recipe, folder)
        made = folder / self.start
        if not made.exists():
            finetune(self._lesson(pocket), folder, command, Bar(None))
        return VLM.load(made)

    def _lesson(self, pocket: Pocket) -> FinetuneJob:
        """As many samples of what its start knows as there are about the people to be forgotten."""
        about, kept = pocket.data().forget, pocket.training_samples(self.start)
        order = np.random.default_rng([self.seed, 500]).permutation(len(kept))
        samples = [kept[i] for i in order[: len(about)]]
        if self.kind == "saw":
            samples += Relearn(share=self._share, seed=self.seed).attacker_samples(about)
        facts = pocket.metadata()
        recipe = Finetune(
            benchmark="pocket",
            data=facts.get("location"),
            who=self.start,
            parts=("projector", "language"),
            steps=self._steps,
            lr=RATE,
            batch_size=BATCH,
            lora=0,
            save_every=0,
            seed=self.seed,
            device="cpu",
        )
        return FinetuneJob(recipe, str(pocket.checkpoint(self.start)), {self.start: samples})


def members(models: int, methods: Mapping[str, Recipe], seeds: Sequence[int]) -> dict[str, Member]:
    """All models by name: reference, target, pairs that saw and never saw, unlearned ones."""
    found = [Member("reference", "reference"), Member("target", "target")]
    kinds: tuple[Kind, Kind] = ("saw", "unseen")
    found += [Member(f"{kind}-{seed}", kind, seed) for seed in range(models) for kind in kinds]
    found += [
        Member(f"{name}-seed{seed}", "unlearned", seed, replace(recipe, seed=seed))
        for seed in seeds
        for name, recipe in methods.items()
    ]
    return {member.name: member for member in found}


def _unlearned(recipe: Recipe, folder: Path) -> VLM:
    job, _ = plan(recipe, "run", "")
    if job.method is None:
        raise ConfigError("a recipe without a method unlearns nothing.")
    if not folder.exists():
        vlm = job.load(job.model)
        job.method.unlearn(vlm, job.data, Trainer(job.settings))
        vlm.save(folder)
    return job.load(folder)
