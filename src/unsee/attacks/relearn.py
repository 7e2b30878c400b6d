"""Relearning: fine-tune the unlearned model on some forget samples and score it again."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import partial
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field
from torch import Tensor, nn

from unsee.attacks import ATTACKS, Attack, Subject
from unsee.attacks.learning_rate_sweep import (
    SWEEPS,
    SweepName,
    envelope,
    has_learned,
    worst_point,
)
from unsee.attacks.relearning_data import (
    RelearningData,
    as_drawings,
    share_of_people,
    share_of_pictures,
    without_forgotten,
)
from unsee.errors import ConfigError, DataError, TrainingError
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

    Source: VKD, arXiv 2512.11325, its robustness study; Hu et al., arXiv 2406.13356. Retained data
    alone: arXiv 2505.22310; held-out people: PAVA; pictures of another kind: VLM-UnL-Attack, arXiv
    2605.26992; the worst case over rates: the repository of UNDO, arXiv 2506.06278.
    Differs: pictures of another kind are pencil drawings, computed from the attacker's pictures.

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
        data: Which samples the attacker has. "forget": those of the forgotten people. "retain":
            those of other people alone, with `share` a fraction of each person's pictures.
            "held_out_people": all pictures of some forgotten people, with `share` a fraction of the
            people, and the others are asked about. "other_pictures": as "forget", but each picture
            is a pencil drawing of it.
        worst_case: Tries many learning rates and numbers of steps in place of `lr`, `steps` and
            `checkpoints`, and reports the worst point. "quick": 1e-3, 2e-4, 1e-5 and 1e-6 with up
            to 200 steps; a rate that has stopped rising is stopped, and lower ones are left out
            once one has learned nothing. "full": ten rates from 1e-3 to 1e-6 with 500 steps each.

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
    data: RelearningData = "forget"
    worst_case: SweepName = "off"

    def __post_init__(self) -> None:
        """Refuses a rate, steps or checkpoints beside a sweep, which has its own."""
        if self.worst_case == "off":
            return
        # No steps at all is the budget of 0, which a sweep has too.
        own = {"steps": self.steps or None, "lr": self.lr, "checkpoints": self.checkpoints}
        defaults = {f.name: f.default for f in fields(self)}
        given = [n for n, value in own.items() if value not in (None, defaults[n])]
        if given:
            sweep = SWEEPS[self.worst_case]
            raise ConfigError(
                f"relearn: worst_case={self.worst_case} tries rates from {sweep.rates[-1]:g} to "
                f"{sweep.rates[0]:g} over {sweep.checkpoints[-1]} steps, so {' and '.join(given)} "
                "would have no effect. Leave them out, or type worst_case=off."
            )

    @property
    def required(self) -> frozenset[str]:
        """With `data="retain"`, other people's samples in place of answers about the forgotten."""
        if self.data == "retain":
            return frozenset({"attacker_samples", "retain"})
        return self.needs

    def attacker_samples(self, samples: Sequence[Sample]) -> list[Sample]:
        """Returns the samples that the attacker has: equally many whole pictures of every person.

        Args:
            samples: All forget samples; those without a picture are left out.
        """
        return share_of_pictures(samples, self.share, self.seed)

    def training_samples(
        self, forget: Sequence[Sample], retain: Sequence[Sample] = ()
    ) -> list[Sample]:
        """Returns the samples that the attacker trains on, by `data`.

        Args:
            forget: All forget samples.
            retain: All samples of other people.

        Raises:
            DataError: If `data` is "held_out_people" and fewer than two people are named.
        """
        if self.data == "retain":
            return self.attacker_samples(without_forgotten(_answered(retain), forget))
        if self.data == "held_out_people":
            people = share_of_people(forget, self.share, self.seed)
            return [s for s in _answered(forget) if s.picture is not None and s.concept in people]
        known = self.attacker_samples(_answered(forget))
        return as_drawings(known) if self.data == "other_pictures" else known

    def asked(self, questions: Sequence[Sample], forget: Sequence[Sample]) -> list[Sample]:
        """Returns the questions about forgotten people that the attack is scored on.

        Args:
            questions: Held-out questions about the forgotten people.
            forget: All forget samples.
        """
        if self.data != "held_out_people" or self.share == 0:
            return list(questions)
        people = share_of_people(forget, self.share, self.seed)
        return [s for s in questions if s.concept not in people]

    def curve(
        self,
        vlm: VLM,
        samples: Sequence[Sample],
        score: Callable[[VLM], Mapping[str, Any]],
        start: Mapping[str, Any] | None = None,
        scorable: bool = False,
        retain: Sequence[Sample] = (),
    ) -> list[CurvePoint]:
        """Attacks a copy of the model and scores it on the way.

        Args:
            vlm: The unlearned model, or a reference; it is not changed.
            samples: All forget samples; the attacker gets a fraction `share` of their pictures.
            score: Returns the scores of a model; called at every checkpoint.
            start: The scores before the attack, if they are already known.
            scorable: Whether a missing score before the attack says that the model's answers are
                broken, since held-out questions have true answers.
            retain: All samples of other people, for `data="retain"`.

        Returns:
            One point per checkpoint, the first at step 0; of a sweep all points of one learning
            rate after those of another.

        Raises:
            DataError: If no forget sample has an answer to train on, or none can be scored.
        """
        known = self.training_samples(samples, retain)
        if self.share > 0 and self.steps > 0 and not known:
            whose = "other people's" if self.data == "retain" else "the forget"
            raise DataError(
                f"the relearning attack needs questions and answers about {whose} pictures. "
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
        if self.worst_case != "off":
            return curve + self._sweep(vlm, known, score, curve[0])

        def add_point(attacked: VLM, step: int) -> None:
            if step in self.checkpoints or step == self.steps:
                curve.append(CurvePoint(step=step, **score(attacked)))

        self._fine_tune(vlm, known, add_point)
        return curve

    def _sweep(
        self,
        vlm: VLM,
        known: Sequence[Sample],
        score: Callable[[VLM], Mapping[str, Any]],
        start: CurvePoint,
    ) -> list[CurvePoint]:
        """The points of every learning rate that the sweep tries."""
        sweep = SWEEPS[self.worst_case]
        swept: list[CurvePoint] = []
        diverged: TrainingError | None = None
        for number, rate in enumerate(sweep.rates):
            points = [start]

            def add_point(
                attacked: VLM, step: int, rate: float = rate, points: list[CurvePoint] = points
            ) -> None:
                if step in sweep.checkpoints:
                    points.append(CurvePoint(step=step, lr=rate, **score(attacked)))
                    if sweep.is_over(points):
                        raise _StopSweepError

            attack = replace(self, worst_case="off", lr=rate, steps=sweep.checkpoints[-1])
            try:
                attack._fine_tune(vlm, known, add_point)
            except _StopSweepError:
                pass
            except TrainingError as error:
                # A rate that is too high ends where its loss is no number; lower ones may not.
                diverged = error
            swept += points[1:]
            if number + 1 >= sweep.always and not has_learned(points):
                break
        if not swept and diverged is not None:
            raise diverged
        return swept

    def apply(self, subject: Subject) -> Subject:
        """Returns the subject with a fine-tuned copy of the model.

        With `data="held_out_people"`, only the questions about the other people stay.

        Raises:
            ConfigError: If `worst_case` is set: a sweep is scored at many points, so it cannot be
                part of a chain.
        """
        if self.steps == 0 or self.share == 0:
            return subject
        if self.worst_case != "off":
            raise ConfigError(
                f"relearn: worst_case={self.worst_case} is scored at many points, so it cannot be "
                "part of a chain. Use it alone, or type worst_case=off with a rate and steps."
            )
        known = self.training_samples(subject.attacker_samples, subject.retain)
        if not known:
            return subject
        samples = subject.samples
        if self.data == "held_out_people":
            samples = {
                name: self.asked(questions, subject.attacker_samples)
                for name, questions in samples.items()
            }
        return replace(subject, vlm=self._fine_tune(subject.vlm, known), samples=samples)

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
        # Fields at their defaults are not set, so that records of a single rate stay as they were.
        further: dict[str, Any] = {} if self.data == "forget" else {"data": self.data}
        steps = self.steps
        rate: float | None = self.lr
        if self.worst_case != "off" and self.steps:
            further |= {
                "worst_case": self.worst_case,
                "worst": {name: worst_point(points) for name, points in curves.items()},
                "sweep": {name: tuple(points) for name, points in curves.items()},
            }
            curves = _to_last_step({name: envelope(points) for name, points in curves.items()})
            steps, rate = SWEEPS[self.worst_case].checkpoints[-1], None
        unlearned, reference = curves["unlearned"], curves.get("reference")
        return RelearningOutcome(
            **further,
            share=self.share,
            steps=steps,
            lr=rate,
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


class _StopSweepError(Exception):
    """Ends the fine-tuning with a learning rate that has stopped rising."""


def _answered(samples: Sequence[Sample]) -> list[Sample]:
    return [s for s in samples if s.answer]


def _to_last_step(curves: Mapping[str, Curve]) -> dict[str, list[CurvePoint]]:
    """Curves with points at the same steps: a stopped one stays at its last point."""
    steps = sorted({point.step for curve in curves.values() for point in curve})
    return {
        name: [
            [point for point in curve if point.step <= step][-1].model_copy(update={"step": step})
            for step in steps
        ]
        for name, curve in curves.items()
    }


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
