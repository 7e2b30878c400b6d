"""Difference: how far features moved between the model before and after tells who was forgotten."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
import torch

from unsee.attacks import ATTACKS, Attack, LeakageReading, Subject
from unsee.attacks.membership import auc_interval
from unsee.data.selection import one_sample_per_picture
from unsee.errors import ConfigError, DataError
from unsee.evaluation.recognition import auc
from unsee.features.capture import picture_features
from unsee.features.layers import choose_layers
from unsee.features.pictures import picture_batches
from unsee.losses import relative_squared_distance
from unsee.types import Sample

if TYPE_CHECKING:
    from unsee.models.vlm import VLM

Group = Literal["kept", "strangers"]


@ATTACKS.register("difference", source="ours; arXiv 2005.02205")
@dataclass(frozen=True)
class Difference(Attack):
    """Difference: candidate faces are ranked by how far their features moved in unlearning.

    The attacker has the model before and after unlearning, and pictures of candidates. A person's
    movement is the mean over their held-out pictures and the layers of the squared difference of
    the features, over the squared norm of the features before. The reading is the ROC-AUC of the
    forgotten people against the others; at 0.5 the difference does not tell who was forgotten, and
    below 0.5 it tells as much as above.

    Source: ours; that two versions of a model reveal what was deleted between them is Chen et al.,
    arXiv 2005.02205.

    Attributes:
        against: Whom the forgotten people are ranked against: "kept" people, whom the model was
            trained to keep, and "strangers", whom it was never trained on. Empty disables the
            attack.
        layers: Visual layers by name or group; "projector" is all layers that the LLM reads.

    Example:
        >>> from unsee.attacks import Subject
        >>> from unsee.attacks.difference import Difference
        >>> holdout = {"forget_holdout": data.forget, "retain_holdout": data.retain}
        >>> (reading,) = Difference().readings(Subject(vlm, holdout, target=vlm.copy()))
        >>> reading.name, reading.forget
        ('forgotten or kept AUC', 0.5)
    """

    access: ClassVar[Literal["black_box", "white_box"]] = "white_box"
    zero_budget: ClassVar[Mapping[str, Any]] = {"against": ()}
    needs: ClassVar[frozenset[str]] = frozenset({"target"})
    reads: ClassVar[bool] = True

    against: tuple[Group, ...] = ("kept",)
    layers: tuple[str, ...] = ("projector",)

    @property
    def required(self) -> frozenset[str]:
        """Also the people whom the forgotten are ranked against; see `Attack.required`."""
        others = {"kept": "retain", "strangers": "non_members"}
        return self.needs | {others[group] for group in self.against}

    def readings(self, subject: Subject) -> list[LeakageReading]:
        """Returns the ROC-AUC of the forgotten people against each group.

        Raises:
            ConfigError: If the model before unlearning is not there, or a layer matches nothing.
            DataError: If the forgotten people or a group have no pictures.
        """
        if not self.against:
            return []
        if subject.target is None:
            raise ConfigError(
                "the attack 'difference' needs the model before unlearning: --target DIR."
            )
        pictures: dict[str, list[Sample]] = {
            "forgotten": _with_concept(subject.samples.get("forget_holdout", ())),
            # Pictures that the model was not trained on, as far as there are any.
            "kept": _with_concept(subject.samples.get("retain_holdout") or subject.retain),
            "strangers": _with_concept(subject.non_members),
        }
        for group in ("forgotten", *self.against):
            if not pictures[group]:
                raise DataError(
                    f"the attack 'difference' has no picture of the {group}. Give some with "
                    "--holdout, --retain and --non-members, or type --set against=[kept]."
                )
        layers = choose_layers(subject.vlm, self.layers)
        moved = {
            group: movements(subject.target, subject.vlm, pictures[group], layers)
            for group in ("forgotten", *self.against)
        }
        forgotten = list(moved["forgotten"].values())
        readings = []
        for group in self.against:
            others = list(moved[group].values())
            interval = auc_interval(
                np.array(forgotten), np.array(others), list(moved["forgotten"]), list(moved[group])
            )
            readings.append(
                LeakageReading(
                    f"forgotten or {group} AUC",
                    auc(forgotten, others),
                    *interval,
                    len(pictures["forgotten"]),
                    None,
                    0.5,
                    {
                        "people": len(others),
                        "forgotten_movement": float(np.mean(forgotten)),
                        f"{group}_movement": float(np.mean(others)),
                    },
                )
            )
        return readings


@torch.no_grad()
def movements(
    before: VLM, after: VLM, samples: Sequence[Sample], layers: Sequence[str]
) -> dict[str, float]:
    """Returns by person how far their pictures' features moved; see `Difference`.

    Args:
        before: The model before unlearning.
        after: The model after it.
        samples: Samples with a concept and one picture each.
        layers: Names of visual layers.
    """
    moved: dict[str, list[float]] = {}
    people = (str(sample.concept) for sample in samples)
    pictures = [sample.picture for sample in samples if sample.picture is not None]
    for inputs in picture_batches(before, pictures):
        old, new = (picture_features(vlm, inputs, layers) for vlm in (before, after))
        by_layer = [
            [float(relative_squared_distance(b, a)) for a, b in zip(old[n], new[n], strict=True)]
            for n in layers
        ]
        for values in zip(*by_layer, strict=True):
            moved.setdefault(next(people), []).append(float(np.mean(values)))
    return {person: float(np.mean(values)) for person, values in moved.items()}


def _with_concept(samples: Sequence[Sample]) -> list[Sample]:
    """One sample per picture, of people who are named."""
    return one_sample_per_picture([s for s in samples if s.concept])
