"""The attack `adaptive`: fine-tuning the visual part."""

from __future__ import annotations

from unsee.attacks import Subject
from unsee.attacks.adaptive import Adaptive
from unsee.evaluation.generation import answer_nlls


def test_adaptive_trains_the_visual_part_alone(subject: Subject) -> None:
    attack = Adaptive(share=1.0, steps=30, lr=3e-3, batch_size=6)
    attacked = attack.apply(subject)
    assert attacked.vlm.hash("language") == subject.vlm.hash("language")
    assert attacked.vlm.hash("visual") != subject.vlm.hash("visual")
    samples = list(subject.attacker_samples)
    assert sum(answer_nlls(attacked.vlm, samples)) < sum(answer_nlls(subject.vlm, samples))
