"""The attack `visual_prompt`: a learned frame around every picture."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from unsee.attacks import Subject
from unsee.attacks.perturb import loss_with_added_pixels, preprocessed_pixels
from unsee.attacks.visual_prompt import VisualPrompt, frame

ATTACK = VisualPrompt(steps=15, batch_size=6)


def test_frame_has_the_hand_counted_number_of_pixels() -> None:
    mask = frame(48, 48, 0.09)
    # 0.09 * 48 rounds to 4 pixels; three channels of them are 2112 values.
    assert int(mask.sum()) == 48 * 48 - 40 * 40
    assert not bool(mask[4:44, 4:44].any())
    assert int(frame(10, 20, 0.01).sum()) == 2 * 10 + 2 * 20 - 4


def test_visual_prompt_changes_no_pixel_inside_the_frame(subject: Subject) -> None:
    attacked = ATTACK.apply(subject)
    vlm = subject.vlm
    changes = []
    for old, new in zip(
        subject.samples["forget_holdout"], attacked.samples["forget_holdout"], strict=True
    ):
        assert old.picture is not None and new.picture is not None
        before = np.asarray(vlm.family.preprocessed(vlm.processor, old.picture.open()), dtype=int)
        changes.append(np.asarray(new.picture.open(), dtype=int) - before)
    mask = frame(*changes[0].shape[:2], ATTACK.border).numpy()
    assert all(not change[~mask].any() for change in changes)
    assert all(change[mask].any() for change in changes)
    assert attacked.vlm is vlm


def test_visual_prompt_lowers_its_own_training_loss(subject: Subject) -> None:
    known = [s for s in subject.attacker_samples if s.answer]
    delta = ATTACK.fit(subject.vlm, known)
    pixels = preprocessed_pixels(subject.vlm, known)
    assert torch.equal(delta, delta.round())
    with torch.no_grad():
        losses = [
            float(loss_with_added_pixels(subject.vlm, known, pixels, change))
            for change in (torch.zeros_like(delta), delta)
        ]
    assert losses[1] < losses[0]


def test_visual_prompt_without_samples_is_the_identity(subject: Subject) -> None:
    nobody = replace(subject, attacker_samples=())
    assert ATTACK.apply(nobody) is nobody


@pytest.mark.parametrize("steps", [1, 4])
def test_visual_prompt_repeats_its_result(steps: int, subject: Subject) -> None:
    attack = VisualPrompt(steps=steps, batch_size=4)
    known = list(subject.attacker_samples)
    assert torch.equal(attack.fit(subject.vlm, known), attack.fit(subject.vlm, known))
