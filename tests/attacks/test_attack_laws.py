"""Laws that hold for every registered attack."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from unsee.attacks import ATTACKS, Subject
from unsee.attacks.quantize import Quantize
from unsee.evaluation.generation import generate

NAMES = ATTACKS.names()
# Fields that make an attack cheap enough for a test, while it still changes something.
CHEAP: dict[str, dict[str, Any]] = {
    "relearn": {"steps": 2, "share": 1.0, "lr": 1e-3},
    "adaptive": {"steps": 2, "share": 1.0, "batch_size": 4},
    "perturb": {"steps": 3, "epsilon": 6, "step": 3.0, "batch_size": 4},
    "visual_prompt": {"steps": 3, "batch_size": 4},
    "membership": {"most": 6},
    "relearn_features": {"steps": 2, "batch_size": 4},
}


def cheap_attack(name: str) -> Any:
    return ATTACKS.get(name)(**CHEAP.get(name, {}))


@pytest.mark.parametrize("name", NAMES)
def test_attack_without_budget_changes_nothing(name: str, subject: Subject) -> None:
    attack = ATTACKS.get(name)(**ATTACKS.get(name).zero_budget)
    attacked = attack.apply(subject)
    assert attacked.vlm.hash() == subject.vlm.hash()
    assert attacked.samples == subject.samples
    if attack.reads:
        assert attack.readings(subject) == []


@pytest.mark.parametrize("name", NAMES)
def test_attack_keeps_its_inputs_and_repeats_its_result(name: str, subject: Subject) -> None:
    weights = subject.vlm.hash()
    requires_grad = [p.requires_grad for p in subject.vlm.model.parameters()]
    samples = {split: list(questions) for split, questions in subject.samples.items()}
    attack = cheap_attack(name)

    def outcome() -> Any:
        attacked = attack.apply(subject)
        readings = attack.readings(subject) if attack.reads else []
        return attacked.vlm.hash(), attacked.samples, readings

    first = outcome()
    # The global generators must not matter: in a resumed run they have another state.
    torch.manual_seed(4321)
    np.random.seed(4321)
    assert outcome() == first
    assert subject.vlm.hash() == weights
    assert [p.requires_grad for p in subject.vlm.model.parameters()] == requires_grad
    assert all(p.grad is None for p in subject.vlm.model.parameters())
    assert {split: list(questions) for split, questions in subject.samples.items()} == samples
    # With a budget it does something.
    assert first[2] or (first[0], first[1]) != (weights, subject.samples)


@pytest.mark.parametrize("name", NAMES)
def test_attack_applies_to_the_result_of_another_attack(name: str, subject: Subject) -> None:
    quantized = Quantize().apply(subject)
    attack = cheap_attack(name)
    attacked = attack.apply(quantized)
    assert attacked.vlm.hash() != subject.vlm.hash()
    if attack.reads:
        assert attack.readings(quantized)
    else:
        questions = list(attacked.samples["forget_holdout"])[:2]
        assert generate(attacked.vlm, questions, max_new_tokens=2)
