"""Photographs of a request, identified by salted hashes."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from unsee.certificates.schema import Photographs
from unsee.data.digests import salt_id, salted_hash
from unsee.data.overlaps import distinct_photographs
from unsee.data.readers import read_folder
from unsee.files import path_text
from unsee.types import Picture


def photographs_in(photos: Path | str) -> list[Picture]:
    """The photographs of a folder, in order of their paths.

    Raises:
        DataError: If it is no folder, or a photograph in it cannot be read.
    """
    folder = Path(path_text("--photos ", photos, "give a folder of photographs."))
    return [picture for sample in read_folder(folder, "photos") for picture in sample.pictures]


def identify(pictures: Iterable[Picture], salt: bytes) -> Photographs:
    """The salted hashes of photographs; those given twice, also encoded otherwise, count once.

    Raises:
        DataError: If a photograph cannot be opened.
    """
    pictures = list(pictures)
    hashes = sorted({salted_hash(picture, salt) for picture in pictures})
    count = distinct_photographs(pictures)
    return Photographs(count=count, salted_sha256=tuple(hashes), salt_id=salt_id(salt))
