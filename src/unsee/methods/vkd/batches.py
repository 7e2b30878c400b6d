"""The batches of a step: augmented views to forget, to keep, and those of the inner attacker."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from unsee.features.pictures import random_view_collator
from unsee.losses import IGNORE
from unsee.training.trainer import Trainer
from unsee.types import Batch, Sample

if TYPE_CHECKING:
    from unsee.models.vlm import VLM

# An attacker has few pictures: with 16 a batch, 64 of them, half of them augmented.
ATTACK_BATCHES = 4

# Streams of draws, which do not depend on each other; the attacker's batches follow.
FORGET, RETAIN, ATTACK = range(3)


@dataclass(frozen=True)
class StepBatches:
    """The batches of a step.

    Attributes:
        forget: Augmented views of samples to forget.
        retain: Augmented views of samples to keep.
        answers: Whether these two have questions and answers; the attacker's never do.
        attack: The batches of the inner attacker, who goes over them again and again.
        attack_steps: Number of the attacker's steps; 0 is no attack.
    """

    forget: Batch
    retain: Batch
    answers: bool
    attack: Sequence[Batch]
    attack_steps: int


@dataclass(frozen=True)
class BatchMaker:
    """Makes the batches of each step; its fields are those of `VKD`.

    Attributes:
        answers: Whether there are batches with questions and answers.
        answers_every: Number of steps of which one has them.
        augment: Strength of the augmentation of forget pictures; retain pictures have half of it.
        relearn_steps: Largest number of steps of the inner attacker.
        relearn_every: Steps between two inner attacks.
    """

    answers: bool
    answers_every: int
    augment: float
    relearn_steps: int
    relearn_every: int

    def __call__(
        self, vlm: VLM, trainer: Trainer, forget: Sequence[Sample], retain: Sequence[Sample]
    ) -> Callable[[int], StepBatches]:
        """Returns a function that makes the batches of a step; it depends on its number only.

        Args:
            vlm: The model.
            trainer: Draws the samples.
            forget: Samples with pictures to forget.
            retain: Samples with pictures to keep.
        """
        settings = trainer.settings
        collate = random_view_collator(vlm, forget[0].pictures[0])

        def make(number: int) -> StepBatches:
            rng = np.random.default_rng([settings.seed, number])
            answers = self.answers and number % self.answers_every == 0

            def draw(samples: Sequence[Sample], stream: int, strength: float) -> Batch:
                drawn = trainer.draw(samples, number, stream)
                batch = collate(drawn, rng, strength, answers and stream < ATTACK)
                return _without_empty_answers(batch, drawn)

            batch, length = draw(forget, FORGET, self.augment), 0
            if self.relearn_steps and number % self.relearn_every == 0:
                length = int(rng.integers(1, self.relearn_steps + 1))
            attack = [
                draw(forget, ATTACK + i, 0.5 * (i % 2)) for i in range(min(length, ATTACK_BATCHES))
            ]
            kept = draw(retain, RETAIN, self.augment / 2)
            return StepBatches(batch, kept, answers, attack, length)

        return make


def _without_empty_answers(batch: Batch, samples: Sequence[Sample]) -> Batch:
    """The batch with no labels where a sample has no answer: pictures alone supervise there.

    Args:
        batch: The batch.
        samples: Its samples, in row order.
    """
    silent = [row for row, sample in enumerate(samples) if not sample.answer]
    if not silent or not batch.labels.shape[1]:
        return batch
    labels = batch.labels.clone()
    labels[silent] = IGNORE
    return replace(batch, labels=labels)
