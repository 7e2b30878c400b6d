"""The attack `difference`: how far features moved tells who was forgotten."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import nn

from unsee.attacks import AttackerData, Subject
from unsee.attacks.difference import Difference, movements
from unsee.errors import ConfigError, DataError
from unsee.models.vlm import VLM
from unsee.runs.preflight import check_attack
from unsee.types import Sample

BOTH = Difference(against=("kept", "strangers"))


class MovesPictures(nn.Module):
    """A projector that doubles the features of some pictures, and leaves those of others."""

    def __init__(self, projector: nn.Module, moved: list[torch.Tensor]) -> None:
        super().__init__()
        self.projector, self.moved = projector, moved

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        rows = [
            2.0 if any(torch.allclose(row, seen, atol=1e-4) for seen in self.moved) else 1.0
            for row in features
        ]
        output: torch.Tensor = self.projector(features)
        return output * torch.tensor(rows)[:, None, None]


def with_moved_pictures(vlm: VLM, samples: list[Sample]) -> VLM:
    """Returns a model whose projector moves the pictures of these samples alone."""
    copy = vlm.copy()
    name = vlm.family.visual_layers(vlm.model)["projector"]
    parent, _, child = name.rpartition(".")
    projector = copy.model.get_submodule(name)
    inputs: list[torch.Tensor] = []
    handle = projector.register_forward_pre_hook(lambda _, given: inputs.extend(given[0]))
    images = [copy.image(s.picture) for s in samples if s.picture is not None]
    copy.family.visual_forward(copy.model, copy.collate_pictures(images))
    handle.remove()
    setattr(copy.model.get_submodule(parent), child, MovesPictures(projector, inputs))
    return copy


def test_difference_of_an_unmoved_model_is_at_chance(subject: Subject) -> None:
    readings = BOTH.readings(subject)
    assert [r.name for r in readings] == ["forgotten or kept AUC", "forgotten or strangers AUC"]
    assert [r.forget for r in readings] == [0.5, 0.5]
    assert [r.baseline for r in readings] == [0.5, 0.5]
    assert all(r.details["forgotten_movement"] == 0 for r in readings)


def test_difference_where_only_the_forgotten_moved_is_one(subject: Subject) -> None:
    forgotten = list(subject.samples["forget_holdout"])
    moved = with_moved_pictures(subject.vlm, forgotten)
    readings = Difference().readings(replace(subject, vlm=moved))
    assert [r.forget for r in readings] == [1.0]
    # Doubled features have moved by their own norm.
    assert readings[0].details["forgotten_movement"] == pytest.approx(1.0, rel=1e-5)
    assert readings[0].details["kept_movement"] == 0
    # Where only the others moved, the ranking is as telling.
    others = with_moved_pictures(subject.vlm, list(subject.samples["retain_holdout"]))
    assert Difference().readings(replace(subject, vlm=others))[0].forget == 0.0


def test_movements_are_means_over_the_pictures_of_a_person(subject: Subject) -> None:
    known = list(subject.attacker_samples)
    first = known[0]
    moved = with_moved_pictures(subject.vlm, [first])
    pictures = [s for s in known if s.concept == first.concept and s.task == "generation"]
    assert len(pictures) == 2
    values = movements(subject.vlm, moved, pictures, ["projector"])
    assert values == {first.concept: pytest.approx(0.5, rel=1e-5)}


def test_difference_names_what_is_missing(subject: Subject) -> None:
    with pytest.raises(ConfigError, match="--target"):
        Difference().readings(replace(subject, target=None))
    with pytest.raises(DataError, match="no picture of the strangers"):
        BOTH.readings(replace(subject, non_members=()))
    data = AttackerData(subject.attacker_samples, subject.retain)
    with pytest.raises(DataError, match="--target"):
        check_attack((Difference(),), data, subject.samples, has_target=False)
    with pytest.raises(DataError, match="--non-members"):
        check_attack((BOTH,), data, subject.samples)
    check_attack((Difference(),), data, subject.samples)
