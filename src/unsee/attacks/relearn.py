"""Relearning: fine-tune the unlearned model on some of what it forgot, and see what comes back."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
from pydantic import Field
from torch import Tensor, nn

from unsee.attacks import ATTACKS, Attack, Subject
from unsee.errors import ConfigError, DataError
from unsee.losses import nll
from unsee.models.vlm import VLM
from unsee.training.loop import AfterStep, fit
from unsee.training.lora import Lora, LoraAdapters
from unsee.training.sampling import batch_indices, seed_step
from unsee.training.settings import TrainingSettings
from unsee.types import Sample

Modules = Literal["visual", "language_lora", "all"]
Curve = list[dict[str, Any]]


@ATTACKS.register("relearn", source="arXiv 2512.11325; arXiv 2406.13356")
@dataclass(frozen=True)
class Relearn(Attack):
    """Relearning: the attacker fine-tunes on a share of the forget samples and asks again.

    Source: VKD, arXiv 2512.11325, its robustness study; Hu et al., arXiv 2406.13356.

    Attributes:
        share: Share of the forget pictures the attacker has, with all their questions.
        steps: Optimiser steps.
        lr: Learning rate, constant.
        batch_size: Samples a step.
        modules: What the attacker may tune.
        rank: Of the LoRA adapters, for language_lora.
        checkpoints: Steps at which the model is scored; those beyond `steps` are left out.
        seed: Of the choice of pictures and the order.
    """

    access: ClassVar[Literal["black_box", "white_box"]] = "white_box"
    zero_budget: ClassVar[Mapping[str, Any]] = {"steps": 0}
    needs: ClassVar[frozenset[str]] = frozenset({"known", "answers"})

    share: Annotated[float, Field(ge=0, le=1)] = 0.2
    steps: Annotated[int, Field(ge=0)] = 40
    lr: Annotated[float, Field(gt=0)] = 2e-4
    batch_size: Annotated[int, Field(ge=1)] = 16
    modules: Modules = "visual"
    rank: Annotated[int, Field(ge=1)] = 16
    checkpoints: tuple[int, ...] = (0, 5, 10, 20, 40)
    seed: Annotated[int, Field(ge=0)] = 0

    def known(self, samples: Sequence[Sample]) -> list[Sample]:
        """The samples that the attacker has: whole pictures, equally many of every person."""
        rng = np.random.default_rng([self.seed, 77])
        by_concept: dict[str, list[str]] = {}
        for sample in samples:
            if sample.picture is not None:
                mine = by_concept.setdefault(sample.concept or "", [])
                if sample.picture.source not in mine:
                    mine.append(sample.picture.source)
        taken: set[str] = set()
        for pictures in by_concept.values():
            count = round(self.share * len(pictures))
            if self.share > 0:
                count = max(1, count)
            taken.update(pictures[i] for i in rng.permutation(len(pictures))[:count])
        return [s for s in samples if s.picture is not None and s.picture.source in taken]

    def curve(
        self,
        vlm: VLM,
        samples: Sequence[Sample],
        score: Callable[[VLM], Mapping[str, Any]],
        start: Mapping[str, Any] | None = None,
    ) -> Curve:
        """Attacks a copy of the model; the model itself is left as it is.

        Args:
            vlm: The unlearned model, or a reference.
            samples: All forget samples; the attacker gets his share of them.
            score: What is measured at every checkpoint.
            start: What it measured before the attack, if that is known already.

        Returns:
            One {"step": n, **score} a checkpoint, the first at step 0.

        Raises:
            DataError: If no forget sample has an answer to learn from, or none can be scored.
        """
        known = self.known([s for s in samples if s.answer])
        if self.share > 0 and self.steps > 0 and not known:
            raise DataError(
                "the relearning attack needs questions and answers about the forget pictures. "
                "Give a table with columns image, question, answer, concept."
            )
        curve: Curve = [{"step": 0, **(score(vlm) if start is None else start)}]
        if curve[0].get("value") is None:
            raise DataError(
                "the relearning attack has nothing to score: no held-out question about the "
                "forgotten people has a true answer. Fill in the column 'answer'."
            )
        if not known or self.steps == 0:
            return curve

        def look(attacked: VLM, done: int) -> None:
            if done in self.checkpoints or done == self.steps:
                curve.append({"step": done, **score(attacked)})

        self._tune(vlm, known, look)
        return curve

    def apply(self, subject: Subject) -> Subject:
        """The subject with a copy of the model, tuned for all steps."""
        known = self.known([s for s in subject.attacker_samples if s.answer])
        if not known or self.steps == 0:
            return subject
        return replace(subject, vlm=self._tune(subject.vlm, known))

    def _tune(
        self, vlm: VLM, known: Sequence[Sample], look: Callable[[VLM, int], None] | None = None
    ) -> VLM:
        """A copy of the model, tuned on `known`; `look` is told after every step."""
        vlm.refuse_training()
        copy = vlm.copy()
        copy.model.requires_grad_(False)
        parameters, adapters = self._tuned(copy)

        def step(number: int) -> Mapping[str, Tensor]:
            rows = batch_indices(len(known), self.batch_size, number, self.seed)
            batch = copy.collate([known[i] for i in rows])
            return {"relearn": nll(copy.logits(batch), batch.labels)}

        settings = attacker(self.steps, self.lr, self.batch_size, self.seed)
        progress = AfterStep(partial(look, copy)) if look is not None else None
        fit(parameters, step, settings, progress=progress)
        if adapters is not None:
            adapters.merge()
        copy.model.requires_grad_(False)
        return copy

    def report(
        self,
        curves: Mapping[str, Curve],
        target: float | None,
        measure: str,
        retain_measure: str | None,
    ) -> dict[str, Any]:
        """The attack as `summary.json` holds it; see docs/records.md."""
        mine, reference = curves["unlearned"], curves.get("reference")
        return {
            **{k: v for k, v in asdict(self).items() if k != "checkpoints"},
            "measure": measure,
            "retain_measure": retain_measure,
            "curves": dict(curves),
            "area_to_reference": area_between(mine, reference) if reference else None,
            "steps_to_half_recovery": steps_to_half(mine, target) if target else None,
        }

    def _tuned(self, subject: VLM) -> tuple[Mapping[str, nn.Parameter], LoraAdapters | None]:
        if self.modules != "language_lora":
            return subject.parameters(self.modules), None
        # The adapters start at random: without a seed, a resumed run would get another curve.
        seed_step(self.seed, self.steps)
        lora = Lora(self.rank, self.rank, dropout=0.0)
        adapters = LoraAdapters(subject, subject.parameters("language"), lora)
        return adapters.parameters, adapters


def attacker(steps: int, lr: float, batch_size: int, seed: int) -> TrainingSettings:
    """How an attacker trains: at a constant rate, and keeping no state."""
    return TrainingSettings(
        steps=steps, lr=lr, batch_size=batch_size, warmup=0.0, schedule="constant", save_every=0,
        seed=seed,
    )  # fmt: skip


def area_between(curve: Curve, reference: Curve) -> float:
    """Mean of curve minus reference over the attack's steps (trapezoids), -1 to 1.

    Raises:
        ConfigError: If the two were not scored at the same steps.
    """
    steps = [point["step"] for point in curve]
    if steps != [point["step"] for point in reference]:
        raise ConfigError("two recovery curves were scored at different steps.")
    gaps = [a["value"] - b["value"] for a, b in zip(curve, reference, strict=True)]
    if len(steps) == 1:
        return float(gaps[0])
    area = sum(
        (steps[i + 1] - steps[i]) * (gaps[i] + gaps[i + 1]) / 2 for i in range(len(steps) - 1)
    )
    return float(area / (steps[-1] - steps[0]))


def steps_to_half(curve: Curve, target: float) -> float | None:
    """The step, interpolated, at which half of the target model's score is back; None if never."""
    half = target / 2
    before: dict[str, Any] | None = None
    for point in curve:
        if point["value"] >= half:
            if before is None:
                return float(point["step"])
            rise = point["value"] - before["value"]
            part = (half - before["value"]) / rise
            return float(before["step"] + part * (point["step"] - before["step"]))
        before = point
    return None
