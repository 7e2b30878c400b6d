"""Searches every byte of a folder for planted personal data, in every form that it could take.

A text is looked for in NFC and NFD, any case, with other separators, in UTF-8 and UTF-16, and with
the escapes of JSON, YAML, HTML and URLs; a picture by its bytes, by what it looks like, and by
every hash that somebody who has the photograph could compute. Files are also looked at from within:
archives, compressed files, base64, escaped text and headers of safetensors.
"""

from __future__ import annotations

import base64
import binascii
import bz2
import gzip
import hashlib
import html
import io
import json
import lzma
import re
import tarfile
import unicodedata
import urllib.parse
import zipfile
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image

# How deeply files within files are opened.
DEEPEST = 5
_BASE64 = re.compile(rb"[A-Za-z0-9+/_-]{40,}={0,2}")
_WORD = re.compile(r"\w+", re.UNICODE)
MAGIC = (b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"RIFF", b"GIF8", b"BM")


@dataclass(frozen=True)
class Planted:
    """What must not be found.

    Attributes:
        texts: Names, answers, folders and comments; of two letters or more.
        pictures: Photographs.
        digests: Further hashes, hexadecimal, such as those of sets of samples.
    """

    texts: Iterable[str]
    pictures: Iterable[Path] = ()
    digests: Iterable[str] = field(default=())


def search(folder: Path, planted: Planted, ignore: Iterable[str] = ()) -> list[str]:
    """Returns what was found, as "file: what"; empty if nothing was.

    Args:
        folder: The folder; hidden files and the names of files are searched as well.
        planted: What to look for.
        ignore: Files, relative to the folder, that are not searched.
    """
    patterns = {text: _pattern(text) for text in planted.texts}
    digests = {}
    looks = []
    for path in planted.pictures:
        digests |= dict.fromkeys(_picture_digests(path), f"hash of {path.name}")
        looks.append((path.name, path.read_bytes(), _thumbnail(path.read_bytes())))
    digests |= dict.fromkeys(planted.digests, "hash of samples")
    found: dict[str, None] = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        contents = [("its name", name.encode("utf-8", "surrogateescape"))]
        if path.is_file() and name not in ignore:
            contents += _within("", path.read_bytes())
        for place, content in contents:
            where = f"{name}{f' ({place})' if place else ''}"
            for what in _look(content, patterns, digests, looks):
                found[f"{where}: {what}"] = None
    return list(found)


def _look(
    content: bytes,
    patterns: dict[str, re.Pattern[str]],
    digests: dict[str, str],
    looks: list[tuple[str, bytes, np.ndarray | None]],
) -> Iterator[str]:
    """Names everything that is in a content."""
    binary = not _is_text(content)
    for text in _decoded(content):
        plain = _plain(text)
        for needle, pattern in patterns.items():
            # Two letters stand somewhere in a megabyte of numbers.
            if not (binary and len(_plain(needle)) < 4) and pattern.search(plain):
                yield f"the text {needle!r}"
    lower = content.lower()
    for digest, what in digests.items():
        raw = bytes.fromhex(digest)
        # Cut short, as in a card, in base64, or as bytes.
        coded = (base64.b64encode(raw)[:20], base64.urlsafe_b64encode(raw)[:20])
        if digest[:16].encode() in lower or any(c in content for c in (raw[:12], *coded)):
            yield what
    seen = _thumbnail(content) if content.startswith(MAGIC) else None
    for name, encoded, look in looks:
        middle = len(encoded) // 2
        if encoded[middle : middle + 48] in content:
            yield f"bytes of {name}"
        elif seen is not None and look is not None and float(np.abs(seen - look).mean()) < 16:
            yield f"a picture like {name}"


def _within(place: str, content: bytes, depth: int = 0) -> Iterator[tuple[str, bytes]]:
    """Yields a content, and what it contains when opened, decoded or unpacked."""
    yield place, content
    if depth == DEEPEST:
        return
    for label, found in (*_unpacked(content), *_unarchived(content), *_unwrapped(content)):
        if found and found != content:
            yield from _within(f"{place}/{label}" if place else label, found, depth + 1)


def _unpacked(content: bytes) -> Iterator[tuple[str, bytes]]:
    """The content of a compressed file."""
    kinds = {
        "gzip": gzip.decompress,
        "bz2": bz2.decompress,
        "xz": lzma.decompress,
        "zlib": zlib.decompress,
    }
    for label, unpack in kinds.items():
        try:
            yield label, unpack(content)
        except (OSError, EOFError, ValueError, lzma.LZMAError, zlib.error):
            continue


def _unarchived(content: bytes) -> Iterator[tuple[str, bytes]]:
    """The members of an archive, and their names."""
    if content[:2] == b"PK":
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            for member in archive.namelist():
                yield member, member.encode()
                yield member, archive.read(member)
    if content[257:262] == b"ustar":
        with tarfile.open(fileobj=io.BytesIO(content)) as tar:
            for entry in tar.getmembers():
                yield entry.name, entry.name.encode()
                file = tar.extractfile(entry)
                yield entry.name, file.read() if file is not None else b""


def _unwrapped(content: bytes) -> Iterator[tuple[str, bytes]]:
    """The header of safetensors, and what a text holds in base64."""
    header = int.from_bytes(content[:8], "little")
    if 2 <= header <= len(content) - 8 and content[8:9] == b"{":
        # Tensors are numbers; what names them, and the metadata, is text.
        yield "header", content[8 : 8 + header]
    for run in _BASE64.findall(content) if _is_text(content) else ():
        for decode in (base64.b64decode, base64.urlsafe_b64decode):
            try:
                yield "base64", decode(run + b"=" * (-len(run) % 4))
            except (binascii.Error, ValueError):
                continue


def _is_text(content: bytes) -> bool:
    try:
        content.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return b"\0" not in content


def _decoded(content: bytes) -> Iterator[str]:
    """The texts that a content may be, with escapes undone."""
    texts = []
    if _is_text(content):
        # Weights and thumbnails in base64 are no words.
        texts.append(_BASE64.sub(_without_long, content).decode())
    else:
        # Within binary files only runs of letters are text.
        texts += [run.decode("utf-8", "ignore") for run in _runs(content)]
        for encoding in ("utf-16-le", "utf-16-be"):
            for start in (0, 1):
                wide = content[start:][: (len(content) - start) // 2 * 2]
                texts += _wide_runs(wide.decode(encoding, "replace"))
    for text in texts:
        yield text
        for undo in (html.unescape, urllib.parse.unquote_plus, _unescape):
            other = undo(text)
            if other != text:
                yield other
                yield html.unescape(urllib.parse.unquote_plus(_unescape(other)))


def _without_long(run: re.Match[bytes]) -> bytes:
    return b" " if len(run[0]) > 400 else run[0]


def _runs(content: bytes) -> list[bytes]:
    r"""Runs of at least six printable bytes that hold words; "\x80-\xff" are letters of UTF-8."""
    return re.findall(rb"(?:[\x20-\x7e]|[\xc3-\xf4][\x80-\xbf]{1,3}){6,}", content)


def _wide_runs(text: str) -> list[str]:
    return re.findall(r"[\w .,:/\\-]{6,}", text)


def _unescape(text: str) -> str:
    r"""Undoes \xe9, \u00e9, \U000000e9 and \n of JSON, YAML and Python."""

    def char(match: re.Match[str]) -> str:
        number = int(match[1] or match[2] or match[3], 16)
        return chr(number) if number < 0x110000 else " "

    text = re.sub(r"\\x([0-9a-fA-F]{2})|\\u([0-9a-fA-F]{4})|\\U([0-9a-fA-F]{8})", char, text)
    text = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return re.sub(r'\\([nt/"\\])', r" \1", text)


def _plain(text: str) -> str:
    """A text without case and accents' spelling, its separators as spaces."""
    folded = unicodedata.normalize("NFKD", unicodedata.normalize("NFKC", text).casefold())
    return re.sub(r"[\W_]+", " ", "".join(c for c in folded if not unicodedata.combining(c)))


def _pattern(text: str) -> re.Pattern[str]:
    """Finds a planted text in a plain one; words may also be joined without a separator."""
    words = _WORD.findall(_plain(text))
    body = " ?".join(map(re.escape, words))
    letters = sum(map(len, words))
    # Two letters are part of many words, and five Chinese ones of none.
    whole = letters < 6 and body.isascii()
    return re.compile(rf"(?<![a-z0-9]){body}(?![a-z0-9])" if whole else body)


def _picture_digests(path: Path) -> Iterator[str]:
    """Every hash of a photograph that its owner could compute."""
    encoded = path.read_bytes()
    with Image.open(path) as opened:
        rgb = opened.convert("RGB")
    pixels = rgb.tobytes()
    for content in (encoded, pixels, repr(rgb.size).encode() + pixels):
        for name in ("sha256", "sha1", "md5", "sha512", "blake2b"):
            digest = hashlib.new(name, content).hexdigest()
            yield digest
            yield hashlib.sha256(digest.encode()).hexdigest()
            yield hashlib.sha256(json.dumps([digest]).encode()).hexdigest()


def _thumbnail(encoded: bytes) -> np.ndarray | None:
    """The picture in 16 x 16 pixels; None if it is none."""
    try:
        with Image.open(io.BytesIO(encoded)) as opened:
            small = opened.convert("RGB").resize((16, 16), Image.Resampling.BILINEAR)
    except (OSError, ValueError, SyntaxError):
        return None
    return np.asarray(small, dtype=np.float32)
