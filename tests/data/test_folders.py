"""Folders of pictures: what is a picture is decided by content, and what is not read is named."""

from __future__ import annotations

import json
import logging
import os
import unicodedata
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from unsee.data.folders import list_folder
from unsee.data.readers import read_folder
from unsee.errors import DataError
from unsee.recipes.sources import read_samples


def draw(path: Path, seed: int = 0, kind: str | None = None) -> Path:
    """A small picture in a file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 255, (12, 10, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path, kind)
    return path


def test_read_folder_decides_by_content(tmp_path: Path) -> None:
    kinds = {"a.jfif": "JPEG", "b.mpo": "JPEG", "c.avif": "AVIF", "d": "PNG", "e.dat": "WEBP"}
    for index, (name, kind) in enumerate(kinds.items()):
        draw(tmp_path / "ada" / name, index, kind)
    draw(tmp_path / "ada" / "f.png", 9, "JPEG")
    assert [Path(s.id).name for s in read_folder(tmp_path, "forget")] == [*kinds, "f.png"]


def test_read_folder_follows_links_but_not_in_circles(tmp_path: Path) -> None:
    draw(tmp_path / "elsewhere" / "bo" / "1.png", 1)
    draw(tmp_path / "photos" / "ada" / "1.png", 0)
    photos = tmp_path / "photos"
    (photos / "bo").symlink_to(tmp_path / "elsewhere" / "bo")
    (photos / "ada" / "up").symlink_to(photos)
    (photos / "ada" / "self").symlink_to(photos / "ada")
    (photos / "ada" / "2.png").symlink_to(tmp_path / "elsewhere" / "bo" / "1.png")
    (photos / "ada" / "gone.png").symlink_to(tmp_path / "nothing")
    (photos / "ada" / "loop.png").symlink_to(photos / "ada" / "loop.png")
    notes: list[str] = []
    samples = read_folder(photos, "forget", notes)
    assert [(s.id, s.concept) for s in samples] == [
        ("ada/1.png", "ada"),
        ("ada/2.png", "ada"),
        ("bo/1.png", "bo"),
    ]
    assert "gone.png (a link to nothing)" in notes[0]
    assert "loop.png (a link to nothing)" in notes[0]
    assert notes[0].count("a link to a folder that is read already") == 2


def test_read_folder_names_what_is_not_read(tmp_path: Path) -> None:
    for index, name in enumerate(["ada/1.png", "ada/2.png", "bo/1.png"]):
        draw(tmp_path / name, index)
    (tmp_path / "cy").mkdir()
    (tmp_path / "ada" / "notes.txt").write_text("x")
    (tmp_path / "ada" / "film.mp4").write_bytes(b"\0\0\0\x20ftypisom")
    os.mkfifo(tmp_path / "ada" / "pipe.jpg")
    draw(tmp_path / "@eaDir" / "1.png")
    draw(tmp_path / ".hidden" / "1.png")
    notes: list[str] = []
    samples = read_folder(tmp_path, "forget", notes)
    assert {s.concept for s in samples} == {"ada", "bo"}
    assert notes == [
        (
            "forget: 2 people, 3 photographs (3 files not read: ada/film.mp4, ada/notes.txt, "
            "ada/pipe.jpg (a pipe)). No picture in the subfolders: cy."
        )
    ]


def test_read_samples_logs_the_summary_at_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    draw(tmp_path / "ada" / "1.png")
    logger = logging.getLogger("unsee")
    logger.addHandler(caplog.handler)
    try:
        read_samples(tmp_path, "retain")
    finally:
        logger.removeHandler(caplog.handler)
    assert "retain: 1 person, 1 photograph." in [r.getMessage() for r in caplog.records]


def test_read_folder_has_one_name_for_both_spellings(tmp_path: Path) -> None:
    for form in ("NFC", "NFD"):
        draw(tmp_path / unicodedata.normalize(form, "Zoé") / f"{form}.png")
    assert {s.concept for s in read_folder(tmp_path, "forget")} == {
        unicodedata.normalize("NFC", "Zoé")
    }


def test_read_folder_says_that_one_frame_is_read(tmp_path: Path) -> None:
    red, blue = Image.new("RGB", (8, 8), (250, 0, 0)), Image.new("RGB", (8, 8), (0, 0, 250))
    (tmp_path / "ada").mkdir()
    red.save(tmp_path / "ada" / "a.gif", save_all=True, append_images=[blue])
    notes: list[str] = []
    read_folder(tmp_path, "forget", notes)
    assert "1 picture has several frames, of which the first is read" in notes[1]
    assert "a.gif" in notes[1]


@pytest.mark.parametrize(
    ("head", "kind"),
    [
        (b"\0\0\0\x18ftypheic", "HEIC"),
        (b"%!PS-Adobe-3.0 EPSF", "EPS"),
        (b"\xff\x0a\0\0", "JPEG XL"),
        (b"8BPS\0\1", "PSD"),
    ],
)
def test_list_folder_refuses_unreadable_formats_by_content(
    tmp_path: Path, head: bytes, kind: str
) -> None:
    (tmp_path / "IMG_1").write_bytes(head + b"\0" * 40)
    (tmp_path / "IMG_2.jpg").write_bytes(head + b"\0" * 40)
    problems = list_folder(tmp_path).problems
    assert [f"{kind} is not read. Convert it" in text for text in problems] == [True, True]


def test_read_folder_names_every_picture_that_cannot_be_used(tmp_path: Path) -> None:
    draw(tmp_path / "ada" / "1.png")
    (tmp_path / "ada" / "2.heic").write_bytes(b"\0\0\0\x18ftypheic" + b"\0" * 40)
    (tmp_path / "ada" / "3.png").write_bytes(b"")
    (tmp_path / "bo").mkdir()
    (tmp_path / "bo" / "4.jpg").write_bytes(b"no picture")
    with pytest.raises(DataError) as error:
        read_folder(tmp_path, "forget")
    lines = str(error.value).splitlines()
    assert [name in str(error.value) for name in ("2.heic", "3.png", "4.jpg")] == [True] * 3
    assert len([line for line in lines if "1.png" in line]) == 0


def test_list_folder_names_a_person_that_cannot_be_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    draw(tmp_path / "ada" / "1.png")
    draw(tmp_path / "bo" / "1.png")
    listdir = os.listdir

    def denied(path: Path) -> list[str]:
        if Path(path).name == "bo":
            raise PermissionError(13, "Permission denied")
        return listdir(path)

    monkeypatch.setattr(os, "listdir", denied)
    with pytest.raises(DataError, match=r"bo: cannot be read \(Permission denied\)"):
        read_folder(tmp_path, "forget")


def test_list_folder_refuses_names_that_are_not_utf8(tmp_path: Path) -> None:
    draw(tmp_path / "ada" / "1.png")
    Path(os.fsdecode(os.fsencode(tmp_path / "ada") + b"/\xff.png")).write_bytes(b"x")
    with pytest.raises(DataError, match="its name is not UTF-8"):
        read_folder(tmp_path, "forget")


def test_read_folder_reads_the_metadata_of_an_image_folder(tmp_path: Path) -> None:
    for index, name in enumerate(["ada/1.png", "bo/1.png", "bo/2.png"]):
        draw(tmp_path / name, index)
    rows = [
        {"file_name": "ada/1.png", "question": "Who?", "answer": "Ada."},
        {"file_name": "bo/1.png", "question": "Who?", "answer": "Bo.", "concept": "Bo Lind"},
    ]
    text = "".join(json.dumps(row) + "\n" for row in rows)
    (tmp_path / "metadata.jsonl").write_text(text)
    notes: list[str] = []
    samples = read_folder(tmp_path, "forget", notes)
    assert [(s.answer, s.concept) for s in samples] == [("Ada.", "ada"), ("Bo.", "Bo Lind")]
    assert notes == [
        "forget: 2 people, 2 photographs (1 file not read: bo/2.png (no row in metadata.jsonl))."
    ]
