"""Benchmarks as they are typed: NAME:SPLIT@LOCATION?ratio=R&shots=N&revision=REV&skew=S."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from unsee.errors import ConfigError, UnknownNameError
from unsee.hub.names import PREFIX, find

if TYPE_CHECKING:
    from unsee.benchmarks import Benchmark

# What may stand after "?".
OPTIONS = ("ratio", "shots", "revision", "skew")


@dataclass(frozen=True)
class Spec:
    """A benchmark, or a split of it, as it is typed; see `parse_spec`.

    Attributes:
        name: A registered benchmark.
        split: One of its splits; "" is the whole of it.
        location: A folder or hub id; None is its own place.
        ratio: The published share to forget (%), or what else the benchmark calls so.
        shots: Few-shot examples.
        revision: The branch, tag or commit that is read of a location on the hub; None is what the
            location says, else the newest commit.
        skew: Who of the people to forget asks for it; see `unsee.benchmarks.skew.Skew`.
    """

    name: str
    split: str = ""
    location: str | None = None
    ratio: str | None = None
    shots: int | None = None
    revision: str | None = None
    skew: str | None = None

    def open(self, opened: dict[Spec, Benchmark] | None = None) -> Benchmark:
        """The benchmark.

        Args:
            opened: Those that are open already, so that each place is read once; added to.
        """
        from unsee.benchmarks import BENCHMARKS
        from unsee.benchmarks.skew import Skew, SkewedBenchmark

        whole, known = replace(self, split=""), {} if opened is None else opened
        if whole not in known:
            skew = Skew.parse(self.skew) if self.skew is not None else None
            benchmark = BENCHMARKS.get(self.name).open(self._place(), self.ratio, self.shots)
            known[whole] = benchmark if skew is None else SkewedBenchmark(benchmark, skew)
        return known[whole]

    def _place(self) -> str | None:
        """The location at the revision.

        Raises:
            ConfigError: If there is a revision, and the location is a folder.
        """
        if self.revision is None:
            return self.location
        from unsee.benchmarks import BENCHMARKS

        place = self.location or BENCHMARKS.get(self.name).hub
        repository = find(place)
        if repository is None:
            where = f"is read from the folder {place}" if place else "is not on the hub"
            raise ConfigError(
                f"{self.name}: revision {self.revision} cannot be read, because it {where}. Leave "
                f"the revision out, or type {self.name}@OWNER/NAME@{self.revision}."
            )
        return str(repository.at(self.revision))


def parse_spec(text: str) -> Spec | None:
    """Parses NAME[:SPLIT][@LOCATION][?ratio=R&shots=N&revision=REV&skew=S]; None if it is a path.

    Example:
        `parse_spec("mllmu:forget@DIR?ratio=5&shots=0")`.

    Raises:
        ConfigError: If an option is unknown or its value not allowed.
    """
    from unsee.benchmarks import BENCHMARKS

    match = re.fullmatch(r"([A-Za-z_]\w*)(:[\w-]*)?(?:@([^?]*))?(?:\?(.*))?", text)
    if match is None or match[1] not in BENCHMARKS.names():
        # One letter before a colon is a drive (C:); an existing folder takes precedence.
        if match is not None and match[2] and len(match[1]) > 1 and not os.path.exists(text):
            raise UnknownNameError("benchmark", match[1], BENCHMARKS.names())
        return None
    if match[2] is None and match[3] is None and os.path.exists(text):
        return None
    options: dict[str, str] = {}
    for pair in (match[4] or "").split("&") if match[4] else ():
        key, _, value = pair.partition("=")
        # As a recipe's field is called, or as the benchmark calls it.
        key = "ratio" if key in ("forget_ratio", BENCHMARKS.get(match[1]).ratio_alias) else key
        if key not in OPTIONS:
            raise ConfigError(f"'{text}': {UnknownNameError('option', key, OPTIONS)}")
        options[key] = value
    if not re.fullmatch(r"\d*", options.get("shots", "")):
        raise ConfigError(f"'{text}': shots={options['shots']} is no number. Type shots=0.")
    return Spec(
        match[1],
        (match[2] or "").removeprefix(":"),
        match[3] or None,
        options.get("ratio"),
        int(options["shots"]) if options.get("shots") else None,
        options.get("revision") or None,
        options.get("skew"),
    )


def is_on_hub(text: str) -> bool:
    """Whether what is typed as data is read from the hub.

    Args:
        text: As for `parse_spec`, or hub:OWNER/NAME.
    """
    from unsee.benchmarks import BENCHMARKS

    spec = parse_spec(text)
    if spec is None:
        return text.startswith(PREFIX)
    return find(spec.location or BENCHMARKS.get(spec.name).hub) is not None


def at_revision(text: str, revision: str) -> str:
    """The text of data that is read from the hub, with the revision to read.

    Args:
        text: As for `parse_spec`, or hub:OWNER/NAME.
        revision: A branch, a tag or a commit.

    Example:
        >>> at_revision("mllmu:forget?ratio=5", "v1.0"), at_revision("hub:some-lab/faces", "v1.0")
        ('mllmu:forget?ratio=5&revision=v1.0', 'hub:some-lab/faces@v1.0')

    Raises:
        ConfigError: If it names a revision already, or is not read from the hub.
    """
    if not is_on_hub(text):
        raise ConfigError(
            f"'{text}' is not read from the hub, so it has no revision {revision}. Leave the "
            "revision out, or give a benchmark or hub:OWNER/NAME."
        )
    spec = parse_spec(text)
    place = text if spec is None else spec.location
    repository = find(place) if place else None
    before = spec.revision if spec is not None and spec.revision else None
    before = before or (repository.revision if repository is not None else None)
    if before is not None:
        raise ConfigError(
            f"'{text}' names the revision {before}, and another is given: {revision}. Leave one of "
            "them out."
        )
    if spec is None:
        return f"{text}@{revision}"
    return f"{text}{'&' if '?' in text else '?'}revision={revision}"
