"""Photographs as people bring them: each is read, or named with what to do about it."""

from __future__ import annotations

import io
import re
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from support.cli import unsee
from support.ledgers import ledger, photographs, request
from unsee.requests.photographs import check_photographs
from unsee.types import Picture

HEIC = b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + b"\0" * 64


def noise(seed: int, mode: str = "RGB", size: tuple[int, int] = (24, 40)) -> Image.Image:
    pixels = np.random.default_rng(seed).integers(0, 255, (*size, 3), dtype=np.uint8)
    return Image.fromarray(pixels).convert(mode)


def packed(folder: Path) -> None:
    data = io.BytesIO()
    noise(5).save(data, "PNG")
    with zipfile.ZipFile(folder / "more.zip", "w") as file:
        file.writestr("anna/1.png", data.getvalue())


def looped(folder: Path) -> None:
    (folder / "up").symlink_to("..")
    (folder / "self").symlink_to("self")


def animated(folder: Path) -> None:
    frames = [noise(seed) for seed in (5, 6)]
    frames[0].save(folder / "a.gif", save_all=True, append_images=frames[1:])


def named(folder: Path) -> None:
    noise(5).save(folder / 'it\'s "x"\n😀 $(touch HACK).png')


def deep(folder: Path) -> None:
    pixels = np.random.default_rng(5).integers(0, 65535, (24, 40), dtype=np.uint16)
    Image.fromarray(pixels).save(folder / "deep.png")


# What is in the folder besides three photographs: how many photographs there are then, and a note.
READ: dict[str, tuple[Callable[[Path], object], int, str]] = {
    "zip": (packed, 3, "1 archive among them: unpack"),
    "video": (lambda p: (p / "anna.mp4").write_bytes(b"x"), 3, "1 other file in the folder was"),
    "links in a circle": (looped, 3, "1 other file in the folder was not read"),
    "animation": (animated, 4, "1 picture has several frames, of which the first is read"),
    "quotes, line break and emoji": (named, 4, ""),
    "CMYK": (lambda p: noise(5, "CMYK").save(p / "c.jpg"), 4, ""),
    "16 bits": (deep, 4, ""),
    "nobody": (lambda p: (p / "bert").mkdir(), 3, "1 subfolder has no photograph"),
}


@pytest.mark.parametrize("kind", READ)
def test_folder_is_read_and_what_is_not_is_counted(kind: str, tmp_path: Path) -> None:
    photos = photographs(tmp_path / "anna")
    add, count, note = READ[kind]
    add(photos)
    checked = check_photographs(str(photos))
    assert checked.count == count
    assert note in "; ".join(checked.notes)
    assert "anna" not in "; ".join(checked.notes)


# What a folder or file is refused for, and what the message says to do.
REFUSED: dict[str, tuple[Callable[[Path], object], str]] = {
    "HEIC": (lambda p: (p / "IMG_1.HEIC").write_bytes(HEIC), "IMG_1.HEIC: .heic is not read. Conv"),
    "HEIC by another name": (
        lambda p: (p / "1.jpg").write_bytes(HEIC),
        "HEIC is not read. Convert",
    ),
    "20000 pixels": (
        lambda p: Image.new("1", (20000, 20000)).save(p / "big.png"),
        r"at most 64,000,000 are decoded .* Scale it down, or remove it",
    ),
    "cut": (
        lambda p: (p / "a.jpg").write_bytes(b"\xff\xd8\xff\xe0abc"),
        "Replace it with a readab",
    ),
    "empty": (lambda p: (p / "a.jpg").write_bytes(b""), "Replace it with a readable"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_request_and_unlearn_refuse_by_name(kind: str, tiny_folder: Path, tmp_path: Path) -> None:
    photos = photographs(tmp_path / "anna")
    add, message = REFUSED[kind]
    add(photos)
    book = ledger(tmp_path / "book", tiny_folder, "--attack", "none")
    for said in (
        request(book, "new", "--photos", photos, code=2),
        unsee("unlearn", "--model", tiny_folder, "--forget", photos, code=2),
    ):
        assert re.search(message, said), said
        assert "Traceback" not in said


def test_archives_and_links_in_place_of_a_folder_are_refused(
    tiny_folder: Path, tmp_path: Path
) -> None:
    packed(tmp_path)
    (tmp_path / "link").symlink_to("link")
    book = ledger(tmp_path / "book", tiny_folder, "--attack", "none")
    cases = (("more.zip", "Unpack it first"), ("link", "leads to itself). Give the folder"))
    for name, advice in cases:
        for said in (
            request(book, "new", "--photos", tmp_path / name, code=2),
            unsee("unlearn", "--model", tiny_folder, "--forget", tmp_path / name, code=2),
        ):
            assert advice in said


def test_photographs_are_upright_and_deep_ones_are_not_cut_to_white(tmp_path: Path) -> None:
    upright = noise(3)
    for number, turn in ((3, Image.Transpose.ROTATE_180), (6, Image.Transpose.ROTATE_90)):
        exif = Image.Exif()
        exif[0x112] = number
        upright.transpose(turn).save(tmp_path / f"{number}.png", exif=exif)
        picture = Picture.from_path(tmp_path / f"{number}.png")
        assert picture.open().tobytes() == upright.tobytes()
        assert picture.size == upright.size
    deep(tmp_path)
    values = np.asarray(Picture.from_path(tmp_path / "deep.png").open())
    assert 100 < values.mean() < 155
