"""Attacks, one file each: they test whether unlearned knowledge can be recovered."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from unsee.errors import warn_renamed
from unsee.registry import Registry
from unsee.types import Picture

if TYPE_CHECKING:
    from PIL import Image

    from unsee.models.vlm import VLM
    from unsee.types import Sample

ATTACKS: Registry[type[Attack]] = Registry("attack", "unsee.attacks")

# Former names of what `Attack.needs` declares, from old to new; they work for one more release.
RENAMED_NEEDS = {"known": "attacker_samples", "outside": "non_members"}

# Separates a sample's id from the name of a variant of it.
VARIANT = " || "


@dataclass(frozen=True)
class AttackerData:
    """The samples that an attacker has.

    Attributes:
        forget: Samples of the forgotten people; the target was trained on them.
        retain: Samples of everyone else; trained on too.
        non_members: Samples like the forget ones, about people whom no model was ever taught.
    """

    forget: Sequence[Sample] = ()
    retain: Sequence[Sample] = ()
    non_members: Sequence[Sample] = ()


@dataclass(frozen=True)
class Subject:
    """A model with the questions that it will be asked, and the data that the attacker has.

    An attack takes a subject and returns a changed one, so attacks can be chained.

    Attributes:
        vlm: The model.
        samples: The questions by split: "forget_holdout" and, if there is one, "retain_holdout".
        attacker_samples: The forget samples that the attacker has. The target model was trained on
            them.
        retain: The samples that the attacker has of other people. The target model was trained on
            them too.
        non_members: Samples like `attacker_samples`, about people that no model was trained on.
        target: The model before unlearning, if the attacker has it.
    """

    vlm: VLM
    samples: Mapping[str, Sequence[Sample]] = field(default_factory=dict)
    attacker_samples: Sequence[Sample] = ()
    retain: Sequence[Sample] = ()
    non_members: Sequence[Sample] = ()
    target: VLM | None = None

    @property
    def outside(self) -> Sequence[Sample]:
        """The former name of `non_members`."""
        warn_renamed("field of Subject", "outside", "non_members")
        return self.non_members


@dataclass(frozen=True)
class LeakageReading:
    """A quantity that an attacker computes from a model without asking it questions.

    Attributes:
        name: Name of the quantity, such as "min_k AUC".
        forget: Value for the forgotten people, 0..1.
        low: Lower end of the 95 % interval of `forget`; None for too few people.
        high: Upper end of the interval; None for too few people.
        n: Number of samples or pictures of the forgotten people that it is computed from.
        retain: Value for the other people; None if it cannot be computed.
        baseline: Expected value for a model that leaks nothing.
        details: Further numbers by name.
    """

    name: str
    forget: float
    low: float | None
    high: float | None
    n: int
    retain: float | None
    baseline: float
    details: Mapping[str, float] = field(default_factory=dict)


class Attack:
    """Base class of attacks. An attack changes a subject, or computes readings from it.

    Attacks are frozen dataclasses; their fields are their options. They never change the subject
    that they are given.

    Attributes:
        name: The registered name; the registry sets it.
        source: Where the definition comes from; the registry sets it.
        access: "white_box" attacks need the weights, "black_box" attacks only the answers.
        zero_budget: Field values with which the attack does nothing.
        needs: The data that the attack needs besides the model and the questions:
            "attacker_samples", "answers" (attacker's samples with a true answer), "retain",
            "non_members", "target" (the model before unlearning).
        reads: Whether the attack computes readings. It is then the last of its chain, and no
            questions are asked, unless `asks` says so.
        requires: The optional dependency that the attack needs, if any: its import name and the
            extra that installs it, such as ("sklearn", "probe").
    """

    name: ClassVar[str]
    source: ClassVar[str] = ""
    access: ClassVar[Literal["black_box", "white_box"]]
    zero_budget: ClassVar[Mapping[str, Any]]
    needs: ClassVar[frozenset[str]] = frozenset()
    reads: ClassVar[bool] = False
    requires: ClassVar[tuple[str, str] | None] = None

    def apply(self, subject: Subject) -> Subject:
        """Returns the subject after the attack; the given subject is not changed."""
        return subject

    @property
    def required(self) -> frozenset[str]:
        """The data that the attack needs with its field values: `needs`, unless it overrides it."""
        return self.needs

    @property
    def asks(self) -> bool:
        """Whether the questions are asked after the attack; by default if it computes nothing."""
        return not self.reads

    def readings(self, subject: Subject) -> list[LeakageReading]:
        """Returns what an attack with `reads` computes from the model."""
        raise NotImplementedError


Chain = tuple[Attack, ...]


def required_data(chains: Sequence[Chain]) -> set[str]:
    """Returns all data that the attacks need; see `Attack.required`."""
    needs = {need for chain in chains for attack in chain for need in attack.required}
    for old, new in RENAMED_NEEDS.items():
        if old in needs:
            warn_renamed("attack need", old, new)
            needs = needs - {old} | {new}
    return needs


def label(chain: Chain) -> str:
    """Returns the names of the attacks in order, such as "quantize+jailbreak"."""
    return "+".join(attack.name for attack in chain)


def map_questions(subject: Subject, change: Callable[[Sample], Sequence[Sample]]) -> Subject:
    """Returns the subject with every question replaced by the samples that `change` returns."""
    changed = {
        split: [variant for sample in samples for variant in change(sample)]
        for split, samples in subject.samples.items()
    }
    return replace(subject, samples=changed)


def derived_picture(picture: Picture, image: Image.Image, how: str) -> Picture:
    """Returns a picture that was computed from another one, as PNG.

    Args:
        picture: The original picture.
        image: The computed image.
        how: Name of the change, such as "crop"; becomes part of the picture's `source`.
    """
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    content = buffer.getvalue()
    # Models cache opened pictures by `source`, so different content needs a different name.
    digest = hashlib.sha256(content).hexdigest()[:12]
    return Picture(f"{picture.source}#{how}-{digest}", data=content)


def variant(sample: Sample, name: str, **changes: Any) -> Sample:
    """Returns a copy of a sample for one of several variants of the same question.

    Args:
        sample: The original question.
        name: Name of the variant; becomes part of the copy's id.
        **changes: Fields of the sample to replace.
    """
    return replace(sample, id=f"{sample.id}{VARIANT}{name}", **changes)
