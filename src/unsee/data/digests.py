"""Hashes of data sets, which records and caches use to identify them."""

from __future__ import annotations

import hashlib
import hmac
import json
import os
from collections.abc import Callable, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from unsee.files import hash_file, is_regular
from unsee.types import Data, Picture, Sample


def salted_hash(picture: Picture, salt: bytes) -> str:
    """Returns the HMAC-SHA256 of a picture's decoded pixels, keyed with a salt.

    The SHA-256 of a picture identifies it to anyone who has a copy. A salted hash does so only for
    whoever also has the salt. The same pixels have the same hash in every lossless file format, and
    so has a photograph of which one face is marked.

    Raises:
        DataError: If the picture cannot be opened.
    """
    whole = picture if picture.region is None else replace(picture, region=None)
    return hmac.new(salt, bytes.fromhex(whole.digest), hashlib.sha256).hexdigest()


def salt_id(salt: bytes) -> str:
    """Returns 16 hexadecimal digits that identify a salt and do not disclose it."""
    return hmac.new(salt, b"id of a salt", hashlib.sha256).hexdigest()[:16]


def data_hash(data: Data) -> str:
    """Returns the SHA-256 of everything that a method reads from the data, in order.

    Pictures count by their decoded content; paths do not count.
    """
    digest = hashlib.sha256()
    sets = (("forget", data.forget), ("retain", data.retain), ("by name", data.text_only))
    for name, samples in sets:
        for sample in samples:
            digest.update(json.dumps([name, *_content(sample)]).encode())
    for picture in data.strangers:
        digest.update(json.dumps(["stranger", picture.digest]).encode())
    return digest.hexdigest()


def samples_hash(samples: Sequence[Sample]) -> str:
    """Returns the SHA-256 of all fields of the samples, in order.

    Pictures count by their absolute path and their decoded content.
    """
    return _fields_hash(samples, lambda picture: [os.path.abspath(picture.source), picture.digest])


def content_hash(samples: Sequence[Sample]) -> str:
    """Returns the SHA-256 of all fields of the samples, in order.

    Pictures count by the bytes of their files, which is faster than decoding them; paths do not
    count.
    """
    return _fields_hash(samples, picture_hash)


def _fields_hash(samples: Sequence[Sample], picture: Callable[[Picture], object]) -> str:
    """SHA-256 of all fields of the samples, in order, with pictures as `picture` has them."""
    digest = hashlib.sha256()
    for sample in samples:
        content = [getattr(sample, field.name) for field in fields(sample)]
        digest.update(json.dumps(content, default=picture).encode())
    return digest.hexdigest()


def picture_hash(picture: Picture) -> str:
    """Returns the SHA-256 of a picture's encoded bytes, and of its region if it has one.

    Raises:
        DataError: If it cannot be opened.
    """
    if picture.region is not None:
        whole = replace(picture, region=None)
        return hashlib.sha256(f"{picture_hash(whole)}{picture.region}".encode()).hexdigest()
    if picture.data is not None:
        return hashlib.sha256(picture.data).hexdigest()
    if picture.path is None or not is_regular(picture.path):
        picture.open()
    return hash_file(picture.path or Path(picture.source))


def _content(sample: Sample) -> list[Any]:
    picture = sample.picture.digest if sample.picture is not None else None
    return [
        sample.question,
        sample.answer,
        picture,
        sample.concept,
        list(sample.choices),
        sample.task,
    ]
