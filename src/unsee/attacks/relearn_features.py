"""Relearning on features: the visual part is trained on pictures alone to tell people apart."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

import numpy as np
import torch
from pydantic import Field

from unsee.attacks import ATTACKS, Attack, LeakageReading, Subject
from unsee.attacks.probe import recognition_reading
from unsee.attacks.prototype import correct_prototypes
from unsee.attacks.relearn import attacker_settings
from unsee.attacks.relearning_data import share_of_pictures
from unsee.data.selection import one_sample_per_picture
from unsee.errors import DataError
from unsee.features.capture import picture_features
from unsee.features.layers import choose_layers, layer_parameters
from unsee.features.pictures import random_view_collator
from unsee.features.pooled import TOKENS, pooled_features
from unsee.losses import supervised_contrastive
from unsee.training.loop import fit
from unsee.training.sampling import batch_indices
from unsee.types import Sample

if TYPE_CHECKING:
    from torch import Tensor

    from unsee.models.vlm import VLM
    from unsee.training.settings import TrainingSettings

TEMPERATURE = 0.1


@ATTACKS.register("relearn_features", source="ours; arXiv 2004.11362")
@dataclass(frozen=True)
class RelearnFeatures(Attack):
    """Relearning on features: the visual part is trained on pictures alone to tell people apart.

    The attacker has a share of each forgotten person's pictures and those of other people, and no
    question and no answer. The features that are read from the visual part (an encoder's
    embedding) are trained to be alike for views of one person and unlike for others. The reading is
    how many held-out pictures are then nearest to their own person's prototype, among all people
    that the attacker has.

    Source: ours; the loss is that of Khosla et al., arXiv 2004.11362.

    Attributes:
        share: Fraction of each forgotten person's pictures that the attacker has, at least one.
        steps: Optimizer steps; 0 disables the attack.
        lr: Learning rate.
        batch_size: Pictures a step, of each of which two random views are taken.
        seed: Seed of the choice of pictures, batches and views.

    Example:
        >>> from unsee.attacks import Subject
        >>> from unsee.attacks.relearn_features import RelearnFeatures
        >>> holdout = {"forget_holdout": data.forget, "retain_holdout": data.retain}
        >>> subject = Subject(vlm, holdout, data.forget, data.retain)
        >>> (reading,) = RelearnFeatures(steps=1, batch_size=2).readings(subject)
        >>> reading.name, reading.details["people"]
        ('rank-1 after 1 step', 4)
    """

    access: ClassVar[Literal["black_box", "white_box"]] = "white_box"
    zero_budget: ClassVar[Mapping[str, Any]] = {"steps": 0}
    needs: ClassVar[frozenset[str]] = frozenset({"attacker_samples", "retain"})
    reads: ClassVar[bool] = True

    share: Annotated[float, Field(gt=0, le=1)] = 0.2
    steps: Annotated[int, Field(ge=0)] = 40
    lr: Annotated[float, Field(gt=0)] = 1e-4
    batch_size: Annotated[int, Field(ge=2)] = 16
    seed: Annotated[int, Field(ge=0)] = 0

    def readings(self, subject: Subject) -> list[LeakageReading]:
        """Returns rank-1 retrieval of held-out pictures after the training.

        Raises:
            DataError: If fewer than two people have pictures to train on, or the forgotten people
                have no held-out pictures.
        """
        if not self.steps:
            return []
        subject.vlm.refuse_training()
        attacker = _named(share_of_pictures(subject.attacker_samples, self.share, self.seed))
        known = [*attacker, *_named(subject.retain)]
        people = {str(s.concept) for s in known}
        held = {
            side: [
                s for s in _named(subject.samples.get(f"{side}_holdout", ())) if s.concept in people
            ]
            for side in ("forget", "retain")
        }
        if len(people) < 2 or not held["forget"]:
            raise DataError(
                "the attack 'relearn_features' needs pictures of two people to train on and "
                "held-out pictures of the forgotten. Give more with --forget, --holdout and "
                "--retain."
            )
        before = {side: rank_1(subject.vlm, known, some) for side, some in held.items()}
        settings = attacker_settings(self.steps, self.lr, self.batch_size, self.seed)
        attacked = subject.vlm.copy()
        train_identities(attacked, known, settings)
        after = {side: rank_1(attacked, known, some) for side, some in held.items()}
        details = {
            "before": float(np.mean(before["forget"])),
            "people": len(people),
            "pictures": len(attacker),
        }
        name = f"rank-1 after {self.steps} step{'s' if self.steps > 1 else ''}"
        return [
            recognition_reading(
                name, after["forget"], held["forget"], after["retain"], 1 / len(people), details
            )
        ]


def train_identities(
    vlm: VLM,
    samples: Sequence[Sample],
    settings: TrainingSettings,
    layers: Sequence[str] = ("all",),
) -> None:
    """Trains the visual part in place to tell people apart by what is read from it.

    Args:
        vlm: The model; its visual part is changed.
        samples: Samples with a picture and a person, one a picture.
        settings: How to train.
        layers: The layers to train; see `unsee.features.layers.choose_layers`.
    """
    names = {name: i for i, name in enumerate(dict.fromkeys(str(s.concept) for s in samples))}
    pictures = [s.picture for s in samples if s.picture is not None]
    views = random_view_collator(vlm, pictures[0])
    read = choose_layers(vlm, ["projector"])
    vlm.model.requires_grad_(False)

    def step(number: int) -> dict[str, Tensor]:
        rows = batch_indices(len(samples), settings.batch_size, number, settings.seed)
        chosen = [samples[row] for row in rows for _ in range(2)]
        rng = np.random.default_rng([settings.seed, number, 81])
        inputs = views(chosen, rng, 1.0, False).inputs
        features = picture_features(vlm, inputs, read)
        embedded = [
            torch.cat([vlm.family.pooled(name, features[name][i]) for name in read])
            for i in range(len(chosen))
        ]
        labels = torch.tensor([names[str(s.concept)] for s in chosen], device=vlm.device)
        loss = supervised_contrastive(torch.stack(embedded), labels, TEMPERATURE)
        return {"identity": loss}

    fit(layer_parameters(vlm, "visual", layers), step, settings)
    vlm.model.requires_grad_(False)


def rank_1(vlm: VLM, known: Sequence[Sample], tested: Sequence[Sample]) -> list[float]:
    """Returns 1 or 0 for each tested picture: whether the nearest prototype is its person's.

    Args:
        vlm: The model.
        known: Pictures with a person, of which the prototypes are made.
        tested: Pictures of these people.
    """
    if not tested:
        return []
    pictures = [s.picture for s in (*known, *tested) if s.picture is not None]
    features = pooled_features(vlm, pictures, ())[TOKENS]
    labels = [str(s.concept) for s in known]
    return correct_prototypes(features[: len(known)], labels, features[len(known) :], tested)


def _named(samples: Sequence[Sample]) -> list[Sample]:
    """One sample per picture, of those that are about somebody."""
    return [s for s in one_sample_per_picture(list(samples)) if s.concept]
