"""Naming: whether an answer names another person than the one asked about."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

from unsee.metrics import METRICS, Metric, Output
from unsee.metrics.letters import contains_words, stated_option
from unsee.types import Better, Sample


@dataclass(frozen=True)
class People:
    """The names of the people in the data.

    Attributes:
        forgotten: Names of the people to be forgotten.
        kept: Names of the other people.
    """

    forgotten: frozenset[str] = frozenset()
    kept: frozenset[str] = frozenset()

    @classmethod
    def of(
        cls,
        splits: Mapping[str, Sequence[Sample]],
        forgetting: Collection[str],
        further: Sequence[Sample] = (),
    ) -> People:
        """The people in splits.

        A concept is a name if the answer to a question about it, or a question by name, contains
        it; an identifier such as "p3" is none.

        Args:
            splits: Samples by split.
            forgetting: The splits about what is to be forgotten.
            further: Samples of people to keep that are not scored.
        """
        sides: dict[bool, set[str]] = {True: set(), False: set()}
        groups = [(name in forgetting, samples) for name, samples in splits.items()]
        for forgets, samples in (*groups, (False, further)):
            for sample in samples:
                name = sample.concept
                if name and name not in sides[forgets]:
                    text = f"{sample.answer}\n{sample.question}\n" + "\n".join(sample.choices)
                    if contains_words(text, name):
                        sides[forgets].add(name)
        return cls(frozenset(sides[True]), frozenset(sides[False] - sides[True]))


class _Naming(Metric):
    """Base class: 1 if the answer names one of some people, other than whom it should."""

    better: ClassVar[Better] = "lower"
    people: People = People()

    def applies(self, sample: Sample) -> bool:
        """Whether the sample is about a known person, and there is another to be named."""
        known = self.people.forgotten | self.people.kept
        return sample.concept in known and bool(self._others(sample))

    def score(self, sample: Sample, output: Output) -> float:
        """Returns 1 if one of the people is named, 0 if not.

        People whom the question or the true answer name do not count. The answer to a choice is
        the option that it states.
        """
        text = output.text
        if sample.task == "classification":
            chosen = stated_option(text, sample.choices)
            text = sample.choices[chosen] if chosen is not None and sample.choices else text
        return float(any(contains_words(text, name) for name in self._others(sample)))

    def _others(self, sample: Sample) -> list[str]:
        shown = "" if sample.task == "classification" else sample.question
        given = f"{shown}\n{sample.answer}"
        return sorted(
            name for name in self._group() - {sample.concept} if not contains_words(given, name)
        )

    def _group(self) -> frozenset[str]:
        raise NotImplementedError


@METRICS.register("names_forgotten", source="unsee")
class NamesForgotten(_Naming):
    """Names another forgotten person: the share of answers that name a person to be forgotten.

    The person asked about does not count. A model that carries one forgotten person onto another
    has renamed them, not forgotten; every record has this measure where names are known.

    Source: our own.

    Example:
        >>> from unsee import Sample
        >>> from unsee.metrics import Output
        >>> from unsee.metrics.names import NamesForgotten, People
        >>> metric = NamesForgotten()
        >>> metric.people = People(frozenset({"Ada Berg", "Bo Lind"}))
        >>> sample = Sample("1", "Who is this?", "This is Ada Berg.", concept="Ada Berg")
        >>> [metric.score(sample, Output(t)) for t in ("This is Bo Lind.", "This is Ada Berg.")]
        [1.0, 0.0]
    """

    def _group(self) -> frozenset[str]:
        return self.people.forgotten


@METRICS.register("names_kept", source="unsee")
class NamesKept(_Naming):
    """Names a kept person: the share of answers that name another person, who is to be kept.

    A model that gives a forgotten person the name of a kept one has renamed them, not forgotten;
    every record has this measure where names are known.

    Source: our own.

    Example:
        >>> from unsee import Sample
        >>> from unsee.metrics import Output
        >>> from unsee.metrics.names import NamesKept, People
        >>> metric = NamesKept()
        >>> metric.people = People(frozenset({"Ada Berg"}), frozenset({"Cy Moser"}))
        >>> sample = Sample("1", "Who is this?", "This is Ada Berg.", concept="Ada Berg")
        >>> metric.score(sample, Output("This is Cy Moser."))
        1.0
    """

    def _group(self) -> frozenset[str]:
        return self.people.kept


# Reported wherever answers are generated and names are known.
NAMING = ("names_forgotten", "names_kept")
