"""Skewed requests to forget: drawn from a benchmark's forget set by an attribute of its people."""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from unsee.benchmarks import BENCHMARKS, Benchmark, CheckpointRole, Measure, ModelRole
from unsee.errors import ConfigError, UnknownNameError, counted, quoted
from unsee.types import Data, Sample

# The splits that the people who are not drawn move to, and where they come from.
KEPT = {"retain": "forget", "train_retain": "train_forget", "retain_holdout": "forget_holdout"}

FORM = "Type ATTRIBUTE=VALUE:SHARE, such as gender=female:0.8, or ATTRIBUTE alone."


@dataclass(frozen=True)
class Skew:
    """Which people ask to be forgotten, and whose scores are compared.

    Attributes:
        attribute: An attribute of a benchmark's people.
        value: The value of one group, or a range of numbers such as "20-39"; None draws nobody, and
            every value is a group.
        share: Share of the drawn people who have the value, above 0 and at most 1.
        people: Number of people to draw; None draws as many as that share allows.
    """

    attribute: str
    value: str | None = None
    share: float = 1.0
    people: int | None = None

    @classmethod
    def parse(cls, text: str) -> Skew:
        """Parses ATTRIBUTE[=VALUE:SHARE[:PEOPLE]].

        Example:
            >>> Skew.parse("gender=female:0.8")
            Skew(attribute='gender', value='female', share=0.8, people=None)
            >>> Skew.parse("age=20-39:0.5:10").people
            10

        Raises:
            ConfigError: If it is something else.
        """
        pattern = r"([^=:]+)(?:=(.+?):(\d*\.?\d+)(?::(\d+))?)?"
        match = re.fullmatch(pattern, text.strip()) if isinstance(text, str) else None
        if match is None:
            raise ConfigError(f"skew={quoted(text)} is not allowed. {FORM}")
        share, people = float(match[3] or 1), int(match[4]) if match[4] else None
        if not 0 < share <= 1 or people == 0:
            raise ConfigError(
                f"skew={quoted(text)} is not allowed: the share is above 0 and at most 1, and at "
                f"least one person is drawn. {FORM}"
            )
        return cls(match[1].strip(), match[2] and match[2].strip(), share, people)

    def group(self, value: str) -> str:
        """The group of a person whose attribute has a value."""
        if self.value is None:
            return value
        return self.value if self._matches(value) else f"not {self.value}"

    def _matches(self, value: str) -> bool:
        wanted = str(self.value)
        span = re.fullmatch(r"(\d+)-(\d+)", wanted)
        # The year of a date, else the first number.
        number = re.search(r"\d{4}", value) or re.search(r"\d+", value)
        if span is not None and number is not None:
            return int(span[1]) <= int(number[0]) <= int(span[2])
        return value.strip().casefold() == wanted.casefold()


class SkewedBenchmark(Benchmark):
    """A benchmark of whose people to be forgotten only some are, drawn by an attribute of theirs.

    The others become people to keep, in training and in the retain splits. All other splits are the
    benchmark's, those about what is to be forgotten restricted to the people who were drawn.
    Samples carry the group of their person as `population`, by which `parity_gap` compares groups.

    Source: FAIRGET, arXiv 2607.21300: requests that groups make at different frequencies.

    Differs: FAIRGET draws from the people of its own data set, with the draws in split files; here
    they are drawn from the published forget set of any benchmark with attributes, by a hash, the
    same in every run. People without the attribute are never drawn. Models that ship with the
    benchmark as references know none of the forget set's people, so none is used.

    Attributes:
        inner: The benchmark.
        skew: Who asks to be forgotten.
        groups: The group of each person of the benchmark.
        drawn: The people to be forgotten.
    """

    def __init__(self, inner: Benchmark, skew: Skew) -> None:
        """Draws the people.

        Args:
            inner: The benchmark.
            skew: Who asks to be forgotten.

        Raises:
            ConfigError: If the benchmark's people have no such attribute or value, or too few.
        """
        for name in Benchmark.__annotations__:
            if hasattr(inner, name):
                setattr(self, name, getattr(inner, name))
        self.inner, self.skew = inner, skew
        self.groups = {who: skew.group(value) for who, value in _values(inner, skew).items()}
        asked = {s.concept for s in inner.data().forget if s.concept}
        self.drawn = asked if skew.value is None else draw(skew, self.groups, asked, inner.name)
        gaps = (Measure("parity_gap", split, "vqa", "lower") for split in ("forget", "retain"))
        self.measures = (*inner.measures, *gaps)  # type: ignore[misc]

    def data(self) -> Data:
        """The data that a method may use, with those who were not drawn in the retain set."""
        data = self.inner.data()
        kept = [*self._moved(data.forget), *self._moved(data.text_only)]
        return replace(
            data,
            forget=self._asked(data.forget),
            retain=[*self._labelled(data.retain), *kept],
            text_only=self._asked(data.text_only),
        )

    def training_samples(self, who: ModelRole) -> list[Sample]:
        """The benchmark's, with all that the target learns of those who were not drawn."""
        samples = list(self.inner.training_samples(who))
        if who == "target":
            return samples
        known = {(s.id, s.concept) for s in samples}
        target = self.inner.training_samples("target")
        others = {s.concept for s in self.inner.data().forget if s.concept} - self.drawn
        kept = [s for s in target if s.concept in others and (s.id, s.concept) not in known]
        return samples + [replace(s, id=f"kept/{s.id}") for s in kept]

    def load(self, split: str) -> list[Sample]:
        """The samples of a split; see the class."""
        samples = self.inner.load(split)
        if split in self.inner.forgetting:
            return self._asked(samples)
        if split in KEPT:
            return [*self._labelled(samples), *self._moved(self.inner.load(KEPT[split]))]
        return self._labelled(samples)

    def held_out(self) -> dict[str, list[Sample]]:
        """The held-out questions about the drawn people, and about all others."""
        held = {name: list(samples) for name, samples in self.inner.held_out().items()}
        if not held:
            return {}
        kept = self._moved(held.get("forget_holdout", ()))
        return {
            "forget_holdout": self._asked(held.get("forget_holdout", ())),
            "retain_holdout": [*self._labelled(held.get("retain_holdout", ())), *kept],
        }

    def non_members(self) -> Sequence[Sample]:
        """The benchmark's."""
        return self.inner.non_members()

    def validation(self) -> Mapping[str, Sequence[Sample]]:
        """The benchmark's; those about what is to be forgotten are of the drawn people only."""
        return {
            name: self._asked(some) if name.startswith("forget") else self._labelled(some)
            for name, some in self.inner.validation().items()
        }

    def checkpoint(self, role: CheckpointRole) -> Path | None:
        """The target and the base model that ship with the benchmark; no reference model."""
        return self.inner.checkpoint(role) if role in ("target", "base") else None

    @property
    def forget_ratio(self) -> str:
        """The benchmark's."""
        return self.inner.forget_ratio

    def attributes(self) -> Mapping[str, Mapping[str, str]]:
        """The benchmark's."""
        return self.inner.attributes()

    def metadata(self) -> dict[str, Any]:
        """The benchmark's, with the attribute and the number of people to forget by group."""
        counts = Counter(self.groups[who] for who in self.drawn if who in self.groups)
        skew = {"attribute": self.skew.attribute, "drawn": dict(sorted(counts.items()))}
        return self.inner.metadata() | {"skew": skew, "forgotten": len(self.drawn)}

    def _labelled(self, samples: Iterable[Sample]) -> list[Sample]:
        return [replace(s, population=self.groups.get(s.concept or "")) for s in samples]

    def _asked(self, samples: Iterable[Sample]) -> list[Sample]:
        return self._labelled(s for s in samples if s.concept in self.drawn)

    def _moved(self, samples: Iterable[Sample]) -> list[Sample]:
        """The samples of those who were not drawn, with ids of their own."""
        return [
            replace(s, id=f"kept/{s.id}", group=s.group and f"kept/{s.group}")
            for s in self._labelled(samples)
            if s.concept and s.concept not in self.drawn
        ]


def draw(
    skew: Skew, groups: Mapping[str, str], asked: Iterable[str], benchmark: str = "the benchmark"
) -> set[str]:
    """The people who ask to be forgotten: first by a hash of their names.

    Args:
        skew: The share of them that is in the group of `skew.value`, and their number.
        groups: The group of each person.
        asked: The people from whom they are drawn.
        benchmark: Its name, for the error message.

    Raises:
        ConfigError: If a group has too few people.
    """
    order = sorted(asked, key=lambda who: (hashlib.sha256(who.encode()).hexdigest(), who))
    inside = [who for who in order if groups.get(who) == skew.value]
    outside = [who for who in order if who in groups and groups[who] != skew.value]

    def numbers(count: int) -> tuple[int, int]:
        first = round(count * skew.share)
        return first, count - first

    def fits(count: int) -> bool:
        first, second = numbers(count)
        return 0 < first <= len(inside) and second <= len(outside)

    most = max((n for n in range(1, len(order) + 1) if fits(n)), default=0)
    if not most or (skew.people is not None and not fits(skew.people)):
        there = (
            f"the forget set of {benchmark} has {counted(len(inside), 'person', 'people')} with "
            f"{skew.attribute}={skew.value} and {len(outside)} others"
        )
        hint = (
            f"At most {counted(most, 'person', 'people')} can be drawn at the share "
            f"{skew.share:g}: type {skew.attribute}={skew.value}:{skew.share:g}:{most}."
            if most
            else "Give another value, another share, or a larger forget_ratio."
        )
        raise ConfigError(f"skew: {there}. {hint}")
    first, second = numbers(skew.people or most)
    return {*inside[:first], *outside[:second]}


def _values(benchmark: Benchmark, skew: Skew) -> dict[str, str]:
    """The people's values of the attribute.

    Raises:
        ConfigError: If there is no such attribute, or nobody has the value.
    """
    people = benchmark.attributes()
    if not people:
        able = ", ".join(sorted(declares_attributes()))
        raise ConfigError(
            f"skew={skew.attribute}: {benchmark.name} declares no attributes of its people. "
            f"Benchmarks that do: {able}."
        )
    known = {name for fields in people.values() for name in fields}
    names = {name.casefold(): name for name in known}
    attribute = names.get(skew.attribute.casefold())
    if attribute is None:
        raise UnknownNameError(f"attribute of {benchmark.name}", skew.attribute, known)
    values = {who: fields[attribute] for who, fields in people.items() if attribute in fields}
    if skew.value is not None and skew.value not in map(skew.group, values.values()):
        some = Counter(values.values()).most_common(20)
        raise UnknownNameError(
            f"value of {attribute}",
            skew.value,
            set(values.values()),
            ", ".join(f"{value} ({number})" for value, number in some),
        )
    return values


def declares_attributes() -> list[str]:
    """The names of the benchmarks that declare attributes of their people."""
    base = Benchmark.attributes
    return [name for name, kind in BENCHMARKS.items() if kind.attributes is not base]
