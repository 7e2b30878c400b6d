"""Boxes around the faces to forget in group photographs, one for each picture."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from unsee.data.digests import picture_hash
from unsee.data.faces import faces, has_detector
from unsee.data.tables import raise_problems, read_rows
from unsee.errors import DataError, quoted
from unsee.pixels.regions import Box, Region, parse_box
from unsee.types import Picture, Sample

# A table of boxes beside the pictures of a folder.
BOXES = "boxes.csv"

# Its columns: the picture's path from the folder, and the box in one column or in four.
PICTURE, CORNERS = "image", ("x0", "y0", "x1", "y1")

EXAMPLE = "image,x0,y0,x1,y1 in the first line, and such as group.jpg,120,40,260,210 below it"


def read_boxes(folder: Path, pictures: Iterable[Path]) -> dict[Path, Box]:
    """Returns the boxes in the "boxes.csv" of a folder, by picture; none if there is no such file.

    Args:
        folder: The folder.
        pictures: The pictures in it and its subfolders.

    Raises:
        DataError: If it cannot be read, or a row has no box, a wrong one, or names no picture of
            the folder, or one that has a box already.
    """
    table = folder / BOXES
    if not table.exists():
        return {}
    known = {_spelled(path.relative_to(folder).as_posix()): path for path in pictures}
    boxes: dict[Path, Box] = {}
    problems: list[str] = []
    for place, row in read_rows(table, "boxes", True):
        try:
            path, box = _row(row, known)
        except DataError as error:
            problems.append(f"{place}: {error}")
            continue
        if path in boxes:
            problems.append(
                f"{place}: picture {row[PICTURE]} has a box already, {boxes[path]}. Give one box a "
                "picture; for two people of one photograph, put a copy of it in the subfolder of "
                "each, and mark one in each copy."
            )
            continue
        boxes[path] = box
    raise_problems(problems, table)
    return boxes


def _row(row: Mapping[str, object], known: Mapping[str, Path]) -> tuple[Path, Box]:
    """The picture and the box of a row."""
    name = row.get(PICTURE)
    if not isinstance(name, str) or not name.strip():
        raise DataError(f"names no picture. Write {EXAMPLE}.")
    name = name.strip()
    spelled = _spelled(name)
    if spelled not in known:
        # As Windows writes paths; a file's name may hold a backslash elsewhere.
        spelled = _spelled(name.replace("\\", "/"))
    if spelled not in known:
        raise DataError(
            f"picture {name} is not in the folder. Write its path from the folder, such as "
            f"{next(iter(known), 'anna/1.jpg')}, or remove the row."
        )
    if row.get("box") not in (None, ""):
        return known[spelled], parse_box(row["box"])
    if any(row.get(corner) in (None, "") for corner in CORNERS):
        raise DataError(f"picture {name} has no box. Write {EXAMPLE}.")
    return known[spelled], parse_box([row[corner] for corner in CORNERS])


def _spelled(name: str) -> str:
    """A relative path in one spelling: letters with accents are composed, or not, by system."""
    return unicodedata.normalize("NFC", name).removeprefix("./")


def marked_picture(picture: Picture, box: Box) -> Picture:
    """Returns a picture of which only the face in a box is shown.

    Raises:
        DataError: If the box reaches beyond the picture, or is too small.
    """
    marked = picture.of(Region(box))
    # Only the header is read, so that a wrong box is named before anything is decoded.
    _ = marked.size
    return marked


def mark(samples: Sequence[Sample], value: str) -> list[Sample]:
    """Marks the face to forget in the only picture of a set, as `--box` does.

    Args:
        samples: The set.
        value: The box as text; see `unsee.pixels.regions.parse_box`.

    Raises:
        DataError: If the set has several pictures or none, its picture is marked already, or the
            box is wrong.
    """
    box = parse_box(value)
    pictures = {picture.source: picture for s in samples for picture in s.pictures}
    if len(pictures) != 1:
        raise DataError(
            f"--box {value} marks the face to forget in one picture, and the forget set has "
            f"{len(pictures)}. Write {BOXES} into the folder ({EXAMPLE}), or a column box into the "
            "table."
        )
    (picture,) = pictures.values()
    if picture.region is not None:
        raise DataError(
            f"--box {value}: {picture.source} has a box already. Give one of the two: leave --box "
            f"out, or remove the box from {BOXES} or the table."
        )
    shown = marked_picture(picture, box)
    return [replace(s, picture=shown, further=()) if s.pictures else s for s in samples]


def is_marked(sample: Sample) -> bool:
    """Returns whether only one face of the sample's picture is meant."""
    return sample.picture is not None and sample.picture.region is not None


def separate(samples: Sequence[Sample]) -> tuple[list[Sample], list[Sample]]:
    """Divides group photographs into the marked faces and what is beside them.

    Where a face detector is installed, the other faces are painted over around a marked one, and
    each is kept by itself too.

    Args:
        samples: Samples to forget.

    Returns:
        The samples, with marked pictures that show the marked face alone; and samples to keep: each
        photograph without any face that is marked in it or in a copy of it, and its other faces.
    """
    alone: dict[str, Picture] = {}
    kept: list[Picture] = []
    for pictures in _marked_by_photograph(samples).values():
        boxes = [picture.region.box for picture in pictures if picture.region is not None]
        whole = replace(pictures[0], region=None)
        found = faces(whole) if has_detector() else []
        others = [box for box in found if not _meets(box, boxes, whole)]
        kept.append(pictures[0].of(Region(boxes[0], "outside", tuple(boxes[1:]))))
        kept += [pictures[0].of(Region(box, further=tuple(boxes))) for box in others]
        for picture, box in zip(pictures, boxes, strict=True):
            further = (*(b for b in boxes if b != box), *others)
            alone[picture.source] = picture.of(Region(box, further=further))
    forget = [
        replace(s, picture=alone[s.picture.source]) if s.picture and is_marked(s) else s
        for s in samples
    ]
    return forget, [Sample(picture.source, "", "", picture) for picture in kept]


def refuse_whole(forget: Sequence[Sample], retain: Sequence[Sample]) -> None:
    """Refuses a photograph that is marked in the forget set and kept with everybody on it.

    Raises:
        DataError: If there is one.
    """
    marked = _marked_by_photograph(forget)
    if not marked:
        return
    kept = {s.picture.source: s.picture for s in retain if s.picture and not is_marked(s)}
    for picture in kept.values():
        if picture_hash(picture) in marked:
            raise DataError(
                f"the retain picture {picture.source} is a photograph with a face to forget. "
                "Remove it from the retain set: what it shows beside that face is kept anyway."
            )


def _marked_by_photograph(samples: Sequence[Sample]) -> dict[str, list[Picture]]:
    """The marked pictures by the hash of the whole photograph."""
    marked: dict[str, list[Picture]] = {}
    for picture in {s.picture.source: s.picture for s in samples if s.picture}.values():
        if picture.region is not None:
            marked.setdefault(picture_hash(replace(picture, region=None)), []).append(picture)
    return marked


def _meets(box: Box, marked: Sequence[Box], picture: Picture) -> bool:
    """Whether the middle of a face is inside a marked box, or the other way round."""
    x0, y0, x1, y1 = box.pixels(picture.size, picture.source)
    for other in marked:
        left, upper, right, lower = other.pixels(picture.size, picture.source)
        across, down = (x0 + x1) / 2, (y0 + y1) / 2
        if left <= across <= right and upper <= down <= lower:
            return True
        across, down = (left + right) / 2, (upper + lower) / 2
        if x0 <= across <= x1 and y0 <= down <= y1:
            return True
    return False


def conflicting_boxes(samples: Sequence[Sample]) -> list[str]:
    """Returns a sentence on every picture whose rows do not agree on the face that is meant.

    Args:
        samples: The samples of a table.
    """
    regions: dict[str, dict[str | None, set[str]]] = {}
    for sample in samples:
        for picture in sample.pictures:
            region = "" if picture.region is None else str(picture.region.box)
            whole = picture.source.removesuffix(str(picture.region or ""))
            people = regions.setdefault(whole, {})
            people.setdefault(sample.concept, set()).add(region)
    problems = []
    for source, people in regions.items():
        every = set().union(*people.values())
        for concept, given in people.items():
            boxes = sorted(given - {""})
            if len(boxes) > 1:
                problems.append(
                    f"picture {source}: has the boxes {' and '.join(boxes)} for "
                    f"{quoted(concept)}. Give all its rows of one person the same box."
                )
        if "" in every and len(every) > 1:
            problems.append(
                f"picture {source}: is marked with a box in some rows and not in others, which "
                "would forget everybody on it. Give each of its rows a box."
            )
    return problems
