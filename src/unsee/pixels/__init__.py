"""Decoding of encoded pictures: which formats are read, the limits, and unusual pixel values."""

from __future__ import annotations

import io
import stat
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from PIL import ExifTags, Image, ImageOps

from unsee.errors import DataError, first_line, shorten

# Pillow's names of the formats that are read. No other decoder is tried: one of them (EPS) would
# start a program, and what a file's name says does not matter.
# The decoder of JPEG reads MPO as well.
FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "PPM", "TIFF", "AVIF")

# A picture of more pixels is refused: decoding it could exhaust the memory.
MAX_PIXELS = 64_000_000

# So is a longer side: decoders allocate memory for each row beside its pixels.
MAX_SIDE = 65_535

# And a larger file, some decoders read as a whole.
MAX_FILE_BYTES = 1 << 30

# Numbers of bits that cameras and scanners store in 16 or 32 bits a pixel.
_DEPTHS = (8, 10, 12, 14, 16, 20, 24, 31, 32)

# What the first bytes of a file say about it.
_SIGNATURES = (
    (0, b"\xff\xd8\xff", "JPEG"),
    (0, b"\x89PNG\r\n\x1a\n", "PNG"),
    (0, b"GIF87a", "GIF"),
    (0, b"GIF89a", "GIF"),
    (0, b"II*\0", "TIFF"),
    (0, b"MM\0*", "TIFF"),
    (8, b"WEBPVP8", "WEBP"),
    (4, b"ftypavif", "AVIF"),
    (4, b"ftypavis", "AVIF"),
    (4, b"ftyphei", "HEIC"),
    (4, b"ftyphev", "HEIC"),
    (4, b"ftypmif1", "HEIC"),
    (4, b"ftypmsf1", "HEIC"),
    (4, b"ftypcrx ", "CR3"),
    (0, b"\0\0\0\x0cJXL \r\n\x87\n", "JPEG XL"),
    (0, b"\xff\x0a", "JPEG XL"),
    (0, b"\0\0\0\x0cjP  \r\n\x87\n", "JPEG 2000"),
    (0, b"\xff\x4f\xff\x51", "JPEG 2000"),
    (0, b"8BPS", "PSD"),
    (0, b"%!PS-Adobe", "EPS"),
    (0, b"\xc5\xd0\xd3\xc6", "EPS"),
)


def picture_format(head: bytes) -> str | None:
    """Returns the format of a picture by its first 32 bytes; None if they are no picture's.

    Formats that are not read, such as HEIC, are recognised too: they are not in `FORMATS`.

    Example:
        >>> picture_format(b"GIF89a...."), picture_format(b"hello")
        ('GIF', None)
    """
    for offset, signature, name in _SIGNATURES:
        if head[offset : offset + len(signature)] == signature:
            return name
    if head[:2] == b"BM" and head[6:10] == b"\0\0\0\0":
        return "BMP"
    if head[:1] == b"P" and head[1:2] in b"123456fF" and head[2:3] in b" \t\r\n":
        return "PPM"
    return None


def require_regular_file(path: Path, what: str) -> int:
    """Returns the size of a file in bytes, after checking that reading it comes to an end.

    Args:
        path: The file; links are followed.
        what: Its name in messages, such as "picture a.png".

    Raises:
        DataError: If it is a folder, a pipe, a device or a socket.
        OSError: If there is no such file.
    """
    status = path.stat()
    if not stat.S_ISREG(status.st_mode):
        kinds = {
            stat.S_IFDIR: "a folder",
            stat.S_IFIFO: "a pipe",
            stat.S_IFCHR: "a device",
            stat.S_IFBLK: "a device",
            stat.S_IFSOCK: "a socket",
        }
        kind = kinds.get(stat.S_IFMT(status.st_mode), "something else")
        raise DataError(f"{what}: is {kind}, not a file. Copy its content to a file, or remove it.")
    return status.st_size


def decode(source: str, path: Path | None, data: bytes | None) -> Image.Image:
    """Decodes a picture, in RGB and rotated as its EXIF tag says; of an animation, the first frame.

    Args:
        source: Its name in messages.
        path: The file, if it is one.
        data: The encoded bytes, if there is no file.

    Raises:
        DataError: If it is missing, damaged, no picture, too large, or its pixel values have an
            unknown range.
    """
    with _opened(source, path, data) as image:
        deep = ";16" in str(getattr(image, "tile", "")) and image.mode in {"RGB", "RGBA", "LA"}
        upright = ImageOps.exif_transpose(image)
        if upright.mode.startswith("I") or upright.mode == "F":
            gray = _to_bytes(np.asarray(upright), 16 if image.format == "PPM" else None)
            return Image.fromarray(gray).convert("RGB")
        rgb = upright.convert("RGB")
        if deep and 0 < max(high for _, high in rgb.getextrema()) < 16:  # type: ignore[misc]
            raise ValueError(
                "16 bits a channel, of which at most 12 are used; their range is unknown. "
                "Save it with 8 bits a channel"
            )
        return rgb


def picture_size(source: str, path: Path | None, data: bytes | None) -> tuple[int, int]:
    """Returns width and height in pixels, rotated as the EXIF tag says; only the header is read.

    Args:
        source: The name of the picture in errors.
        path: Its file, or None if `data` is given.
        data: Its bytes, or None if `path` is given.

    Raises:
        DataError: If it cannot be opened.
    """
    with _opened(source, path, data) as image:
        width, height = image.size
        sideways = image.getexif().get(ExifTags.Base.Orientation) in {5, 6, 7, 8}
        return (height, width) if sideways else (width, height)


def has_several_frames(source: str, path: Path | None, data: bytes | None) -> bool:
    """Returns whether a picture is an animation or has several pages; only its header is read.

    Args:
        source: The name of the picture in errors.
        path: Its file, or None if `data` is given.
        data: Its bytes, or None if `path` is given.

    Raises:
        DataError: If it cannot be opened.
    """
    with _opened(source, path, data) as image:
        # The second picture of an MPO is a view or a gain map of the same photograph.
        return image.format != "MPO" and bool(getattr(image, "is_animated", False))


@contextmanager
def _opened(source: str, path: Path | None, data: bytes | None) -> Iterator[Image.Image]:
    """Opens a picture after checking its kind and size, and names it in every error."""
    if path is None and data is None:
        raise DataError(f"picture {source}: neither a file nor bytes were given.")
    try:
        if path is not None and data is None:
            size = require_regular_file(path, f"picture {source}")
            if size > MAX_FILE_BYTES:
                raise DataError(_too_large(source, f"{size:,} bytes", f"{MAX_FILE_BYTES:,}"))
        with warnings.catch_warnings():
            # A damaged EXIF tag does not affect the pixels.
            warnings.simplefilter("ignore", UserWarning)
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            handle = path if data is None else io.BytesIO(data)
            with Image.open(handle, formats=FORMATS) as image:  # type: ignore[arg-type]
                width, height = image.size
                if width * height > MAX_PIXELS or max(width, height) > MAX_SIDE:
                    limit = f"{MAX_PIXELS:,}, and {MAX_SIDE:,} a side,"
                    raise DataError(_too_large(source, f"{width} x {height} pixels", limit))
                yield image
    except DataError:
        raise
    except FileNotFoundError as error:
        raise DataError(
            f"picture {source}: no such file. Check the path, or drop the row."
        ) from error
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise DataError(_too_large(source, "too many pixels", f"{MAX_PIXELS:,}")) from error
    except Exception as error:
        # Pillow's decoders raise errors of nearly every type for damaged files.
        raise DataError(
            f"picture {source}: cannot be decoded ({shorten(first_line(error), 300)}). "
            "Replace it with a readable JPEG, PNG, WebP or PGM, or remove it."
        ) from error


def _too_large(source: str, size: str, limit: str) -> str:
    return (
        f"picture {source}: {size}; at most {limit} are decoded "
        "(a guard against decompression bombs). Scale it down, or remove it."
    )


def _to_bytes(values: np.ndarray, depth: int | None) -> np.ndarray:
    """Scales gray values of more than 8 bits to 0..255.

    Args:
        values: Whole numbers from 0, or floating-point numbers in 0..1 or 0..255.
        depth: Bits per value; None is the smallest usual number of bits that holds the largest.

    Raises:
        ValueError: If the range of the values is unknown.
    """
    low, high = values.min(), values.max()
    if values.dtype.kind == "f":
        if not (np.isfinite(low) and np.isfinite(high)) or low < 0 or high > 255:
            raise ValueError(
                f"floating-point pixels from {low:.6g} to {high:.6g}; only 0 to 1 and 0 to 255 are "
                "known. Save it with 8 bits a channel"
            )
        rounded: np.ndarray = np.rint(values * (255 if high <= 1 else 1)).astype(np.uint8)
        return rounded
    if low < 0:
        raise ValueError(
            f"pixels from {low} to {high}; negative ones have no known range. Save it with 8 bits "
            "a channel"
        )
    bits = depth or next(bits for bits in _DEPTHS if int(high) < 1 << bits)
    gray: np.ndarray = (values.astype(np.int64) >> (bits - 8)).astype(np.uint8)
    return gray
