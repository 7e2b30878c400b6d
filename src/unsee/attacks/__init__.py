"""Attacks: one file each; each says whether what was unlearned can be brought back."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from unsee.registry import Registry
from unsee.types import Picture

if TYPE_CHECKING:
    from PIL import Image

    from unsee.models.vlm import VLM
    from unsee.types import Sample

ATTACKS: Registry[type[Attack]] = Registry("attack", "unsee.attacks")

# Stands between a sample's id and the name of a variant of it.
VARIANT = " || "


@dataclass(frozen=True)
class Subject:
    """What an attack is made on, and what it leaves for the next: a model and what it is asked.

    Attributes:
        vlm: The model.
        samples: What is asked, by split: "forget_holdout" and, if there is one, "retain_holdout".
        attacker_samples: The forget samples that the attacker has; the target was trained on them.
        retain: What the attacker has of everyone else; trained on too.
        outside: Samples like the known ones, about people whom no model was ever taught.
    """

    vlm: VLM
    samples: Mapping[str, Sequence[Sample]] = field(default_factory=dict)
    attacker_samples: Sequence[Sample] = ()
    retain: Sequence[Sample] = ()
    outside: Sequence[Sample] = ()


@dataclass(frozen=True)
class LeakageReading:
    """What an attacker reads off a model without asking it a question.

    Attributes:
        name: What is read, such as "min_k AUC".
        forget: Of the forgotten people, 0..1.
        low: Lower end of its 95 % interval.
        high: Upper end of its 95 % interval.
        n: What it rests on: samples or pictures of the forgotten people.
        retain: The same of everyone else; None if that cannot be read.
        baseline: What would be read where there is nothing to read.
        details: Further numbers by name.
    """

    name: str
    forget: float
    low: float
    high: float
    n: int
    retain: float | None
    baseline: float
    details: Mapping[str, float] = field(default_factory=dict)


class Attack:
    """What all attacks have in common: they change a subject, or read something off it.

    A subject is a model with what it is asked, so that attacks compose: what one leaves, the next
    one takes. None changes what it is given.

    Attributes:
        name: Its registered name.
        source: Where its definition comes from.
        access: "white_box" needs the weights, "black_box" only answers.
        zero_budget: Field values with which it does nothing.
        needs: What it takes beside model and questions: "known", "answers" (known samples with a
            true answer), "retain", "outside".
        reads: Whether it reads something off the model; it then comes last, and no question is
            asked.
    """

    name: ClassVar[str]
    source: ClassVar[str] = ""
    access: ClassVar[Literal["black_box", "white_box"]]
    zero_budget: ClassVar[Mapping[str, Any]]
    needs: ClassVar[frozenset[str]] = frozenset()
    reads: ClassVar[bool] = False

    def apply(self, subject: Subject) -> Subject:
        """The subject after the attack; the one that is given stays as it is."""
        return subject

    def readings(self, subject: Subject) -> list[LeakageReading]:
        """What the attacker reads off the model; of attacks that read."""
        raise NotImplementedError


Chain = tuple[Attack, ...]


def needed(chains: Sequence[Chain]) -> set[str]:
    """All that the attacks take beside model and questions; see `Attack.needs`."""
    return {need for chain in chains for attack in chain for need in attack.needs}


def label(chain: Chain) -> str:
    """Attacks in the order in which they are made, such as "quantize+jailbreak"."""
    return "+".join(attack.name for attack in chain)


def map_questions(subject: Subject, change: Callable[[Sample], Sequence[Sample]]) -> Subject:
    """The subject with every question replaced by what `change` makes of it, a list of samples."""
    changed = {
        split: [new for sample in samples for new in change(sample)]
        for split, samples in subject.samples.items()
    }
    return replace(subject, samples=changed)


def derived_picture(picture: Picture, image: Image.Image, how: str) -> Picture:
    """A picture made of another: losslessly encoded, and called after its content."""
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    content = buffer.getvalue()
    # Models keep opened pictures by what they are called.
    digest = hashlib.sha256(content).hexdigest()[:12]
    return Picture(f"{picture.source}#{how}-{digest}", data=content)


def variant(sample: Sample, name: str, **changes: Any) -> Sample:
    """A changed sample that is asked beside others made of the same one."""
    return replace(sample, id=f"{sample.id}{VARIANT}{name}", **changes)
