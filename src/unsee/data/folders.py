"""Which files a folder holds: links followed, pictures told by content, and what is not read."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from unsee.data.tables import SUFFIXES
from unsee.errors import DataError, first_line, listed, printable
from unsee.pixels import FORMATS, picture_format, require_regular_file

# Suffixes of pictures. A file with one of them that cannot be decoded is an error; a file without
# one is a picture if its content is.
PICTURES = (
    ".jpg", ".jpeg", ".jfif", ".jpe", ".mpo", ".png", ".apng", ".webp", ".avif", ".bmp", ".gif",
    ".pgm", ".ppm", ".pnm", ".tif", ".tiff",
)  # fmt: skip

# Picture formats that cannot be read. Skipping them silently would leave a person half forgotten.
UNREAD = (".heic", ".heif", ".jxl", ".jp2", ".svg", ".psd", ".dng", ".cr2", ".cr3", ".nef", ".arw")

# Archives, which may hold further photographs.
ARCHIVES = (".zip", ".7z", ".rar", ".tar", ".gz", ".tgz", ".bz2", ".xz")

# A table of questions beside the pictures, as the ImageFolder of `datasets` has it.
METADATA = ("metadata.jsonl", "metadata.csv", "metadata.parquet")

# Folders and files of desktops and network drives, which are not the user's. Hidden ones neither.
_SYSTEM = ("@eaDir", "@tmp", "#recycle", "#snapshot", "lost+found", "Thumbs.db", "desktop.ini")
_SYSTEM_PREFIXES = (".", "__MACOSX", "$RECYCLE", "~$")


@dataclass
class FolderContents:
    """The files of a folder, sorted by what they are.

    Attributes:
        pictures: Files whose content or suffix is a picture's, in order of their paths.
        tables: Files that are tables.
        unread: Files that are nothing of these, with the reason where it is not evident.
        empty: Subfolders of the folder, each a person, in which there is no picture.
        problems: Whatever must be mended before the folder can be used.
    """

    pictures: list[Path] = field(default_factory=list)
    tables: list[Path] = field(default_factory=list)
    unread: list[str] = field(default_factory=list)
    empty: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)


def is_system_name(name: str) -> bool:
    """Returns whether a file or folder is hidden, or made by a desktop or network drive.

    Example:
        >>> is_system_name("@eaDir"), is_system_name("._1.jpg"), is_system_name("Ada")
        (True, True, False)
    """
    return name in _SYSTEM or name.startswith(_SYSTEM_PREFIXES)


def list_folder(folder: Path) -> FolderContents:
    """Returns the pictures and other files in a folder and its subfolders.

    Links are followed; a folder that was seen before under the same person is not read again, so
    that links in a circle come to an end.

    Raises:
        DataError: If the folder itself cannot be read.
    """
    contents = FolderContents()
    paths: list[Path] = []
    people: list[Path] = []
    seen: set[tuple[int, int]] = set()
    for path in _entries(folder, contents, seen):
        if _is_folder(path):
            people.append(path)
            paths += _walk(path, set(seen), contents)
        else:
            paths.append(path)
    for path in sorted(paths):
        _sort_file(path, folder, contents)
    with_pictures = {path.relative_to(folder).parts[0] for path in contents.pictures}
    contents.empty = [path.name for path in sorted(people) if path.name not in with_pictures]
    return contents


def summary(
    contents: FolderContents, role: str, people: int, photographs: int, copies: int = 0
) -> str:
    """Returns one sentence on what was read from a folder, and on what was not.

    Args:
        contents: The files of the folder.
        role: Role of the set, such as "forget".
        people: Number of people on the pictures that were read.
        photographs: Number of photographs that were read; those given twice count as one.
        copies: Number of pictures that show one of these again.
    """
    parts = [f"{role}: {_count(people, 'person', 'people')}, {_count(photographs, 'photograph')}"]
    if copies:
        parts.append(
            f"and {_count(copies, 'copy', 'copies')} of {'it' if photographs == 1 else 'them'}"
        )
    if contents.unread:
        files = _count(len(contents.unread), "file")
        parts.append(f"({files} not read: {printable(listed(contents.unread))})")
    text = " ".join(parts) + "."
    if contents.empty:
        text += f" No picture in the subfolders: {printable(listed(contents.empty))}."
    return text


def _count(number: int, one: str, several: str = "") -> str:
    return f"{number} {one if number == 1 else several or one + 's'}"


def _is_folder(path: Path) -> bool:
    """Whether a path is a folder; one that may not be looked at is treated as a file."""
    try:
        return path.is_dir()
    except OSError:
        return False


def _entries(folder: Path, contents: FolderContents, seen: set[tuple[int, int]]) -> list[Path]:
    """The files and folders in a folder that are the user's; none if it was seen before.

    Adds the folder to `seen`, and a problem if it cannot be read.
    """
    try:
        status = folder.stat()
        if (status.st_dev, status.st_ino) in seen:
            if folder.is_symlink():
                contents.unread.append(f"{folder} (a link to a folder that is read already)")
            return []
        seen.add((status.st_dev, status.st_ino))
        names = sorted(os.listdir(folder))
    except OSError as error:
        contents.problems.append(
            f"folder {folder}: cannot be read ({error.strerror}). Change its permissions, or "
            "remove it."
        )
        return []
    return [folder / name for name in names if not is_system_name(name)]


def _walk(folder: Path, seen: set[tuple[int, int]], contents: FolderContents) -> Iterator[Path]:
    """Yields the files in a folder and its subfolders; links are followed, but in no circle."""
    pending = [folder]
    while pending:
        for path in _entries(pending.pop(), contents, seen):
            if _is_folder(path):
                pending.append(path)
            else:
                yield path


def _sort_file(path: Path, folder: Path, contents: FolderContents) -> None:
    """Puts a file where it belongs, by its content and then by its suffix."""
    name = path.relative_to(folder).as_posix()
    suffix = path.suffix.lower()
    try:
        name.encode()
        require_regular_file(path, f"picture {path}")
        with path.open("rb") as file:
            content = picture_format(file.read(32))
    except UnicodeEncodeError:
        contents.problems.append(f"file {path}: its name is not UTF-8. Rename it.")
    except DataError as error:
        contents.unread.append(f"{name} ({str(error).partition(': is ')[2].partition(',')[0]})")
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ELOOP):
            contents.unread.append(f"{name} (a link to nothing)")
            return
        contents.problems.append(
            f"file {path}: cannot be read ({error.strerror or first_line(error)}). Change its "
            "permissions, or remove it."
        )
    else:
        if content in FORMATS:
            contents.pictures.append(path)
        elif suffix in UNREAD or (content and suffix not in SUFFIXES):
            kind = suffix if suffix in UNREAD else content
            contents.problems.append(
                f"picture {path}: {kind} is not read. Convert it to JPEG or PNG."
            )
        elif suffix in PICTURES:
            contents.pictures.append(path)
        elif suffix in SUFFIXES:
            contents.tables.append(path)
            contents.unread.append(name)
        else:
            contents.unread.append(name)
