"""The attack `perturb`: changed pixels within a budget."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from support.tiny import make
from unsee.attacks import Subject
from unsee.attacks.perturb import Perturb
from unsee.errors import ModelError
from unsee.evaluation.generation import answer_nlls
from unsee.families import FAMILIES
from unsee.models.vlm import VLM

# Families whose processors make one normalised grid of a picture.
GRIDS = ("llava", "gemma3", "paligemma")


def test_perturb_keeps_its_budget_and_raises_the_likelihood(subject: Subject) -> None:
    attack = Perturb(epsilon=5, steps=8, step=2.0, batch_size=4)
    attacked = attack.apply(subject)
    vlm = subject.vlm
    largest = 0
    for old, new in zip(
        subject.samples["forget_holdout"], attacked.samples["forget_holdout"], strict=True
    ):
        assert old.picture is not None and new.picture is not None
        before = np.asarray(vlm.family.preprocessed(vlm.processor, old.picture.open()), dtype=int)
        change = np.abs(np.asarray(new.picture.open(), dtype=int) - before).max()
        assert change <= 5
        largest = max(largest, int(change))
    assert largest == 5
    questions = list(subject.attacker_samples)
    known = attack.apply(replace(subject, samples={"forget_holdout": questions}))
    nll_after = sum(answer_nlls(vlm, known.samples["forget_holdout"]))
    assert nll_after < sum(answer_nlls(vlm, questions))


@pytest.mark.parametrize("name", [n for n, kind in FAMILIES.items() if not kind.is_found])
def test_pixel_values_match_the_processor_or_the_family_is_refused(
    name: str, tmp_path: Path
) -> None:
    vlm = VLM.load(make(name, tmp_path / name))
    pixels = np.random.default_rng(0).integers(0, 255, (40, 30, 3), dtype=np.uint8)
    image = Image.fromarray(pixels)
    if name not in GRIDS:
        with pytest.raises(ModelError, match="no plain grid"):
            vlm.family.preprocessed(vlm.processor, image)
        return
    preprocessed = vlm.family.preprocessed(vlm.processor, image)
    tensor = torch.from_numpy(np.array(preprocessed, dtype=np.float32)).permute(2, 0, 1)[None]
    tensor.requires_grad_(True)
    values = vlm.family.pixel_values(vlm.processor, tensor)
    expected = vlm.collate_pictures([preprocessed])["pixel_values"]
    assert torch.allclose(values.detach(), expected.float(), atol=1e-4)
    (gradient,) = torch.autograd.grad(values.sum(), tensor)
    assert bool((gradient > 0).all())
