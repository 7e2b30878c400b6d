"""Decoding of pictures: formats by content, limits before decoding, ranges of pixel values."""

from __future__ import annotations

import os
import struct
import subprocess
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from unsee.errors import DataError, UnseeError, quoted
from unsee.pixels import FORMATS, picture_format
from unsee.types import Picture

RAMP = np.linspace(0, 1, 64).reshape(8, 8)


def gray(path: Path) -> np.ndarray:
    """The decoded picture's first channel."""
    return np.asarray(Picture.from_path(path).open())[..., 0]


def png(path: Path, width: int, height: int, depth: int = 8, kind: int = 0) -> Path:
    """A PNG whose header announces a size, with hardly any content."""

    def chunk(name: bytes, data: bytes) -> bytes:
        checksum = zlib.crc32(name + data)
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", checksum)

    header = struct.pack(">IIBBBBB", width, height, depth, kind, 0, 0, 0)
    row = b"\0" + struct.pack(f">{3 * width}H", *[4095] * (3 * width)) if kind == 2 else b"\0"
    body = chunk(b"IHDR", header) + chunk(
        b"IDAT", zlib.compress(row * height if kind == 2 else row)
    )
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + body + chunk(b"IEND", b""))
    return path


@pytest.mark.parametrize("bits", [8, 10, 12, 14, 16])
def test_open_scales_16_bit_files_by_the_bits_that_are_used(tmp_path: Path, bits: int) -> None:
    values = np.rint(RAMP * (2**bits - 1)).astype(np.uint16)
    Image.fromarray(values).save(tmp_path / "a.png")
    assert np.array_equal(gray(tmp_path / "a.png"), values >> (bits - 8))
    assert gray(tmp_path / "a.png").max() == 255


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (RAMP.astype(np.float32), np.rint(RAMP * 255)),
        ((RAMP * 255).astype(np.float32), np.rint(RAMP * 255)),
        ((RAMP * 255).astype(np.int32), (RAMP * 255).astype(int)),
        ((RAMP * 4095).astype(np.int32), (RAMP * 4095).astype(int) >> 4),
        ((RAMP * (2**31 - 1)).astype(np.int32), (RAMP * (2**31 - 1)).astype(int) >> 23),
    ],
    ids=["float 0..1", "float 0..255", "int32 8 bits", "int32 12 bits", "int32 31 bits"],
)
def test_open_scales_numbers_of_known_range(
    tmp_path: Path, values: np.ndarray, expected: np.ndarray
) -> None:
    Image.fromarray(values).save(tmp_path / "a.tif")
    assert np.abs(gray(tmp_path / "a.tif").astype(int) - expected).max() <= 1


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ((RAMP * 1000).astype(np.float32), "floating-point pixels from 0 to 1000"),
        (np.where(RAMP > 0.5, np.nan, 0).astype(np.float32), "floating-point pixels"),
        ((RAMP * 100 - 50).astype(np.int32), "negative ones have no known range"),
    ],
    ids=["float 0..1000", "NaN", "negative"],
)
def test_open_refuses_numbers_of_unknown_range(
    tmp_path: Path, values: np.ndarray, words: str
) -> None:
    Image.fromarray(values).save(tmp_path / "a.tif")
    with pytest.raises(DataError, match=words) as caught:
        gray(tmp_path / "a.tif")
    assert "a.tif" in str(caught.value)


def test_open_keeps_the_range_that_a_pgm_states(tmp_path: Path) -> None:
    (tmp_path / "a.pgm").write_bytes(b"P5 2 1 65535\n" + struct.pack(">2H", 256, 4096))
    assert gray(tmp_path / "a.pgm").tolist() == [[1, 16]]


def test_open_refuses_12_bit_colour_in_16_bits(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="at most 12 are used"):
        Picture.from_path(png(tmp_path / "a.png", 4, 4, depth=16, kind=2)).open()


@pytest.mark.parametrize(
    ("width", "height"), [(1, 64_000_000), (64_000_000, 1), (30_000, 30_000), (8_001, 8_000)]
)
def test_open_refuses_sizes_before_decoding(tmp_path: Path, width: int, height: int) -> None:
    with pytest.raises(DataError, match="decompression bomb"):
        Picture.from_path(png(tmp_path / "a.png", width, height)).open()


def test_open_never_starts_a_program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def started(*_args: object, **_options: object) -> None:
        raise AssertionError("a program was started")

    monkeypatch.setattr(subprocess, "check_call", started)
    monkeypatch.setattr(subprocess, "Popen", started)
    head = "%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\n"
    (tmp_path / "a.jpg").write_text(f"{head}showpage\n%%EOF\n")
    with pytest.raises(DataError, match=r"a\.jpg: cannot be decoded"):
        Picture.from_path(tmp_path / "a.jpg").open()
    assert "EPS" not in FORMATS


def test_open_refuses_what_never_ends(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "zero.png").symlink_to("/dev/zero")
    (tmp_path / "folder.png").mkdir()
    for name, kind in (("pipe", "a pipe"), ("zero", "a device"), ("folder", "a folder")):
        with pytest.raises(DataError, match=f"{name}.png: is {kind}, not a file"):
            Picture.from_path(tmp_path / f"{name}.png").open()


def test_open_names_every_damaged_file(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for suffix in ("jpg", "png", "webp", "gif", "tif", "bmp", "ppm", "avif"):
        path = tmp_path / f"a.{suffix}"
        Image.fromarray((RAMP * 255).astype(np.uint8)).convert("RGB").save(path)
        whole = path.read_bytes()
        for _ in range(10):
            damaged = bytearray(whole[: rng.integers(9, len(whole) + 1)])
            for place in rng.integers(0, len(damaged), 4):
                damaged[place] = rng.integers(256)
            try:
                Picture(f"damaged.{suffix}", data=bytes(damaged)).open()
            except DataError as error:
                assert f"damaged.{suffix}" in str(error)  # noqa: PT017


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "gif", "tif", "bmp", "ppm", "avif"])
def test_picture_format_is_found_in_the_first_bytes(tmp_path: Path, suffix: str) -> None:
    Image.new("RGB", (8, 8)).save(tmp_path / f"a.{suffix}")
    assert picture_format((tmp_path / f"a.{suffix}").read_bytes()[:32]) in FORMATS


@pytest.mark.parametrize("suffix", ["gif", "webp", "png", "tif"])
def test_open_reads_the_first_frame_and_knows_of_more(tmp_path: Path, suffix: str) -> None:
    red, blue = Image.new("RGB", (8, 8), (250, 0, 0)), Image.new("RGB", (8, 8), (0, 0, 250))
    red.save(tmp_path / f"a.{suffix}", save_all=True, append_images=[blue])
    picture = Picture.from_path(tmp_path / f"a.{suffix}")
    assert picture.has_several_frames
    assert np.asarray(picture.open())[0, 0, 0] > 240
    red.save(tmp_path / f"b.{suffix}")
    assert not Picture.from_path(tmp_path / f"b.{suffix}").has_several_frames


def test_error_messages_escape_control_characters() -> None:
    assert str(UnseeError("a\x1b[31mb\x07\ud800 é 日本\nc")) == (
        "a\\x1b[31mb\\x07\\ud800 é 日本\nc"
    )


@pytest.mark.parametrize("value", ["x" * 10_000_000, [["y"] * 9] * 10**6, {"k": b"z" * 10**6}, 4])
def test_quoted_values_are_short(value: object) -> None:
    assert len(quoted(value)) <= 90
    assert quoted(4) == "4"
