"""Spotter: its masked distillation, its nearby pictures, and its dispersion."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch

from unsee.features.capture import picture_features
from unsee.features.layers import choose_layers
from unsee.losses import IGNORE, masked_token_kl, nll
from unsee.methods.spotter import Spotter, mean_cosine, nearby
from unsee.models.vlm import VLM
from unsee.training.settings import TrainingSettings
from unsee.training.trainer import Trainer
from unsee.types import Data

SETTINGS = TrainingSettings(steps=2, batch_size=4, lr=1e-3)


def test_masked_token_kl_matches_hand_computation() -> None:
    """Token 0 is true: of 0.5, 0.3, 0.2 there remain 0.6 and 0.4."""
    labels = torch.tensor([[IGNORE, 0, IGNORE]])
    teacher = torch.tensor([[[0.5, 0.3, 0.2]] * 3]).log()
    student = torch.tensor([[[0.2, 0.3, 0.5]] * 3]).log()
    by_hand = 0.6 * math.log(0.6 / 0.3) + 0.4 * math.log(0.4 / 0.5)
    assert float(masked_token_kl(teacher, student, labels)) == pytest.approx(by_hand)
    # The student that never says the true token and is right about the others loses nothing.
    best = torch.tensor([[[1e-9, 0.6, 0.4]] * 3]).log()
    assert float(masked_token_kl(teacher, best, labels)) == pytest.approx(0.0, abs=1e-6)


def test_masked_token_kl_has_a_finite_gradient() -> None:
    labels = torch.tensor([[IGNORE, 0]])
    logits = torch.zeros(1, 2, 3, requires_grad=True)
    masked_token_kl(torch.tensor([[[40.0, 0.0, 0.0]] * 2]), logits, labels).backward()
    assert logits.grad is not None and bool(logits.grad.isfinite().all())
    assert logits.grad[0, 0].tolist() == pytest.approx([1 / 3, -1 / 6, -1 / 6])


def test_mean_cosine_matches_hand_computation() -> None:
    """Tokens are pooled first: means (1, 0) and (1, 1) are at 45 degrees; then opposite ones."""
    first = {"projector": torch.tensor([[[2.0, 1.0], [0.0, -1.0]], [[1.0, 0.0], [1.0, 0.0]]])}
    second = {"projector": torch.tensor([[[1.0, 2.0], [1.0, 0.0]], [[-3.0, 0.0], [-1.0, 0.0]]])}
    assert float(mean_cosine(first, second)) == pytest.approx((math.sqrt(0.5) - 1) / 2)


def test_nearby_pictures_stay_near_and_hide_the_answer(tiny: VLM, data: Data) -> None:
    batch = tiny.collate(data.forget[:4])
    near = nearby(tiny, batch, epsilon=0.1, step=0.06, steps=3)
    moved = near.inputs["pixel_values"] - batch.inputs["pixel_values"]
    assert 0.099 < float(moved.abs().max()) <= 0.1 + 1e-5
    with torch.no_grad():
        assert nll(tiny.logits(near), near.labels) > nll(tiny.logits(batch), batch.labels)
    alone = nearby(tiny, tiny.collate(data.forget[:1]), epsilon=0.1, step=0.06, steps=3)
    assert torch.allclose(alone.inputs["pixel_values"], near.inputs["pixel_values"][:1], atol=1e-5)


def test_spotter_compares_two_pictures_of_one_person(tiny: VLM, data: Data) -> None:
    method, trainer = Spotter(w_dispersion=2.0), Trainer(SETTINGS)
    batches = method.batches(tiny, data, trainer, 0)
    first, second = batches["pairs"]
    owner = {
        tiny.collate_pictures([tiny.image(s.picture)])["pixel_values"].numpy().tobytes(): s.concept
        for s in data.forget
        if s.picture is not None
    }
    pairs = list(zip(first["pixel_values"], second["pixel_values"], strict=True))
    assert len(pairs) == SETTINGS.batch_size
    for one, other in pairs:
        assert not torch.equal(one, other)
        assert owner[one.numpy().tobytes()] == owner[other.numpy().tobytes()]
    teacher = tiny.frozen_copy()
    terms = method.loss(tiny, batches["forget"], None, teacher, batches["pairs"])
    layers = choose_layers(tiny, ["projector"])
    cosine = mean_cosine(*(picture_features(tiny, inputs, layers) for inputs in (first, second)))
    by_hand = 2 * float(cosine.detach())
    assert float(terms["dispersion"].detach()) == pytest.approx(by_hand, rel=1e-5)


@pytest.mark.parametrize(
    ("fields", "terms"),
    [
        ({"w_dispersion": 0.0}, ["forget", "near"]),
        ({"near_steps": 0}, ["dispersion", "forget"]),
        ({"trains": "language"}, ["forget", "near"]),
    ],
)
def test_spotter_leaves_out_terms_that_have_no_effect(
    fields: dict[str, Any], terms: list[str], tiny: VLM, data: Data
) -> None:
    result = Spotter(**fields).unlearn(tiny, replace(data, retain=()), Trainer(SETTINGS))
    assert sorted(result.history.last) == terms


def test_spotter_has_no_pairs_where_each_person_has_one_picture(tiny: VLM, data: Data) -> None:
    people = {s.concept: s for s in data.forget}
    few = replace(data, forget=list(people.values()))
    assert Spotter().batches(tiny, few, Trainer(SETTINGS), 0)["pairs"] is None


def test_spotter_scatters_the_pictures_of_a_person(tiny: VLM, data: Data) -> None:
    trainer = Trainer(replace(SETTINGS, steps=15, batch_size=12, warmup=0.0))
    method = Spotter(w_forget=0.0, w_near=0.0, w_dispersion=1.0)
    pairs = method.batches(tiny, data, Trainer(replace(SETTINGS, batch_size=24)), 99)["pairs"]
    layers = choose_layers(tiny, ["projector"])

    def cosine() -> float:
        with torch.no_grad():
            return float(mean_cosine(*(picture_features(tiny, p, layers) for p in pairs)))

    before = cosine()
    method.unlearn(tiny, data, trainer)
    assert cosine() < before - 0.05
