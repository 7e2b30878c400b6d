"""Folders of published benchmarks, written by the test support."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from support.published import WRITERS


@pytest.fixture(scope="session")
def places(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A folder of every benchmark."""
    root = tmp_path_factory.mktemp("published")
    for name, writer in WRITERS.items():
        (root / name).mkdir()
        writer(root / name)
    return {name: root / name for name in WRITERS}


@pytest.fixture
def copied(places: dict[str, Path], tmp_path: Path) -> dict[str, Path]:
    """Copies of the folders that a test may change."""
    for name, place in places.items():
        shutil.copytree(place, tmp_path / name)
    return {name: tmp_path / name for name in places}
