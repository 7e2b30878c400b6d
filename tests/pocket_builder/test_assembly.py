"""The assembled LLaVA and its training on cached tower outputs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from support.pocket_build import tiny_parts
from unsee.benchmarks.pocket.world import name_questions, picture_questions
from unsee.losses import nll
from unsee.models.vlm import VLM
from unsee.pocket_builder.assembly import CachedTowerVLM, assemble, encode_pictures
from unsee.pocket_builder.lifelike_world import make_world
from unsee.pocket_builder.projector_alignment import calibrate_projector
from unsee.types import Batch


def test_cached_tower_vlm_has_the_gradients_of_the_whole_model(
    photographs: Path, tmp_path: Path
) -> None:
    """Cached outputs give the loss and gradients of the whole model, in any grouping of samples."""
    world = make_world(tmp_path / "world", photographs, 0, 3, 1, 1)
    vlm = assemble(*tiny_parts(), 0, tmp_path)
    tower_tokens = encode_pictures(vlm, [world], tmp_path / "tower.safetensors")
    calibrate_projector(vlm, tower_tokens)
    again = encode_pictures(vlm, [world], tmp_path / "tower.safetensors")
    assert all(torch.equal(tower_tokens[name], again[name]) for name in tower_tokens)
    rng = np.random.default_rng(0)
    first, second = (
        picture_questions(world, [shot], rng, held_out=False)[:3]
        for shot in world.shots_of([0, 1], "train")[1:3]
    )
    texts = name_questions(world, [0], rng, held_out=False)[:3]
    cached = CachedTowerVLM.from_vlm(vlm, tower_tokens)
    trained = vlm.parameters("projector") | vlm.parameters("language")

    def loss_and_gradients(model: VLM, batch: Batch) -> tuple[Tensor, list[Tensor]]:
        loss = nll(model.logits(batch), batch.labels)
        grads = torch.autograd.grad(loss, list(trained.values()), allow_unused=True)
        return loss, [g for g in grads if g is not None]

    for samples, pictures in (
        ([*first, *second], 2),
        ([*first[:2], *second[:2], *first[:2]], 3),
        ([*first, *second[:2]], 5),
        (texts, None),
    ):
        full_batch, cached_batch = vlm.collate(samples), cached.collate(samples)
        assert cached_batch.labels.shape[1] < full_batch.labels.shape[1]
        tokens = cached_batch.inputs.get("tokens")
        assert (None if tokens is None else len(tokens)) == pictures
        torch.testing.assert_close(
            loss_and_gradients(cached, cached_batch), loss_and_gradients(vlm, full_batch)
        )
    # After calibration the projector's outputs have the scale of word embeddings.
    with torch.no_grad():
        stacked = torch.stack([*tower_tokens.values()])
        tokens = vlm.model.get_submodule("model.multi_modal_projector")(stacked)
        words = vlm.model.get_input_embeddings().weight.detach()
    assert float(tokens.std() / words.std()) == pytest.approx(1, abs=0.2)
