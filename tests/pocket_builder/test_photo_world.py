"""Worlds made of a folder of photographs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from support.pocket_build import TINY_EFFORT, photograph
from unsee.benchmarks.pocket import Pocket
from unsee.errors import DataError
from unsee.pocket_builder.from_scratch import BUILD, build
from unsee.pocket_builder.photo_world import read_folder


def test_build_from_photographs_makes_a_world(tmp_path: Path) -> None:
    faces = tmp_path / "faces"
    for person in range(6):
        for shot in range(5):
            photograph(faces / f"s{person}" / f"{shot}.pgm", 10 * person + shot)
    out = build(tmp_path / "out", people=4, forget=1, faces=faces, effort=TINY_EFFORT)
    pocket = Pocket(out)
    assert pocket.world.kind == "photos"
    assert len(pocket.world.people) == 4
    assert {s.task for s in pocket.load("general")} == {"generation", "cloze", "classification"}
    assert pocket.load("forget_holdout")
    assert json.loads((out / BUILD).read_text())["kind"] == "photos"


def test_read_folder_names_unusable_photographs(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such folder"):
        read_folder(tmp_path / "none")
    faces = tmp_path / "faces"
    faces.mkdir()
    with pytest.raises(DataError, match="no subfolder holds photographs"):
        read_folder(faces)
    for shot in range(3):
        photograph(faces / "ada" / f"{shot}.png", shot)
    with pytest.raises(DataError, match="ada has 3 photographs; at least 4"):
        read_folder(faces)
    (faces / "ada" / "3.png").write_bytes(b"no picture")
    with pytest.raises(DataError, match=r"3\.png.*cannot be decoded"):
        read_folder(faces)
    photograph(faces / "ada" / "3.png", 3)
    with pytest.raises(DataError, match="1 people are too few"):
        build(tmp_path / "out", people=4, forget=1, faces=faces, effort=TINY_EFFORT)
    assert not (tmp_path / "out").exists()
