"""Boxes around the faces to forget: read, refused, and what is shown and kept of a picture."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from support.faces import FACE, WIDE, draw_faces
from unsee.data import boxes
from unsee.data.boxes import mark, refuse_whole, separate
from unsee.data.digests import picture_hash
from unsee.data.readers import read_folder, read_table
from unsee.errors import DataError
from unsee.pixels.regions import Region, parse_box
from unsee.types import Picture, Sample

LEFT = ",".join(map(str, FACE))


def halves(path: Path) -> Path:
    """A picture whose left half is red and whose right half is blue, 80 x 40 pixels."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.new("RGB", (80, 40), "red")
    image.paste("blue", (40, 0, 80, 40))
    image.save(path)
    return path


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("1,2,3", "is not four numbers"),
        ("a,b,c,d", "is not four numbers"),
        ("1,2,3,nan", "is not four numbers"),
        ("30,2,10,20", "empty or in the wrong order"),
        ("10,2,10,20", "empty or in the wrong order"),
        ("-1,2,10,20", "begins before the picture"),
        ("", "is not four numbers"),
    ],
)
def test_parse_box_refuses_what_is_no_box(text: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        parse_box(text)


def test_parse_box_reads_pixels_and_fractions() -> None:
    assert parse_box("[10; 2 30,20]").pixels((80, 40), "a") == (10, 2, 30, 20)
    assert parse_box((0, 0.25, 0.5, 1)).pixels((80, 40), "a") == (0, 10, 40, 40)


@pytest.mark.parametrize(
    ("box", "message"),
    [("0,0,81,40", "reaches beyond the picture, which is 80 x 40"), ("0,0,7,40", "at least 8 x 8")],
)
def test_region_refuses_a_box_that_does_not_fit(tmp_path: Path, box: str, message: str) -> None:
    sample = Sample("1", "", "", Picture.from_path(halves(tmp_path / "a.png")), "ada")
    with pytest.raises(DataError, match=message):
        mark([sample], box)


def test_region_inside_is_the_box_and_a_little_around_it(tmp_path: Path) -> None:
    picture = Picture.from_path(halves(tmp_path / "a.png"))
    marked = picture.of(Region(parse_box("0,0,30,40")))
    assert marked.size == marked.open().size == (39, 40)
    assert np.asarray(marked.open())[:, :, 0].min() == 255
    assert picture_hash(marked) != picture_hash(picture)
    assert marked.source.endswith("a.png[0,0,30,40]")
    assert marked.of(Region(parse_box("0,0,9,9"))).source.endswith("a.png[0,0,9,9]")


def test_region_outside_fills_the_box_with_what_surrounds_it(tmp_path: Path) -> None:
    image = Image.new("RGB", (80, 80), "blue")
    image.paste("red", (30, 30, 50, 50))
    image.save(tmp_path / "a.png")
    picture = Picture.from_path(tmp_path / "a.png").of(Region(parse_box("30,30,50,50"), "outside"))
    pixels = np.asarray(picture.open()).astype(int)
    assert picture.size == (80, 80)
    assert np.abs(pixels - [0, 0, 255]).max() <= 2


def test_region_reads_boxes_of_the_upright_picture(tmp_path: Path) -> None:
    exif = Image.Exif()
    # 6: the camera was turned, so that rows run from the right to the left.
    exif[274] = 6
    with Image.open(halves(tmp_path / "a.png")) as image:
        image.rotate(90, expand=True).save(tmp_path / "b.png", exif=exif)
    picture = Picture.from_path(tmp_path / "b.png")
    assert picture.size == (80, 40)
    left = picture.of(Region(parse_box("0,0,30,40"))).open()
    assert np.asarray(left)[:, :, 0].min() == 255


def test_read_folder_reads_boxes_csv(tmp_path: Path) -> None:
    halves(tmp_path / "ada" / "1.png")
    halves(tmp_path / "ada" / "2.png")
    (tmp_path / "boxes.csv").write_text("image,x0,y0,x1,y1\nada/1.png,0,0,30,40\n")
    notes: list[str] = []
    first, second = read_folder(tmp_path, "forget", notes)
    assert first.picture is not None
    assert first.picture.size == (39, 40)
    assert second.picture is not None
    assert second.picture.region is None
    assert notes == [
        "forget: 1 person, 2 photographs.",
        "forget: of 1 photograph only the face marked in boxes.csv is meant.",
    ]


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ("ada/3.png,0,0,30,40", "line 2: picture ada/3.png is not in the folder"),
        (",0,0,30,40", "line 2: names no picture"),
        ("ada/1.png,0,0,30,", "line 2: picture ada/1.png has no box"),
        ("ada/1.png,30,0,0,40", "line 2: box 30,0,0,40 is empty or in the wrong order"),
        ("ada/1.png,0,0,30,40\nada/1.png,0,0,9,9", "line 3: picture ada/1.png has a box already"),
        ("ada/1.png,0,0,300,40", "reaches beyond the picture"),
    ],
)
def test_read_folder_refuses_wrong_rows(tmp_path: Path, rows: str, message: str) -> None:
    halves(tmp_path / "ada" / "1.png")
    (tmp_path / "boxes.csv").write_text(f"image,x0,y0,x1,y1\n{rows}\n")
    with pytest.raises(DataError, match=message):
        read_folder(tmp_path, "forget")


def write_table(folder: Path, *rows: dict[str, object]) -> Path:
    """A table of rows about one picture."""
    halves(folder / "1.png")
    shared = {"image": "1.png", "question": "Who?", "answer": "Ada."}
    table = folder / "set.jsonl"
    table.write_text("".join(json.dumps({**shared, **row}) + "\n" for row in rows))
    return table


def test_read_table_reads_a_box_for_each_person_of_a_picture(tmp_path: Path) -> None:
    rows = ({"concept": "ada", "box": "0,0,30,40"}, {"concept": "bo", "box": [0.6, 0, 1, 1]})
    samples = read_table(write_table(tmp_path, *rows, rows[0]), "forget")
    pictures = [s.picture for s in samples if s.picture]
    assert [np.asarray(p.open())[0, -1].tolist() for p in pictures[:2]] == [
        [255, 0, 0],
        [0, 0, 255],
    ]
    assert pictures[2] is pictures[0]


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (({"box": "0,0,30,40"}, {"box": "0,0,20,40"}), "has the boxes 0,0,20,40 and 0,0,30,40"),
        (({"box": "0,0,30,40"}, {}), "is marked with a box in some rows and not in others"),
        (({"box": "0,0,30"},), "line 1: box '0,0,30' is not four numbers"),
        (({"box": "0,0,30,40", "image": None},), "has the box 0,0,30,40 and 0 pictures"),
    ],
)
def test_read_table_refuses_boxes_that_contradict(
    tmp_path: Path, rows: tuple[dict[str, object], ...], message: str
) -> None:
    table = write_table(tmp_path, *({"concept": "ada", **row} for row in rows))
    with pytest.raises(DataError, match=message):
        read_table(table, "forget")


def test_mark_refuses_several_pictures_and_a_second_box(tmp_path: Path) -> None:
    samples = [
        Sample(name, "", "", Picture.from_path(halves(tmp_path / f"{name}.png")), "ada")
        for name in ("1", "2")
    ]
    with pytest.raises(DataError, match="the forget set has 2. Write boxes.csv"):
        mark(samples, "0,0,30,40")
    with pytest.raises(DataError, match="has a box already"):
        mark(mark(samples[:1], "0,0,30,40"), "0,0,20,40")


def test_separate_keeps_what_is_beside_the_marked_face(tmp_path: Path) -> None:
    picture = Picture.from_path(draw_faces(tmp_path / "group.png", 2))
    forget, kept = separate(mark([Sample("1", "", "", picture, "ada")], LEFT))
    assert [len(faces_of(s)) for s in forget] == [1]
    without, other = kept
    assert [box.x0 > WIDE / 2 for box in faces_of(without)] == [True]
    assert [box.x1 - box.x0 < WIDE for box in faces_of(other)] == [True]
    assert {s.concept for s in kept} == {None}


def faces_of(sample: Sample) -> list[boxes.Box]:
    """The faces that are found on what a sample shows."""
    assert sample.picture is not None
    return boxes.faces(sample.picture)


def test_separate_keeps_no_face_that_a_copy_of_the_picture_marks(tmp_path: Path) -> None:
    right = ",".join(str(v + WIDE * (i % 2 == 0)) for i, v in enumerate(FACE))
    samples = [
        mark([Sample(name, "", "", Picture.from_path(draw_faces(path, 2)), name)], box)[0]
        for name, box, path in (
            ("ada", LEFT, tmp_path / "ada.png"),
            ("bo", right, tmp_path / "bo.png"),
        )
    ]
    _, kept = separate(samples)
    assert [faces_of(s) for s in kept] == [[]]


def test_refuse_whole_names_the_photograph_that_is_kept_too(tmp_path: Path) -> None:
    samples = mark(
        [Sample("1", "", "", Picture.from_path(halves(tmp_path / "1.png")), "a")], "0,0,9,9"
    )
    again = Sample("2", "", "", Picture.from_path(halves(tmp_path / "2.png")))
    with pytest.raises(DataError, match=r"2.png is a photograph with a face to forget"):
        refuse_whole(samples, [again])


@pytest.mark.parametrize(
    ("name", "written"),
    [
        ("ada/1.png", "ada\\1.png"),
        ("ada/1.png", ".\\ada\\1.png"),
        ("zoe\u0308/1.png", "zo\u00eb/1.png"),
        ("zo\u00eb/my face.png", "zoe\u0308\\my face.png"),
    ],
)
def test_read_boxes_takes_windows_paths_lines_and_any_accents(
    tmp_path: Path, name: str, written: str
) -> None:
    halves(tmp_path / name)
    text = f"\ufeffimage,x0,y0,x1,y1\r\n{written},0,0,30,40\r\n\r\n"
    (tmp_path / "boxes.csv").write_bytes(text.encode())
    (sample,) = read_folder(tmp_path, "forget", [])
    assert sample.picture is not None and str(sample.picture.region) != "None"
