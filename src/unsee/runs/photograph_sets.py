"""The photographs that are asked about and compared in a run without true answers."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from unsee.data.selection import evenly_spaced, one_sample_per_picture
from unsee.recipes.job import Job
from unsee.types import Sample

# Of each person: pictures in the gallery, pictures that are tested, and pictures on which the
# target's answers about the person are collected.
ENROLLED, TESTED, LISTENED = 5, 4, 3
# People who are kept, and strangers, that are asked about and that are in the gallery.
ASKED_KEPT, ASKED_STRANGERS = 12, 12
GALLERY_KEPT, GALLERY_STRANGERS = 64, 64
# People to be forgotten who are asked about and looked for.
MAX_FORGOTTEN = 100

# The splits of the people to be forgotten.
FORGET_SPLITS = ("forget_holdout", "forget")
# The split of people who are neither forgotten nor asked about by their own name.
OTHERS = "others"


@dataclass(frozen=True)
class PhotographSets:
    """The pictures that are asked about and compared, one sample a picture.

    Attributes:
        tested: By split ("forget_holdout", "forget", "retain_holdout", "retain"): pictures to test.
            People without held-out pictures are tested on those of training.
        enrolled: The gallery: pictures of people, by which they are recognised.
        strangers: Further people in the gallery, with one picture each.
    """

    tested: Mapping[str, Sequence[Sample]]
    enrolled: Sequence[Sample]
    strangers: Sequence[Sample]

    @classmethod
    def of(cls, job: Job) -> PhotographSets:
        """The sets of a job."""
        tested: dict[str, list[Sample]] = {}
        enrolled: list[Sample] = []
        sides = (
            ("forget", job.data.forget, MAX_FORGOTTEN),
            ("retain", job.data.retain, GALLERY_KEPT),
        )
        for side, samples, most in sides:
            training = by_person(samples)
            held = by_person(job.splits.get(f"{side}_holdout", ()))
            for person in _evenly(list(training), most):
                enrolled += evenly_spaced(training[person], ENROLLED)
                split = f"{side}_holdout" if person in held else side
                pictures = held.get(person, training[person])
                tested.setdefault(split, []).extend(evenly_spaced(pictures, TESTED))
        strangers = [
            Sample(f"stranger/{i}", "", "", picture, f"stranger {i}")
            for i, picture in enumerate(job.data.strangers)
        ]
        return cls(tested, enrolled, evenly_spaced(strangers, GALLERY_STRANGERS))

    @property
    def names(self) -> list[str]:
        """The names of all tested people."""
        return list(dict.fromkeys(str(s.concept) for some in self.tested.values() for s in some))

    @property
    def asked(self) -> dict[str, list[Sample]]:
        """The pictures that are asked about, by split; strangers under `OTHERS`."""
        asked = {split: list(samples) for split, samples in self.tested.items()}
        for split in ("retain_holdout", "retain"):
            if split in asked:
                people = set(_evenly(list(by_person(asked[split])), ASKED_KEPT))
                asked[split] = [s for s in asked[split] if s.concept in people]
        if self.strangers:
            asked[OTHERS] = evenly_spaced(self.strangers, ASKED_STRANGERS)
        return asked

    @property
    def heard(self) -> list[Sample]:
        """The pictures on which the target's answers about each person are collected."""
        asked = (some for split, some in self.asked.items() if split != OTHERS)
        people = {sample.concept for some in asked for sample in some}
        enrolled = by_person(s for s in self.enrolled if s.concept in people)
        return [s for some in enrolled.values() for s in evenly_spaced(some, LISTENED)]


def by_person(samples: Iterable[Sample]) -> dict[str, list[Sample]]:
    """One sample per picture, by person; without those that are about nobody."""
    people: dict[str, list[Sample]] = {}
    for sample in one_sample_per_picture([s for s in samples if s.concept]):
        people.setdefault(str(sample.concept), []).append(sample)
    return people


def _evenly(people: Sequence[str], most: int) -> list[str]:
    step = math.ceil(len(people) / most) if people else 1
    return list(people[::step])
