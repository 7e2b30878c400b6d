"""The check of a folder of photographs: duplicates, unreadable files, several people."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from support.faces import draw_faces
from unsee.data import faces as detection
from unsee.data import photographs
from unsee.data.faces import faces
from unsee.data.photographs import check_photographs, group_notes
from unsee.errors import ConfigError, DataError
from unsee.types import Picture, Sample


def test_faces_finds_one_box_a_face(tmp_path: Path) -> None:
    boxes = faces(Picture.from_path(draw_faces(tmp_path / "a.png", 2)))
    assert sorted(box.x0 < 160 for box in boxes) == [False, True]
    assert all(box.pixels((320, 200), "a") for box in boxes)


def test_check_photographs_counts_and_names(tmp_path: Path) -> None:
    draw_faces(tmp_path / "ada" / "1.png")
    draw_faces(tmp_path / "ada" / "2.png")
    Image.open(draw_faces(tmp_path / "ada" / "3.png", first=1)).save(tmp_path / "ada" / "4.jpg")
    draw_faces(tmp_path / "bo" / "group.png", 2)
    Image.new("RGB", (60, 60), "green").save(tmp_path / "bo" / "wall.png")
    (tmp_path / "bo" / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\nno more")
    (tmp_path / "bo" / "letter.txt").write_text("Dear Sir")
    found = check_photographs(tmp_path)
    assert found.people == {"ada": 2, "bo": 2}
    assert found.photographs == 4
    assert found.duplicates == [["ada/1.png", "ada/2.png"]]
    assert ("ada/3.png", "ada/4.jpg") in found.near_duplicates
    assert found.several == {"bo/group.png": 2}
    assert found.faceless == ["bo/wall.png"]
    assert found.unread == ["bo/letter.txt"]
    assert [("broken.png" in line, line in found.problems) for line in found.unreadable] == [
        (True, True)
    ]
    assert any("bo/group.png (2 faces). Mark the face" in note for note in found.notes)


def test_check_photographs_reads_boxes(tmp_path: Path) -> None:
    draw_faces(tmp_path / "group.png", 2)
    (tmp_path / "boxes.csv").write_text('image,box\ngroup.png,"0,0,0.5,1"\n')
    found = check_photographs(tmp_path)
    assert (found.several, found.unread, str(found.marked["group.png"])) == ({}, [], "0,0,0.5,1")
    (tmp_path / "boxes.csv").write_text('image,box\nother.png,"0,0,0.5,1"\n')
    with pytest.raises(DataError, match=r"other.png is not in the folder"):
        check_photographs(tmp_path)


def test_check_photographs_of_an_empty_folder_has_a_problem(tmp_path: Path) -> None:
    assert check_photographs(tmp_path).problems == [
        "no photograph was found. Give a folder of JPEG or PNG files."
    ]


def test_check_photographs_says_when_nothing_looks_for_faces(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # An OpenCV without its cascades, as version 5 is.
    monkeypatch.setattr(detection, "CASCADE", "haarcascade_of_version_5.xml")
    picture = Picture.from_path(draw_faces(tmp_path / "group.png", 2))
    found = check_photographs(tmp_path)
    assert (found.detector, found.several) == (False, {})
    assert any("no face detector is installed" in note for note in found.notes)
    with pytest.raises(ConfigError, match=r"pip install 'unsee\[faces\]'"):
        faces(picture)
    (note,) = group_notes([Sample("1", "", "", picture, "ada")])
    assert "no face detector is installed" in note


def test_group_notes_names_photographs_without_a_box(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    picture = Picture.from_path(draw_faces(tmp_path / "group.png", 2))
    sample = Sample("1", "", "", picture, "ada")
    (note,) = group_notes([sample])
    assert "group.png (2 faces)" in note
    assert group_notes([Sample("1", "Who?", "Ada.", picture, "ada")]) == []
    monkeypatch.setattr(photographs, "MOST_LOOKED_AT", 0)
    assert "were not searched" in group_notes([sample])[0]
