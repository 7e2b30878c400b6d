"""Pictures in zip files, as some data sets are published: found by their path, never unpacked."""

from __future__ import annotations

import zipfile
import zlib
from functools import cached_property
from pathlib import Path, PurePosixPath

from unsee.errors import DataError, first_line, quoted
from unsee.pixels import require_regular_file

# A larger member is refused before it is unpacked: a guard against decompression bombs.
MAX_MEMBER = 1 << 26

# Between the zip file and the member in the name of a picture, such as "faces.zip#SFHQ/1.jpg".
_MARK = ".zip#"

# What zipfile raises for damaged, encrypted and unusually compressed members.
_ERRORS = (
    zipfile.BadZipFile,
    zlib.error,
    EOFError,
    NotImplementedError,
    OSError,
    RuntimeError,
    ValueError,
)


def path_endings(name: str) -> list[str]:
    """Returns a path and its endings, the longest first, without "." and a leading "/".

    Example:
        >>> path_endings("./dataset/SFHQ/1.jpg")
        ['dataset/SFHQ/1.jpg', 'SFHQ/1.jpg', '1.jpg']
    """
    parts = [part for part in PurePosixPath(name).parts if part not in ("/", ".", "..")]
    return ["/".join(parts[i:]) for i in range(len(parts))]


class Archive:
    """A zip file whose members are looked up by the end of their path.

    Attributes:
        path: The file.
    """

    def __init__(self, path: Path) -> None:
        """Sets the file; nothing is read yet."""
        self.path = path

    @cached_property
    def _members(self) -> dict[str, list[str]]:
        """The paths of all members by every ending of theirs."""
        members: dict[str, list[str]] = {}
        try:
            require_regular_file(self.path, str(self.path))
            with zipfile.ZipFile(self.path) as file:
                names = [info.filename for info in file.infolist() if not info.is_dir()]
        except _ERRORS as error:
            raise DataError(
                f"{self.path}: is not a readable zip file ({first_line(error)}). Download it again."
            ) from error
        for name in names:
            for ending in path_endings(name):
                members.setdefault(ending, []).append(name)
        return members

    def find(self, name: str) -> str | None:
        """Returns the member whose path shares the longest ending with `name`; None if none does.

        Raises:
            DataError: If several do, or the file is no zip file.
        """
        for ending in path_endings(name):
            members = self._members.get(ending, [])
            if len(members) > 1:
                raise DataError(
                    f"{self.path}: has several members for {quoted(name)}: {members[0]} and "
                    f"{members[1]}. Remove one of them."
                )
            if members:
                return members[0]
        return None

    def read(self, member: str) -> bytes:
        """Returns the content of a member.

        Raises:
            DataError: If it is missing, damaged, encrypted, or larger than `MAX_MEMBER`.
        """
        try:
            require_regular_file(self.path, str(self.path))
            with zipfile.ZipFile(self.path) as file:
                size = file.getinfo(member).file_size
                if size > MAX_MEMBER:
                    raise DataError(
                        f"{self.path}: its member {member} has {size:,} bytes unpacked; at most "
                        f"{MAX_MEMBER:,} are read."
                    )
                return file.read(member)
        except KeyError as error:
            raise DataError(f"{self.path}: has no member {member}.") from error
        except _ERRORS as error:
            raise DataError(
                f"{self.path}: its member {member} cannot be read ({first_line(error)}). Download "
                "the file again, or unpack it beside the data."
            ) from error


def is_archived(reference: str) -> bool:
    """Returns whether the source of a picture names a member of a zip file."""
    return _MARK in reference


def archived_bytes(reference: str) -> bytes:
    """Returns the encoded bytes of a picture inside a zip file.

    Args:
        reference: `Picture.source`: FILE.zip#MEMBER.

    Raises:
        DataError: If the file or the member cannot be read.
    """
    path, _, member = reference.partition(_MARK)
    return Archive(Path(f"{path}.zip")).read(member)
