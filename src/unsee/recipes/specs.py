"""Benchmarks as they are typed: NAME:SPLIT@LOCATION?ratio=R&shots=N."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from unsee.errors import ConfigError, UnknownNameError

if TYPE_CHECKING:
    from unsee.benchmarks import Benchmark


@dataclass(frozen=True)
class Spec:
    """A benchmark, or a split of it, as it is typed: NAME:SPLIT@LOCATION?ratio=R&shots=N.

    Attributes:
        name: A registered benchmark.
        split: One of its splits; "" is the whole of it.
        location: A folder or hub id; None is its own place.
        ratio: The published share to forget (%).
        shots: Few-shot examples.
    """

    name: str
    split: str = ""
    location: str | None = None
    ratio: str | None = None
    shots: int | None = None

    def open(self, opened: dict[Spec, Benchmark] | None = None) -> Benchmark:
        """The benchmark.

        Args:
            opened: Those that are open already, so that each place is read once; added to.
        """
        from unsee.benchmarks import BENCHMARKS

        whole, known = replace(self, split=""), {} if opened is None else opened
        if whole not in known:
            known[whole] = BENCHMARKS.get(self.name).open(self.location, self.ratio, self.shots)
        return known[whole]


def parse_spec(text: str) -> Spec | None:
    """Parses NAME[:SPLIT][@LOCATION][?ratio=R&shots=N]; None if it is a path.

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
        # As a recipe's field is called.
        key = "ratio" if key == "forget_ratio" else key
        if key not in ("ratio", "shots"):
            raise ConfigError(f"'{text}': {UnknownNameError('option', key, ('ratio', 'shots'))}")
        options[key] = value
    if not re.fullmatch(r"\d*", options.get("shots", "")):
        raise ConfigError(f"'{text}': shots={options['shots']} is no number. Type shots=0.")
    return Spec(
        match[1],
        (match[2] or "").removeprefix(":"),
        match[3] or None,
        options.get("ratio"),
        int(options["shots"]) if options.get("shots") else None,
    )
