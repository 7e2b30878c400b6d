"""Relearning: fine-tune the unlearned model on some forget samples and score it again."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
from pydantic import Field
from torch import Tensor, nn

from unsee.attacks import ATTACKS, Attack, Subject
from unsee.errors import ConfigError, DataError
from unsee.losses import nll
from unsee.models.vlm import VLM
from unsee.records.schema import CurvePoint, RelearningOutcome
from unsee.training.loop import AfterStep, fit
from unsee.training.lora import Lora, LoraAdapters
from unsee.training.sampling import batch_indices, seed_step
from unsee.training.settings import TrainingSettings
from unsee.types import Sample

Modules = Literal["visual", "language_lora", "all"]
Curve = Sequence[CurvePoint]


@ATTACKS.register("relearn", source="arXiv 2512.11325; arXiv 2406.13356")
@dataclass(frozen=True)
class Relearn(Attack):
    """Relearning: the attacker fine-tunes the model on some of the forget samples.

    Source: VKD, arXiv 2512.11325, its robustness study; Hu et al., arXiv 2406.13356.

    Attributes:
        share: Fraction of each person's forget pictures that the attacker has, with all questions
            about them.
        steps: Optimizer steps; 0 disables the attack.
        lr: Learning rate, constant.
        batch_size: Samples per step.
        modules: Which parameters the attacker trains: those of the visual part, LoRA adapters of
            the language part, or all.
        rank: Rank of the LoRA adapters, for `modules="language_lora"`.
        checkpoints: Steps after which the model is scored; the last step always is.
        seed: Seed of the choice of pictures and of their order.

    Example:
        >>> from unsee.attacks import Subject
        >>> from unsee.attacks.relearn import Relearn
        >>> attack = Relearn(share=1.0, steps=2, batch_size=4)
        >>> attacked = attack.apply(Subject(vlm, attacker_samples=data.forget))
        >>> attacked.vlm.hash("visual") == vlm.hash("visual")
        False
        >>> attacked.vlm.hash("language") == vlm.hash("language")
        True
    """

    access: ClassVar[Literal["black_box", "white_box"]] = "white_box"
    zero_budget: ClassVar[Mapping[str, Any]] = {"steps": 0}
    needs: ClassVar[frozenset[str]] = frozenset({"attacker_samples", "answers"})

    share: Annotated[float, Field(ge=0, le=1)] = 0.2
    steps: Annotated[int, Field(ge=0)] = 40
    lr: Annotated[float, Field(gt=0)] = 2e-4
    batch_size: Annotated[int, Field(ge=1)] = 16
    modules: Modules = "visual"
    rank: Annotated[int, Field(ge=1)] = 16
    checkpoints: tuple[int, ...] = (0, 5, 10, 20, 40)
    seed: Annotated[int, Field(ge=0)] = 0

    def attacker_samples(self, samples: Sequence[Sample]) -> list[Sample]:
        """Returns the samples that the attacker has: equally many whole pictures of every person.

        Args:
            samples: All forget samples; those without a picture are left out.
        """
        rng = np.random.default_rng([self.seed, 77])
        pictures_by_concept: dict[str, list[str]] = {}
        for sample in samples:
            if sample.picture is not None:
                pictures = pictures_by_concept.setdefault(sample.concept or "", [])
                if sample.picture.source not in pictures:
                    pictures.append(sample.picture.source)
        chosen: set[str] = set()
        for pictures in pictures_by_concept.values():
            count = round(self.share * len(pictures))
            if self.share > 0:
                count = max(1, count)
            chosen.update(pictures[i] for i in rng.permutation(len(pictures))[:count])
        return [s for s in samples if s.picture is not None and s.picture.source in chosen]

    def curve(
        self,
        vlm: VLM,
        samples: Sequence[Sample],
        score: Callable[[VLM], Mapping[str, Any]],
        start: Mapping[str, Any] | None = None,
        scorable: bool = False,
    ) -> list[CurvePoint]:
        """Attacks a copy of the model and scores it on the way.

        Args:
            vlm: The unlearned model, or a reference; it is not changed.
            samples: All forget samples; the attacker gets a fraction `share` of their pictures.
            score: Returns the scores of a model; called at every checkpoint.
            start: The scores before the attack, if they are already known.
            scorable: Whether a missing score before the attack says that the model's answers are
                broken, since held-out questions have true answers.

        Returns:
            One point per checkpoint, the first at step 0.

        Raises:
            DataError: If no forget sample has an answer to train on, or none can be scored.
        """
        known = self.attacker_samples([s for s in samples if s.answer])
        if self.share > 0 and self.steps > 0 and not known:
            raise DataError(
                "the relearning attack needs questions and answers about the forget pictures. "
                "Give a table with columns image, question, answer, concept."
            )
        curve = [CurvePoint(step=0, **(score(vlm) if start is None else start))]
        if curve[0].value is None and not scorable:
            raise DataError(
                "the relearning attack has nothing to score: no held-out question about the "
                "forgotten people has a true answer. Fill in the column 'answer'."
            )
        if not known or self.steps == 0:
            return curve

        def add_point(attacked: VLM, step: int) -> None:
            if step in self.checkpoints or step == self.steps:
                curve.append(CurvePoint(step=step, **score(attacked)))

        self._fine_tune(vlm, known, add_point)
        return curve

    def apply(self, subject: Subject) -> Subject:
        """Returns the subject with a fine-tuned copy of the model."""
        known = self.attacker_samples([s for s in subject.attacker_samples if s.answer])
        if not known or self.steps == 0:
            return subject
        return replace(subject, vlm=self._fine_tune(subject.vlm, known))

    def _fine_tune(
        self,
        vlm: VLM,
        samples: Sequence[Sample],
        after_step: Callable[[VLM, int], None] | None = None,
    ) -> VLM:
        """Returns a copy of the model, fine-tuned on the samples.

        Args:
            vlm: The model, which is not changed.
            samples: The samples that the attacker has.
            after_step: Called after every step with the copy and the number of steps done.
        """
        vlm.refuse_training()
        copy = vlm.copy()
        copy.model.requires_grad_(False)
        parameters, adapters = self._trained_parameters(copy)

        def step(number: int) -> Mapping[str, Tensor]:
            rows = batch_indices(len(samples), self.batch_size, number, self.seed)
            batch = copy.collate([samples[i] for i in rows])
            return {"relearn": nll(copy.logits(batch), batch.labels)}

        settings = attacker_settings(self.steps, self.lr, self.batch_size, self.seed)
        progress = AfterStep(partial(after_step, copy)) if after_step is not None else None
        fit(parameters, step, settings, progress=progress)
        if adapters is not None:
            adapters.merge()
        copy.model.requires_grad_(False)
        return copy

    def outcome(
        self,
        curves: Mapping[str, Curve],
        target: float | None,
        measure: str,
        retain_measure: str | None,
    ) -> RelearningOutcome:
        """Returns the record of the attack.

        Args:
            curves: By model: "unlearned" and, as far as they were attacked, the references.
            target: The target model's score on `measure`, 0..1; None if it is not known.
            measure: Key of the measure of the curves.
            retain_measure: Key of the measure of `CurvePoint.retain`.
        """
        unlearned, reference = curves["unlearned"], curves.get("reference")
        return RelearningOutcome(
            share=self.share,
            steps=self.steps,
            lr=self.lr,
            batch_size=self.batch_size,
            modules=self.modules,
            rank=self.rank,
            seed=self.seed,
            measure=measure,
            retain_measure=retain_measure,
            curves={name: tuple(curve) for name, curve in curves.items()},
            area_to_reference=area_between(unlearned, reference) if reference else None,
            steps_to_half_recovery=steps_to_half_recovery(unlearned, target) if target else None,
        )

    def _trained_parameters(
        self, vlm: VLM
    ) -> tuple[Mapping[str, nn.Parameter], LoraAdapters | None]:
        if self.modules != "language_lora":
            return vlm.parameters(self.modules), None
        # Adapters are initialised at random: without a seed, a resumed run would differ.
        seed_step(self.seed, self.steps)
        lora = Lora(self.rank, self.rank, dropout=0.0)
        adapters = LoraAdapters(vlm, vlm.parameters("language"), lora)
        return adapters.parameters, adapters


def attacker_settings(steps: int, lr: float, batch_size: int, seed: int) -> TrainingSettings:
    """Returns an attacker's training settings: a constant learning rate, and no saved state.

    Args:
        steps: Optimizer steps.
        lr: Learning rate.
        batch_size: Samples per step.
        seed: Seed of every draw.
    """
    return TrainingSettings(
        steps=steps,
        lr=lr,
        batch_size=batch_size,
        warmup=0.0,
        schedule="constant",
        save_every=0,
        seed=seed,
    )


def area_between(curve: Curve, reference: Curve) -> float | None:
    """Returns the mean of curve minus reference over the attack's steps (trapezoids), -1 to 1.

    Steps at which a model's answers were all broken, and so unscored, are left out; None if no
    step is left.

    Raises:
        ConfigError: If the two were not scored at the same steps.

    Example:
        >>> curve = [CurvePoint(step=0, value=0.0), CurvePoint(step=10, value=0.5)]
        >>> flat = [CurvePoint(step=0, value=0.0), CurvePoint(step=10, value=0.0)]
        >>> area_between(curve, flat)
        0.25
    """
    if [point.step for point in curve] != [point.step for point in reference]:
        raise ConfigError("two recovery curves were scored at different steps.")
    scored = [
        (a.step, a.value - b.value)
        for a, b in zip(curve, reference, strict=True)
        if a.value is not None and b.value is not None
    ]
    if not scored:
        return None
    steps, gaps = zip(*scored, strict=True)
    if len(steps) == 1:
        return float(gaps[0])
    area = sum(
        (steps[i + 1] - steps[i]) * (gaps[i] + gaps[i + 1]) / 2 for i in range(len(steps) - 1)
    )
    return float(area / (steps[-1] - steps[0]))


def steps_to_half_recovery(curve: Curve, target: float) -> float | None:
    """Returns the step at which half of the target model's score is recovered, interpolated.

    Args:
        curve: A recovery curve.
        target: The target model's score.

    Returns:
        The number of steps; None if half of the score is never reached. Unscored points are left
        out.
    """
    half = target / 2
    previous: tuple[int, float] | None = None
    for point in curve:
        if point.value is None:
            continue
        if point.value >= half:
            if previous is None:
                return float(point.step)
            step, value = previous
            fraction = (half - value) / (point.value - value)
            return float(step + fraction * (point.step - step))
        previous = (point.step, point.value)
    return None
