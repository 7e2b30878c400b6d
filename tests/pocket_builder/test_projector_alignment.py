"""Alignment of a projector with word embeddings."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from support.pocket_build import tiny_parts
from unsee.pocket_builder.assembly import CachedTowerVLM, assemble
from unsee.pocket_builder.lifelike_world import make_world, nearest_neighbour
from unsee.pocket_builder.projector_alignment import align_projector, calibrate_projector
from unsee.training.settings import TrainingSettings


def test_align_projector_separates_people(photographs: Path, tmp_path: Path) -> None:
    """Only the projector changes; held-out pictures are nearest to the same person's."""
    world = make_world(tmp_path / "world", photographs, 0, 3, 1, 4)
    vlm = assemble(*tiny_parts(), 0, tmp_path)
    rng = torch.Generator().manual_seed(0)
    # Light and pose differ far more from picture to picture than faces from person to person.
    faces, scene = torch.randn(4, 1, 64, generator=rng), torch.randn(4, 64, generator=rng)
    tower_tokens = {
        world.picture(s).source: 0.3 * faces[3 if s.person is None else s.person]
        + torch.randn(1, 4, generator=rng) @ scene
        + 0.1 * torch.randn(4, 64, generator=rng)
        for s in world.shots
    }
    calibrate_projector(vlm, tower_tokens)
    hashes = {part: vlm.hash(part) for part in ("encoder", "language", "projector")}

    def accuracy() -> float:
        projector = vlm.model.get_submodule("model.multi_modal_projector")
        with torch.no_grad():
            outputs = {
                s.file: projector(tower_tokens[world.picture(s).source]) for s in world.shots
            }
        return nearest_neighbour(world, outputs)["tower"]

    shots = [(world, shot) for shot in world.shots if shot.role == "train"]
    settings = TrainingSettings(steps=150, lr=3e-3, weight_decay=0.05)
    align_projector(CachedTowerVLM.from_vlm(vlm, tower_tokens), shots, replace(settings, steps=0))
    assert hashes["projector"] == vlm.hash("projector")
    before = accuracy()
    align_projector(CachedTowerVLM.from_vlm(vlm, tower_tokens), shots, settings)
    assert before < accuracy() == 1.0
    assert hashes["projector"] != vlm.hash("projector")
    assert all(hashes[part] == vlm.hash(part) for part in ("encoder", "language"))
    with torch.no_grad():
        tokens = vlm.model.get_submodule("model.multi_modal_projector")(
            torch.cat([*tower_tokens.values()])
        )
        words = vlm.model.get_input_embeddings().weight
        assert float(tokens.std() / words.std()) == pytest.approx(1, abs=0.1)
