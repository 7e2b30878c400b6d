"""Worlds of photographs with varied crop, light and background."""

from __future__ import annotations

from pathlib import Path

import torch

from unsee.pocket_builder.lifelike_world import make_world, nearest_neighbour


def test_nearest_neighbour_counts_matches(photographs: Path, tmp_path: Path) -> None:
    world = make_world(tmp_path, photographs, 0, 3, 1, 2)
    knowing = {
        s.file: torch.eye(4)[s.person if s.person is not None else 3].repeat(2, 1)
        for s in world.shots
    }
    assert nearest_neighbour(world, knowing)["tower"] == 1.0
    held = world.shots_of(range(3), "holdout")
    assert len(held) == 3
    # A held-out picture that is the very one trained on is found by its pixels.
    for shot in held:
        twin = world.shots_of([shot.person or 0], "train")[0]
        (tmp_path / shot.file).write_bytes((tmp_path / twin.file).read_bytes())
    assert nearest_neighbour(world, knowing) == {"pixels": 1.0, "tower": 1.0, "chance": 0.333}
