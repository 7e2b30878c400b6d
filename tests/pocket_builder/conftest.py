"""Small builds and photographs that the tests of the builder share."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from support.pocket_build import TINY_EFFORT, TINY_SCALE, tiny_parts
from unsee.pocket_builder.face_drawing import draw
from unsee.pocket_builder.face_traits import Scene, distinct_people
from unsee.pocket_builder.from_pretrained import build
from unsee.pocket_builder.from_scratch import build as build_from_scratch


@pytest.fixture(scope="session")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six people, five pictures each."""
    folder = tmp_path_factory.mktemp("photographs")
    rng = np.random.default_rng(0)
    for person, traits in enumerate(distinct_people(6, rng)):
        for shot in range(5):
            path = folder / f"p{person}" / f"{shot}.png"
            path.parent.mkdir(exist_ok=True)
            draw(traits, Scene.draw_from(rng)).resize((96, 96)).save(path)
    return folder


@pytest.fixture(scope="session")
def built(photographs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A complete build from tiny pretrained parts."""
    out = tmp_path_factory.mktemp("built") / "a"
    return build(out, tiny_parts, seed=1, faces=photographs, scale=TINY_SCALE, device="cpu")


@pytest.fixture(scope="session")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A complete build from scratch with five people and a few steps."""
    return build_from_scratch(
        tmp_path_factory.mktemp("small") / "a", seed=3, people=5, forget=1, effort=TINY_EFFORT
    )
