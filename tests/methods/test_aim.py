"""AIM: its prompt, its distance, its Fisher penalty, and its two stages."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from unsee.errors import ConfigError, DataError
from unsee.features.capture import picture_features
from unsee.features.layers import choose_layers
from unsee.methods.aim import AIM, Guide, apply_prompt, fisher_penalty, relative_distance
from unsee.models.vlm import VLM
from unsee.training.settings import TrainingSettings
from unsee.training.trainer import Trainer
from unsee.types import Data

SETTINGS = TrainingSettings(steps=2, batch_size=4, lr=1e-3)


def test_relative_distance_matches_hand_computation() -> None:
    """One picture of one token and one of two: 4 / 16 and (1 + 4) / 10, averaged."""
    target = {"projector": [torch.tensor([[0.0, 4.0]]), torch.tensor([[1.0, 0.0], [0.0, 3.0]])]}
    moved = {"projector": [torch.tensor([[2.0, 4.0]]), torch.tensor([[0.0, 0.0], [0.0, 1.0]])]}
    assert float(relative_distance(moved, target)) == pytest.approx((0.25 + 0.5) / 2)
    assert float(relative_distance(target, target)) == 0.0


def test_fisher_penalty_matches_hand_computation() -> None:
    weights = {"a": torch.tensor([1.0, 2.0]), "b": torch.tensor([[3.0]])}
    start = {"a": torch.tensor([0.0, 4.0]), "b": torch.tensor([[3.5]])}
    fisher = {"a": torch.tensor([0.5, 2.0]), "b": torch.tensor([[4.0]])}
    assert float(fisher_penalty(weights, start, fisher)) == pytest.approx(0.5 + 8.0 + 1.0)


def test_apply_prompt_fits_grids_tiles_and_packed_patches() -> None:
    prompt = torch.arange(12.0).view(3, 2, 2)
    for shape in ((5, 3, 2, 2), (5, 4, 3, 2, 2)):
        pixels = torch.ones(shape)
        moved = apply_prompt({"pixel_values": pixels}, prompt)["pixel_values"]
        assert torch.equal(moved, (1 + prompt).expand(shape))
        assert bool((pixels == 1).all())
    tiles = torch.ones(2, 3, 3, 2, 2)
    tiles[1, 2] = 0.0
    moved = apply_prompt({"pixel_values": tiles}, prompt)["pixel_values"]
    assert torch.equal(moved[0], (1 + prompt).expand(3, 3, 2, 2))
    assert not moved[1, 2].any(), "a tile that fills up the batch stays one"
    larger = apply_prompt({"pixel_values": torch.zeros(1, 3, 4, 4)}, prompt)["pixel_values"]
    assert larger.shape == (1, 3, 4, 4)
    assert torch.allclose(larger.mean((2, 3))[0], prompt.mean((1, 2)))
    packed = apply_prompt({"pixel_values": torch.zeros(7, 6)}, torch.arange(6.0))["pixel_values"]
    assert torch.equal(packed, torch.arange(6.0).expand(7, 6))


def test_aim_loss_compares_with_the_start_model_on_prompted_pictures(tiny: VLM, data: Data) -> None:
    """At the start the distance is that between plain and prompted pictures; nothing has moved."""
    batch, teacher = tiny.collate(data.forget[:4]), tiny.frozen_copy()
    weights = tiny.parameters("encoder")
    start = {n: p.detach().clone() for n, p in weights.items()}
    ones = {n: torch.ones_like(p) for n, p in weights.items()}
    guide = Guide(torch.full((3, 24, 24), 0.5), ones, start, weights)
    method = AIM(w_forget=2.0, w_fisher=0.1)
    layers = choose_layers(tiny, ["projector"])
    with torch.no_grad():
        terms = method.loss(tiny, batch, None, teacher, guide)
        inputs = tiny.visual_inputs(batch)
        plain = picture_features(tiny, inputs, layers)["projector"]
        moved = {"pixel_values": inputs["pixel_values"] + 0.5}
        goal = picture_features(tiny, moved, layers)["projector"]
        by_hand = ((plain - goal).square().sum((1, 2)) / goal.square().sum((1, 2))).mean()
        assert float(terms["forget"]) == pytest.approx(2 * float(by_hand), rel=1e-5)
        assert float(terms["fisher"]) == 0.0
        next(iter(weights.values())).add_(0.25)
        penalty = method.loss(tiny, batch, None, teacher, guide)["fisher"]
    count = next(iter(weights.values())).numel()
    assert float(penalty) == pytest.approx(0.1 * count * 0.25**2, rel=1e-4)


def test_aim_prompt_lowers_the_answers_of_the_frozen_model(
    tiny: VLM, tiny_folder: Path, data: Data
) -> None:
    """And it changes no weight: the encoder is trained in the second stage only."""

    def preference(steps: int) -> float:
        vlm = VLM.load(tiny_folder)
        method = AIM(prompt_steps=steps, prompt_lr=0.2, epsilon=2.0)
        result, prompt = method._prompt(vlm, data, Trainer(replace(SETTINGS, batch_size=18)))
        assert 0 < float(prompt.abs().max()) <= 2.0
        assert vlm.hash() == tiny.hash()
        return float(result.history.last["prompt"])

    assert preference(20) < preference(1)


def test_aim_reads_neither_retain_answers_nor_pictures_with_strangers(
    tiny: VLM, data: Data, monkeypatch: pytest.MonkeyPatch
) -> None:
    method = AIM(fisher="strangers", prompt_steps=1)
    assert method.required == {"forget", "teacher", "answers", "strangers"}
    result = method.unlearn(tiny, replace(data, retain=()), Trainer(SETTINGS))
    assert sorted(result.history.last) == ["fisher", "forget"]
    with pytest.raises(DataError, match="needs a retain set"):
        AIM().validate(replace(data, retain=()), SETTINGS)
    assert sorted(AIM(w_fisher=0.0).required) == ["answers", "forget", "teacher"]


def test_aim_fisher_has_mean_one_and_holds_weights_back(tiny_folder: Path, data: Data) -> None:
    def distance(w_fisher: float) -> float:
        vlm = VLM.load(tiny_folder)
        start = VLM.load(tiny_folder).parameters("encoder")
        method = AIM(w_fisher=w_fisher, prompt_steps=1)
        fisher = method._fisher(vlm, data, vlm.parameters("encoder"), seed=0)
        if w_fisher:
            flat = torch.cat([f.flatten() for f in fisher.values()])
            assert float(flat.mean()) == pytest.approx(1.0, rel=1e-3)
        method.unlearn(vlm, data, Trainer(replace(SETTINGS, steps=8)))
        moved = [(p - start[n]).square().sum() for n, p in vlm.parameters("encoder").items()]
        return float(torch.stack(moved).sum().detach())

    assert distance(100.0) < distance(0.0)


@pytest.mark.parametrize("fields", [{"trains": "language"}, {"trains": "all"}])
def test_aim_never_trains_the_language_part(fields: dict[str, Any], data: Data) -> None:
    with pytest.raises(ConfigError, match="Allowed: encoder, visual, projector"):
        AIM(**fields).validate(data, SETTINGS)
    assert not AIM().changes_language


def test_aim_refuses_data_without_pictures(data: Data) -> None:
    texts = [s for s in data.retain if s.picture is None]
    with pytest.raises(DataError, match="needs forget pictures with answers"):
        AIM().validate(replace(data, forget=texts), SETTINGS)
    shown = [replace(s, picture=None) for s in data.retain]
    with pytest.raises(DataError, match="fisher=retain needs pictures"):
        AIM(prompt_steps=1)._fisher(None, replace(data, retain=shown), {}, 0)  # type: ignore[arg-type]
