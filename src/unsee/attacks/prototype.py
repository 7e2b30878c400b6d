"""Prototypes: the mean feature of a few pictures of a person as a classifier."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
from pydantic import Field

from unsee.attacks import ATTACKS, Attack, LeakageReading, Subject
from unsee.attacks.probe import (
    people_to_recognise,
    picture_states,
    recognition_reading,
    state_layers,
)
from unsee.evaluation.recognition import nearest_prototypes
from unsee.types import Sample


@ATTACKS.register("prototype", source="arXiv 2506.01318; arXiv 1703.05175")
@dataclass(frozen=True)
class Prototype(Attack):
    """Prototypes: a picture is given the name of the person whose mean feature is nearest.

    The attacker averages the features of `k` pictures of each person, and trains nothing. The
    classes are the forgotten people and equally many other people (controls), tested on held-out
    pictures; the baseline is one over the number of classes.

    Source: the prototypical relearning attack of Spotter, arXiv 2506.01318; prototypes of Snell et
    al., arXiv 1703.05175.
    Differs: prototypes are compared by cosine after the mean of all prototypes was subtracted, and
    the model itself is not changed.

    Attributes:
        k: Pictures per person; fewer if someone has fewer. 0 disables the attack.
        layers: Visual layers by name or group, and "language" (the LLM's last hidden state) or
            "language.N".
        seed: Seed of the choice of controls.

    Example:
        >>> from unsee.attacks import Subject
        >>> from unsee.attacks.prototype import Prototype
        >>> holdout = {"forget_holdout": data.forget, "retain_holdout": data.retain}
        >>> subject = Subject(vlm, holdout, data.forget, data.retain)
        >>> (reading,) = Prototype(k=3, layers=("projector",)).readings(subject)
        >>> reading.name, reading.details["pictures"], reading.baseline
        ('projector accuracy', 12, 0.25)
    """

    access: ClassVar[Literal["black_box", "white_box"]] = "white_box"
    zero_budget: ClassVar[Mapping[str, Any]] = {"k": 0}
    needs: ClassVar[frozenset[str]] = frozenset({"attacker_samples", "retain"})
    reads: ClassVar[bool] = True

    k: Annotated[int, Field(ge=0)] = 5
    layers: tuple[str, ...] = ("projector", "language")
    seed: Annotated[int, Field(ge=0)] = 0

    def readings(self, subject: Subject) -> list[LeakageReading]:
        """Returns the accuracy of the prototypes on held-out pictures, for every layer.

        Raises:
            DataError: If fewer than two people have pictures for a prototype, or the forgotten
                people have no held-out pictures.
        """
        if not self.k or not self.layers:
            return []
        known, forgotten, controls = people_to_recognise(subject, self.seed, "the prototype attack")
        by_person: dict[str, int] = {}
        averaged = []
        for sample in known:
            seen = by_person.setdefault(str(sample.concept), 0)
            if seen < self.k:
                averaged.append(sample)
            by_person[str(sample.concept)] = seen + 1
        labels = [str(s.concept) for s in averaged]
        names = state_layers(subject.vlm, self.layers)
        states = [
            picture_states(subject.vlm, samples, names)
            for samples in (averaged, forgotten, controls)
        ]
        readings = []
        for name in names:
            own, forgotten_states, control_states = (layers[name] for layers in states)
            correct = correct_prototypes(own, labels, forgotten_states, forgotten)
            control_correct = correct_prototypes(own, labels, control_states, controls)
            baseline = 1 / len(by_person)
            details = {"classes": len(by_person), "pictures": len(labels)}
            readings.append(
                recognition_reading(
                    f"{name} accuracy", correct, forgotten, control_correct, baseline, details
                )
            )
        return readings


def correct_prototypes(
    states: np.ndarray, labels: Sequence[str], tested_states: np.ndarray, tested: Sequence[Sample]
) -> list[float]:
    """Returns 1 or 0 for each tested picture: whether the nearest prototype is its person's.

    Args:
        states: States of the pictures that the prototypes are made of [pictures, dim].
        labels: The person on each of them.
        tested_states: States of the tested pictures [tested, dim].
        tested: Their samples.
    """
    named = nearest_prototypes(states, labels, tested_states)
    return [float(name == sample.concept) for name, sample in zip(named, tested, strict=True)]
