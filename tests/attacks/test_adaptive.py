"""The attack `adaptive`: fine-tuning the visual part, knowing what VKD did."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from support.tiny import make
from unsee.attacks import Subject
from unsee.attacks.adaptive import Adaptive
from unsee.data.selection import one_sample_per_picture
from unsee.evaluation.generation import answer_nlls
from unsee.features.capture import picture_features
from unsee.features.layers import choose_layers
from unsee.methods.vkd import VKD
from unsee.models.vlm import VLM
from unsee.types import Picture, Sample


class Shifted(nn.Module):
    """A projector that adds an offset to the features of some pictures."""

    def __init__(self, projector: nn.Module, moved: torch.Tensor, offset: torch.Tensor) -> None:
        super().__init__()
        self.projector, self.moved, self.offset = projector, moved, offset

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        output: torch.Tensor = self.projector(features)
        known = [any(torch.allclose(row, m, atol=1e-4) for m in self.moved) for row in features]
        return output + torch.tensor(known)[:, None, None] * self.offset


def test_adaptive_trains_the_visual_part_alone(subject: Subject) -> None:
    attack = Adaptive(share=1.0, steps=30, lr=3e-3, batch_size=6)
    attacked = attack.apply(subject)
    assert attacked.vlm.hash("language") == subject.vlm.hash("language")
    assert attacked.vlm.hash("visual") != subject.vlm.hash("visual")
    samples = list(subject.attacker_samples)
    assert sum(answer_nlls(attacked.vlm, samples)) < sum(answer_nlls(subject.vlm, samples))


def test_undoing_offsets_equal_what_the_erase_target_subtracted(subject: Subject) -> None:
    vlm = subject.vlm
    known = [s for s in subject.attacker_samples if s.concept == "Ada Berg"]
    others = one_sample_per_picture(subject.retain)
    mine = one_sample_per_picture(known)

    def features(samples: list[Sample]) -> torch.Tensor:
        images = [vlm.image(s.picture) for s in samples if s.picture is not None]
        with torch.no_grad():
            return picture_features(vlm, vlm.collate_pictures(images), ["projector"])["projector"]  # type: ignore[return-value]

    # VKD's anonymous target: features - strength * (mean of the person - mean of the others).
    trait = features(mine).mean(0) - features(others).mean(0)
    unlearned = vlm.copy()
    name = vlm.family.visual_layers(vlm.model)["projector"]
    parent, _, child = name.rpartition(".")
    projector, inputs = unlearned.model.get_submodule(name), list[torch.Tensor]()
    handle = projector.register_forward_pre_hook(lambda _, given: inputs.extend(given[0]))
    images = [vlm.image(s.picture) for s in mine if s.picture is not None]
    unlearned.family.visual_forward(unlearned.model, unlearned.collate_pictures(images))
    handle.remove()
    for strength in (1.5, 2.0):
        shifted = Shifted(projector, torch.stack(inputs), -strength * trait)
        setattr(unlearned.model.get_submodule(parent), child, shifted)
        attack = Adaptive(erase_strength=strength)
        offsets = attack.undoing_offsets(unlearned, known, others, {"Ada Berg": 0})
        assert torch.allclose(offsets["projector"][0], strength * trait, atol=1e-4)
    assert Adaptive(erase_strength=1.0).undoing_offsets(vlm, known, others, {"Ada Berg": 0}) == {}
    assert Adaptive().undoing_offsets(vlm, known, [], {"Ada Berg": 0}) == {}


def test_adaptive_expects_the_defaults_of_vkd() -> None:
    assert Adaptive().erase_strength == VKD().erase_strength
    # The target that the attack undoes; the others need no undoing.
    assert (VKD().erase, VKD().trains) == ("anonymous", "visual")


@pytest.mark.parametrize("family", ["qwen3_vl", "llava_next"])
def test_adaptive_moves_all_layers_that_the_llm_reads(family: str, tmp_path: Path) -> None:
    vlm = VLM.load(make(family, tmp_path / family))
    rng = np.random.default_rng(0)

    def sample(name: str, number: int) -> Sample:
        path = tmp_path / f"{name}-{number}.png"
        Image.fromarray(rng.integers(0, 255, (40, 30, 3), dtype=np.uint8)).save(path)
        return Sample(f"{name}/{number}", "Who?", name, Picture.from_path(path), name)

    known = [sample(name, i) for name in ("Ada", "Bo") for i in range(2)]
    others = [sample(name, i) for name in ("Cy", "Di") for i in range(2)]
    layers = choose_layers(vlm, ["projector"])
    assert ("deepstack.0" in layers) is (family == "qwen3_vl")
    attack = Adaptive(share=1.0, steps=2, batch_size=2)
    variances, offsets = attack._find_offsets(vlm, known, others, {"Ada": 0, "Bo": 1})
    assert list(offsets) == list(variances) == layers
    assert all(bool(offset.abs().sum((1, 2)).gt(0).all()) for offset in offsets.values())
    attacked = attack.apply(Subject(vlm, {}, known, others)).vlm
    assert attacked.hash("visual") != vlm.hash("visual")
    assert attacked.hash("language") == vlm.hash("language")
