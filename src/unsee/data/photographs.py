"""Checks a folder of photographs of people: duplicates, unreadable files, several people in one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from unsee.data.boxes import read_boxes
from unsee.data.faces import NOT_CHECKED, faces, has_detector
from unsee.data.folders import list_folder
from unsee.data.overlaps import copies, near_duplicates, photograph_groups
from unsee.errors import DataError, listed, printable
from unsee.pixels.regions import Box
from unsee.types import Picture, Sample

# Photographs that a run looks for faces on, at most: each takes a tenth of a second.
MOST_LOOKED_AT = 200

AS_ONE = "They count as one"

# Advice on a photograph of several people.
MARK = (
    "Mark the face to forget with --box or a boxes.csv beside the photographs; everyone on a "
    "photograph without a box is forgotten"
)


@dataclass(frozen=True)
class PhotographFindings:
    """The content of a folder of photographs; paths are relative to the folder.

    Attributes:
        people: Number of distinct readable photographs by person: by subfolder, "" is the folder
            itself.
        duplicates: Photographs of equal pixels, each list in order of path.
        near_duplicates: Pairs of photographs that show the same, encoded or sized otherwise.
        unreadable: A sentence on every file that looks like a picture and cannot be read.
        several: Number of faces by photograph, where a detector finds several and none is marked.
        faceless: Photographs on which a detector finds no face; it may have missed one.
        marked: The box by photograph, from boxes.csv.
        unread: Other files, with the reason where it is not evident.
        detector: Whether a face detector is installed; without, `several` and `faceless` are empty.
    """

    people: dict[str, int] = field(default_factory=dict)
    duplicates: list[list[str]] = field(default_factory=list)
    near_duplicates: list[tuple[str, str]] = field(default_factory=list)
    unreadable: list[str] = field(default_factory=list)
    several: dict[str, int] = field(default_factory=dict)
    faceless: list[str] = field(default_factory=list)
    marked: dict[str, Box] = field(default_factory=dict)
    unread: list[str] = field(default_factory=list)
    detector: bool = False

    @property
    def photographs(self) -> int:
        """The number of distinct readable photographs."""
        return sum(self.people.values())

    @property
    def problems(self) -> list[str]:
        """Sentences on what must be mended first: unreadable files, or no photograph at all."""
        if self.photographs or self.unreadable:
            return list(self.unreadable)
        return ["no photograph was found. Give a folder of JPEG or PNG files."]

    @property
    def notes(self) -> list[str]:
        """Sentences on what should be looked at."""
        sentences = []
        if self.duplicates:
            groups = [" = ".join(names) for names in self.duplicates]
            sentences.append(f"photographs of equal content: {listed(groups)}. {AS_ONE}.")
        if self.near_duplicates:
            pairs = [f"{other} is like {one}" for one, other in self.near_duplicates]
            sentences.append(f"photographs that show nearly the same: {listed(pairs)}. {AS_ONE}.")
        if self.several:
            counts = [f"{name} ({count} faces)" for name, count in self.several.items()]
            sentences.append(f"photographs of several people: {listed(counts)}. {MARK}.")
        if self.faceless:
            sentences.append(
                f"no face was found on: {listed(self.faceless)}. Check that they show the person."
            )
        if not self.detector:
            sentences.append(f"{NOT_CHECKED}. {MARK}.")
        return [printable(sentence) for sentence in sentences]


def check_photographs(folder: Path) -> PhotographFindings:
    """Looks through a folder of photographs, a subfolder a person; nothing is changed.

    Args:
        folder: The folder.

    Example:
        >>> import tempfile
        >>> from PIL import Image
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     Image.new("RGB", (32, 32), "red").save(f"{folder}/1.png")
        ...     Image.new("RGB", (32, 32), "red").save(f"{folder}/2.png")
        ...     check_photographs(Path(folder)).duplicates
        [['1.png', '2.png']]

    Raises:
        DataError: If the folder or its boxes.csv cannot be read.
    """
    contents = list_folder(folder)
    boxes = read_boxes(folder, contents.pictures)
    unreadable, readable = list(contents.problems), dict[str, Picture]()
    for path in contents.pictures:
        picture = Picture.from_path(path)
        try:
            _ = picture.digest
        except DataError as error:
            unreadable.append(str(error))
            continue
        readable[path.relative_to(folder).as_posix()] = picture
    shown: dict[str, list[Picture]] = {}
    for name, picture in readable.items():
        shown.setdefault(name.split("/")[0] if "/" in name else "", []).append(picture)
    people = {person: len(photograph_groups(pictures)) for person, pictures in shown.items()}
    marked = {path.relative_to(folder).as_posix(): box for path, box in boxes.items()}
    several, faceless = count_faces({n: p for n, p in readable.items() if n not in marked})
    return PhotographFindings(
        people=people,
        duplicates=_equal(readable),
        near_duplicates=_near(readable),
        unreadable=unreadable,
        several=several,
        faceless=faceless,
        marked=marked,
        unread=[name for name in contents.unread if name != "boxes.csv"],
        detector=has_detector(),
    )


def count_faces(pictures: dict[str, Picture]) -> tuple[dict[str, int], list[str]]:
    """Returns the number of faces on pictures with several, and the names of those without one.

    Args:
        pictures: The pictures by name. Without a detector nothing is returned.
    """
    if not has_detector():
        return {}, []
    counts = {name: len(faces(picture)) for name, picture in pictures.items()}
    several = {name: count for name, count in counts.items() if count > 1}
    return several, [name for name, count in counts.items() if count == 0]


def group_notes(samples: Sequence[Sample]) -> list[str]:
    """Returns a sentence on photographs to forget that show several people, or may.

    Args:
        samples: Samples to forget; only photographs without a question and without a box count.
    """
    pictures = {
        s.picture.source: s.picture
        for s in samples
        if s.picture is not None and s.picture.region is None and not s.answer
    }
    if not pictures:
        return []
    if not has_detector():
        return [f"{NOT_CHECKED}. {MARK}."]
    if len(pictures) > MOST_LOOKED_AT:
        return [
            f"{len(pictures)} photographs were not searched for groups; `unsee data check` does it."
        ]
    several, _ = count_faces(pictures)
    if not several:
        return []
    counts = [f"{name} ({count} faces)" for name, count in several.items()]
    return [f"photographs of several people: {listed(counts)}. {MARK}."]


def copy_notes(samples: Sequence[Sample]) -> list[str]:
    """Returns a sentence on photographs that are given twice, if there are any.

    Args:
        samples: Samples of a user's own; only photographs without a question count.
    """
    twice = copies([s for s in samples if not s.answer])
    if not twice:
        return []
    pairs = [f"{copy} shows what {first} shows" for copy, first in twice.items()]
    return [printable(f"photographs given twice: {listed(pairs)}. {AS_ONE}.")]


def _equal(pictures: dict[str, Picture]) -> list[list[str]]:
    groups: dict[str, list[str]] = {}
    for name, picture in pictures.items():
        groups.setdefault(picture.digest, []).append(name)
    return [names for names in groups.values() if len(names) > 1]


def _near(pictures: dict[str, Picture]) -> list[tuple[str, str]]:
    """Pairs of near-duplicates; each picture is compared with those before it of other content."""
    pairs, before = [], list[tuple[str, Picture]]()
    for name, picture in pictures.items():
        others = [other for _, other in before if other.digest != picture.digest]
        names: Sequence[str] = [one for one, other in before if other.digest != picture.digest]
        for other, _ in near_duplicates(others, [picture]):
            pairs.append((names[others.index(other)], name))
        before.append((name, picture))
    return pairs
