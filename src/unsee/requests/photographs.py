"""The photographs of requests: checked when a request is made, and found again by their hashes."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePath

from unsee.data.boxes import BOXES, mark, marked_picture
from unsee.data.digests import picture_hash, salted_hash
from unsee.data.faces import NOT_CHECKED, has_detector
from unsee.data.folders import ARCHIVES, METADATA, list_folder
from unsee.data.overlaps import distinct_photographs
from unsee.data.photographs import count_faces
from unsee.data.selection import evenly_spaced
from unsee.data.tables import is_dataset_folder
from unsee.errors import DataError, counted, listed
from unsee.pixels.regions import parse_box
from unsee.recipes.sources import read_samples
from unsee.requests.entries import Request, Requested
from unsee.requests.store import Store
from unsee.types import Picture, Sample

# Share of the pictures to keep that show people who were forgotten before.
HELD_SHARE = 0.25


@dataclass(frozen=True)
class Checked:
    """The photographs of a new request.

    Attributes:
        samples: The samples, one for each photograph or question.
        pictures: The pictures, with copies.
        count: Number of distinct photographs; those given twice count as one.
        people: Number of people.
        notes: What the check found, without names and paths.
    """

    samples: Sequence[Sample]
    pictures: Sequence[Picture]
    count: int
    people: int
    notes: tuple[str, ...]


@dataclass(frozen=True)
class Found:
    """Photographs of requests that were found again.

    Attributes:
        samples: The samples by request; only of requests of which all photographs were found.
        missing: How many photographs were not found, by request.
    """

    samples: Mapping[str, Sequence[Sample]] = field(default_factory=dict)
    missing: Mapping[str, int] = field(default_factory=dict)


def check_photographs(photos: str, box: str | None = None) -> Checked:
    """Reads the photographs of a new request, and looks for what is unusual.

    Args:
        photos: A folder of pictures (one subfolder for each person, or flat), or a table with
            questions and answers.
        box: The face to forget in the only photograph, x0,y0,x1,y1.

    Raises:
        DataError: If a picture cannot be read, there is none, or the box does not fit.
    """
    samples = read_samples(photos, "forget", notes=[])
    if box is not None:
        samples = mark(samples, box)
    pictures = distinct_pictures(samples)
    if not pictures:
        raise DataError(f"{photos} holds no photograph. Give a folder or a table with pictures.")
    people = len({sample.concept for sample in samples})
    count = distinct_photographs(pictures)
    twice = len({p.path or p.source for p in pictures}) - count
    notes = [f"{counted(count, 'photograph')} of {counted(people, 'person', 'people')}"]
    if twice:
        shows = "shows one of these again, and is" if twice == 1 else "show these again, and are"
        notes.append(f"{counted(twice, 'further file')} {shows} not counted")
    if count < 2 * people:
        notes.append("a person with one photograph alone is forgotten less well than with several")
    marked = distinct_photographs(p for p in pictures if p.region is not None)
    if marked:
        notes.append(
            f"{counted(marked, 'group photograph')}: the marked face alone is forgotten, the other "
            "people are kept"
        )
    notes += [*_not_read(photos, pictures), *_faces(pictures)]
    return Checked(samples, pictures, count, people, tuple(notes))


def _not_read(photos: str, pictures: Sequence[Picture]) -> list[str]:
    """Notes on what a folder holds that does not count as photographs, without any name.

    Args:
        photos: The folder, or a table.
        pictures: The pictures that were read.
    """
    notes = []
    frames = sum(picture.has_several_frames for picture in pictures)
    if frames:
        several = "picture has" if frames == 1 else "pictures have"
        notes.append(f"{frames} {several} several frames, of which the first is read")
    folder = Path(photos)
    if not folder.is_dir() or is_dataset_folder(folder):
        return notes
    contents = list_folder(folder)
    unread = [PurePath(name) for name in contents.unread]
    unread = [path for path in unread if path.name not in (BOXES, *METADATA)]
    if unread:
        were = "was" if len(unread) == 1 else "were"
        notes.append(f"{counted(len(unread), 'other file')} in the folder {were} not read")
    packed = sum(path.suffix.lower() in ARCHIVES for path in unread)
    if packed:
        notes.append(
            f"{counted(packed, 'archive')} among them: unpack what may hold photographs, and make "
            "the request again"
        )
    if contents.empty:
        have = "has" if len(contents.empty) == 1 else "have"
        notes.append(f"{counted(len(contents.empty), 'subfolder')} {have} no photograph")
    return notes


def _faces(pictures: Sequence[Picture]) -> list[str]:
    """Notes on photographs that show several people, or nobody, by their number in the set."""
    if not has_detector():
        return [NOT_CHECKED]
    looked_at = {str(n): p for n, p in enumerate(pictures, 1) if p.region is None}
    several, faceless = count_faces(looked_at)
    notes = []
    if several:
        notes.append(
            f"several people are on the photographs {listed(list(several), 10)}. Mark the face to "
            "forget with --box or in a boxes.csv beside them, or everyone on them is forgotten"
        )
    if faceless:
        notes.append(f"no face was found on the photographs {listed(faceless, 10)}")
    return notes


def make_request(checked: Checked, request: str, store: Store) -> Requested:
    """Returns the entry of a new request, which holds hashes and counts alone.

    Args:
        checked: The photographs.
        request: The request's id.
        store: The ledger, whose key hashes the photographs.
    """
    salt = store.salt_of(request)
    boxes: dict[str, dict[str, None]] = {}
    for picture in checked.pictures:
        if picture.region is not None:
            boxes.setdefault(salted_hash(picture, salt), {})[str(picture.region.box)] = None
    return Requested(
        id=request,
        photographs=tuple(salted_hash(p, salt) for p in checked.pictures),
        boxes={digest: tuple(some) for digest, some in boxes.items()},
        count=checked.count,
        people=checked.people,
        answers=any(sample.answer for sample in checked.samples),
        notes=checked.notes,
    )


def find_photographs(locations: Iterable[str], requests: Sequence[Request], store: Store) -> Found:
    """Finds the photographs of requests in folders and tables, by their hashes.

    Args:
        locations: Where to look; photographs that belong to no request are left out.
        requests: The requests.
        store: The ledger.

    Raises:
        DataError: If a location cannot be read.
    """
    places = list(dict.fromkeys(locations))
    read = [read_samples(place, "forget", notes=[]) for place in places]
    pictures = {p.source: p for samples in read for p in distinct_pictures(samples)}
    found: dict[str, Sequence[Sample]] = {}
    missing: dict[str, int] = {}
    for request in requests:
        wanted = set(request.entry.photographs)
        salt = store.salt_of(request.id)
        hashes = {source: salted_hash(picture, salt) for source, picture in pictures.items()}
        boxes = request.entry.boxes
        # Of places with the same photographs the first one counts, such as a table of questions.
        best = max(
            (_own(samples, hashes, wanted, boxes) for samples in read),
            key=lambda own: len({hashes[s.pictures[0].source] for s, _ in own}),
            default=[],
        )
        lost = len(wanted - {hashes[p.source] for s, _ in best for p in s.pictures})
        if lost:
            missing[request.id] = lost
        else:
            found[request.id] = [shown for _, shown in best]
    return Found(found, missing)


def _own(
    samples: Iterable[Sample],
    hashes: Mapping[str, str],
    wanted: set[str],
    boxes: Mapping[str, Sequence[str]],
) -> list[tuple[Sample, Sample]]:
    """The samples of a request among others, each as it was read and with the face marked.

    Args:
        samples: Samples.
        hashes: The keyed hash of each picture, by its source.
        wanted: Those of the request.
        boxes: The faces that were marked when the request was made, by hash.
    """
    ranked: dict[str, list[tuple[int, Sample, Sample]]] = {}
    for sample in samples:
        if not _belongs(sample, hashes, wanted):
            continue
        digest = hashes[sample.pictures[0].source]
        asked = _as_asked(sample, boxes.get(digest, ()))
        if asked is not None:
            ranked.setdefault(digest, []).append((asked[0], sample, asked[1]))
    return [
        (sample, shown)
        for same in ranked.values()
        for rank, sample, shown in same
        if rank == min(one for one, *_ in same)
    ]


def _as_asked(sample: Sample, boxes: Sequence[str]) -> tuple[int, Sample] | None:
    """A sample with the face marked that was marked when the request was made; None if it is not.

    Of copies in several folders, those count that are marked as the request was, if there are any:
    they are 0, and others 1.
    """
    picture = sample.pictures[0]
    given = None if picture.region is None else str(picture.region.box)
    if given in (boxes or (None,)):
        return 0, sample
    if not boxes:
        whole = picture.source.removesuffix(str(picture.region))
        return 1, replace(sample, picture=replace(picture, source=whole, region=None))
    if given is None and len(boxes) == 1:
        return 1, replace(sample, picture=marked_picture(picture, parse_box(boxes[0])), further=())
    return None


def _belongs(sample: Sample, hashes: Mapping[str, str], wanted: set[str]) -> bool:
    """Whether a sample shows photographs of a request."""
    return bool(sample.pictures) and all(hashes[p.source] in wanted for p in sample.pictures)


def distinct_pictures(samples: Iterable[Sample]) -> list[Picture]:
    """Returns the distinct pictures of samples, in order."""
    return list({p.source: p for sample in samples for p in sample.pictures}.values())


def without_names(samples: Sequence[Sample], label: str) -> list[Sample]:
    """Returns samples whose ids, people and pictures are called by a label and a number.

    File and folder names, which name people, then reach no record. People keep their names where
    there are answers, in which metrics look for them.

    Args:
        samples: Samples.
        label: What to call them, such as a request's id.

    Example:
        >>> picture = Picture.from_path("photos/anna/1.jpg")
        >>> sample = without_names([Sample("anna/1.jpg", "", "", picture, "anna")], "R1")[0]
        >>> sample.id, sample.concept, sample.picture.source
        ('R1:1', 'R1', 'R1-picture-1.jpg')
    """
    people = list(dict.fromkeys(s.concept for s in samples if s.concept is not None))
    names: dict[str | None, str] = {
        person: label if len(people) == 1 else f"{label} person {number}"
        for number, person in enumerate(people, 1)
    }
    answers = any(sample.answer for sample in samples)
    pictures = {
        picture.source: replace(
            picture,
            source=f"{label}-picture-{number}{_ending(picture)}",
        )
        for number, picture in enumerate(distinct_pictures(samples), 1)
    }
    return [
        replace(
            sample,
            id=f"{label}:{number}",
            concept=sample.concept if answers else names.get(sample.concept),
            picture=pictures[sample.picture.source] if sample.picture is not None else None,
            further=tuple(pictures[p.source] for p in sample.further),
        )
        for number, sample in enumerate(samples, 1)
    ]


def held_pictures(
    earlier: Mapping[str, Sequence[Sample]], forget: Sequence[Sample], kept: int
) -> list[Sample]:
    """Returns the pictures of people who were forgotten before, as samples about nobody to keep.

    Training on further people moves the features of everyone, so that some of those who were
    forgotten could be recognised again. Kept at the features that they have now, they stay erased.
    All together are drawn about as often as `HELD_SHARE` says: a few pictures are repeated, and of
    many some of each request are taken.

    Args:
        earlier: The samples of requests that were answered before, by id.
        forget: What is to be forgotten now, whose photographs are left out.
        kept: Number of pictures of people to keep.
    """
    away = {picture_hash(picture) for picture in distinct_pictures(forget)}
    held = {
        name: [
            Sample(picture.source, "", "", picture)
            for picture in distinct_pictures(without_names(samples, name))
            if picture_hash(picture) not in away
        ]
        for name, samples in earlier.items()
    }
    total = sum(map(len, held.values()))
    if not total:
        return []
    wanted = kept * HELD_SHARE / (1 - HELD_SHARE)
    each = max(1, math.ceil(wanted / len(held)))
    return [
        again
        for samples in held.values()
        for sample in evenly_spaced(samples, each)
        for again in _repeated(sample, max(1, round(wanted / total)))
    ]


def _repeated(sample: Sample, times: int) -> list[Sample]:
    """A picture as several samples: a picture counts once under each name."""
    names = [sample.id, *(f"{sample.id} again {number}" for number in range(1, times))]
    return [
        replace(sample, id=name, picture=replace(picture, source=name))
        for name in names
        for picture in sample.pictures
    ]


def samples_of(request: str, samples: Iterable[Sample]) -> list[Sample]:
    """Returns the samples of a request among those that `without_names` named."""
    return [sample for sample in samples if sample.id.startswith(f"{request}:")]


def _ending(picture: Picture) -> str:
    """The end of a picture's name that says nothing of anybody: its format and its region."""
    suffix = picture.path.suffix if picture.path is not None else ""
    return suffix if picture.region is None else f"{suffix}{picture.region}"


def require_found(found: Found, requests: Sequence[str], held: Sequence[str] = ()) -> None:
    """Refuses to go on without all photographs of some requests.

    Args:
        found: What was found.
        requests: Ids of the requests that are answered.
        held: Ids of earlier requests whose photographs the step was begun with.

    Raises:
        DataError: If a photograph is missing.
    """
    needed = (*requests, *held)
    lost = {name: found.missing[name] for name in needed if name in found.missing}
    if lost:
        counts = listed([f"{count} of {name}" for name, count in lost.items()])
        raise DataError(
            f"photographs were not found: {counts}. The ledger keeps their hashes and not where "
            f"they are: type unsee request run {' '.join(requests)} --photos DIR, with the folder "
            "or table that holds them, unchanged. Repeat --photos for several."
        )
