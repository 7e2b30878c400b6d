"""Redacts commands, recipes and records: what a redacted run writes names nobody.

The rule is what may stay, not what must go: numbers, and words that the package itself defines.
Whatever else a user types is a name until proven otherwise, and gets a keyed hash. Questions,
answers and pictures are left out.
"""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from unsee.artifacts.pseudonyms import PSEUDONYM, Pseudonyms
from unsee.artifacts.redaction import hub_id
from unsee.benchmarks import BENCHMARKS
from unsee.records.schema import Summary
from unsee.types import Picture, Sample

# Keys of records that hold questions, answers and pictures.
CONTENT = frozenset(
    "question truth output choices before after reference picture_sha256 gallery".split()
)

# Keys of records whose values identify a person, by the kind of their pseudonyms.
IDENTIFIERS = {
    "concept": "person",
    "id": "sample",
    "group": "group",
    "population": "group",
    "picture": "picture",
}

# Keys whose texts a user has typed: settings, in which only known words stay.
TYPED = frozenset(
    {"parameters", "recipe", "location", "ratio", "path", "names", "base", "questions"}
)

# Keys whose texts may quote a path.
REASONS = frozenset({"not_asked"})
UNNAMED_REASON = "left out, since it may name a place"

# Options that take no value.
FLAGS = frozenset(
    "--json --names --redact --dry-run --trust-remote-code --chat-template --no-redact".split()
)

# Keys of checkpoints, whose hub ids are public.
CHECKPOINTS = frozenset("model base target reference retain_only visual_refit".split())

_NUMBER = re.compile(r"[-+]?(\d+(\.\d*)?|\.\d+)([eE][-+]?\d+)?%?|true|false|null|", re.IGNORECASE)
_LAYER = re.compile(r"([a-z_]+)((\.|:|-)\d+)+")


@dataclass(frozen=True)
class Redactor:
    """Redacts what a run writes, and undoes it in memory for a run that is resumed.

    Attributes:
        pseudonyms: The keyed hashes.
        vocabulary: Words that name nobody: names of methods, fields, attacks and choices.
        originals: What pseudonyms stand for, to go on with a run.
        pictures: The keyed hash of each picture's pixels, by its absolute path.
        hub_ids: The only hub ids that may stay; None: every text that has the form of one and is no
            path here. Later, or elsewhere, a folder "clients/ada" looks like one.
    """

    pseudonyms: Pseudonyms
    vocabulary: Collection[str] = frozenset()
    originals: Mapping[str, str] = field(default_factory=dict, repr=False)
    pictures: Mapping[str, str] = field(default_factory=dict, repr=False)
    hub_ids: Collection[str] | None = None

    def knowing(self, samples: Iterable[Sample]) -> Redactor:
        """Returns the redactor with the names, ids and groups of samples, for `reveal`."""
        originals: dict[str, str] = {}
        pictures: dict[str, str] = {}
        name = self.pseudonyms.name
        for sample in samples:
            for picture in sample.pictures:
                pictures[os.path.abspath(picture.source)] = self._picture(picture)
            originals[name("sample", sample.id)] = sample.id
            originals[name("person", sample.concept or sample.id)] = sample.concept or sample.id
            if sample.group is not None:
                originals[name("group", sample.group)] = sample.group
        return replace(self, originals=originals, pictures=pictures)

    def _picture(self, picture: Picture) -> str:
        return f"picture-{self.pseudonyms.picture(picture.digest)[:12]}"

    def record(self, value: Any, key: str = "") -> Any:
        """Returns a JSON value of a record without names, questions, answers, pictures and paths.

        Args:
            value: The value.
            key: Its key.
        """
        if key in TYPED:
            return self.typed(value, key)
        if isinstance(value, Mapping):
            if key in ("by_person", "concepts"):
                return {self.pseudonyms.name("person", name): v for name, v in value.items()}
            return {
                inner: self.record(content, inner)
                for inner, content in value.items()
                if not (inner in CONTENT and _is_content(content))
            }
        if isinstance(value, list | tuple):
            if key == "sha256":
                return [self.pseudonyms.picture(digest) for digest in value]
            return [self.record(item, key) for item in value]
        if key == "command" and isinstance(value, str):
            return self.command(value)
        if key in REASONS and isinstance(value, str) and value not in self.vocabulary:
            return UNNAMED_REASON
        if key in IDENTIFIERS and isinstance(value, str):
            known = self.pictures.get(value) if key == "picture" else None
            return known or self.pseudonyms.name(IDENTIFIERS[key], value)
        return value

    def reveal(self, value: Any, key: str = "") -> Any:
        """Returns a redacted JSON value with names and ids again, as far as they are known."""
        if isinstance(value, Mapping):
            if key == "by_person":
                return {self.originals.get(name, name): v for name, v in value.items()}
            return {inner: self.reveal(content, inner) for inner, content in value.items()}
        if isinstance(value, list):
            return [self.reveal(item, key) for item in value]
        if key in IDENTIFIERS and isinstance(value, str):
            return self.originals.get(value, value)
        return value

    def summary(self, summary: Summary) -> Summary:
        """Returns the record of a run, redacted."""
        content = self.record(summary.to_dict())
        name = self.pseudonyms.name("run", summary.name)
        return Summary.model_validate({**content, "name": name, "redacted": True})

    def typed(self, value: Any, key: str = "") -> Any:
        """Returns settings with keyed hashes for all texts but known words.

        The same text has the same hash, so that settings can still be compared.

        Args:
            value: A text, a number, or lists and mappings of them.
            key: The setting's key.
        """
        if isinstance(value, Mapping):
            return {
                inner: None if inner == "salt" else self.typed(content, inner)
                for inner, content in value.items()
            }
        if isinstance(value, list | tuple):
            return [self.typed(item, key) for item in value]
        if not isinstance(value, str) or self.is_safe(value, key):
            return value
        if key in ("attacks", "attack"):
            return self._attack(value, lambda field, text: self._hidden(text))
        return self._hidden(value)

    def _hidden(self, text: str) -> str:
        return self.pseudonyms.name("redacted", text)

    def is_safe(self, value: str, key: str = "") -> bool:
        """Whether a setting's text is a number, or words that the package defines.

        Args:
            value: The text.
            key: The setting's key: hub ids of checkpoints are public.
        """
        if _NUMBER.fullmatch(value) or value in self.vocabulary or PSEUDONYM.fullmatch(value):
            return True
        if key and value == key.upper():
            # What `redact_setting` and `command` write.
            return True
        if key in CHECKPOINTS and (found := hub_id(value)) is not None:
            return self.hub_ids is None or found in self.hub_ids
        name, colon, split = value.partition(":")
        if colon and name in BENCHMARKS.names():
            return re.fullmatch(r"[a-z_]+(\?(ratio|shots)=[\d.]+)?", split) is not None
        layer = _LAYER.fullmatch(value)
        if layer is not None:
            return layer[1] in self.vocabulary
        parts = [part for part in re.split(r"[\s,\[\]]+", value) if part]
        return len(parts) > 1 and all(self.is_safe(part) for part in parts)

    def command(self, command: str) -> str:
        """Returns a command line with placeholders for all values but numbers and known words.

        Example:
            >>> from unsee.artifacts.pseudonyms import Pseudonyms
            >>> redactor = Redactor(Pseudonyms(b"a key of sixteen bytes or more"), {"lr", "vkd"})
            >>> redactor.command("unsee unlearn --forget ada --method vkd --set lr=1e-4 --out o")
            'unsee unlearn --forget FORGET --method vkd --set lr=1e-4 --out OUT'
        """
        try:
            typed = shlex.split(command)
        except ValueError:
            return "unsee"
        # Commands in a group, as `unsee request run`, take two words; those after them are ids.
        group = typed[1:3] == ["request", "run"]
        words = typed[: 3 if group else 2]
        option, alone = "", "ID" if group else "RECIPE"
        for word in typed[len(words) :]:
            if word.startswith("--") or word == "-o":
                name, joined, value = word.partition("=")
                option = "" if joined or name in FLAGS else name
                words.append(f"{name}={self._value(name, value)}" if joined else name)
            else:
                words.append(self._value(option or alone, word))
                option = ""
        return shlex.join(words)

    def _value(self, option: str, value: str) -> str:
        """A value of a command line, or what stands for it."""
        place = option.lstrip("-").replace("-", "_").upper() or "VALUE"
        if self.is_safe(value, place.lower()):
            return value
        if place in ("ATTACK", "ATTACKS"):
            return self._attack(value, lambda field, text: field.upper())
        key, joined, inner = value.partition("=")
        if joined and place in ("SET", "RECIPE"):
            known = key if key.replace(".", "") and key in self.vocabulary else "KEY"
            return f"{known}={self._value(known, inner)}"
        return place

    def _attack(self, text: str, hide: Any) -> str:
        """An attack as it is typed, NAME?field=value&field=value, without unknown values."""
        chain = []
        for attack in text.split("+"):
            name, mark, pairs = attack.partition("?")
            fields = []
            for pair in pairs.split("&") if mark else ():
                key, _, value = pair.partition("=")
                shown = value if self.is_safe(value, key) else hide(key, value)
                fields.append(f"{key if key in self.vocabulary else 'key'}={shown}")
            name = name if name in self.vocabulary else hide("attack", name)
            chain.append(f"{name}{mark}{'&'.join(fields)}")
        return "+".join(chain)


def _is_content(value: Any) -> bool:
    """Whether it is a text, or texts; scores have such keys too, and are numbers."""
    if isinstance(value, list | tuple):
        return all(isinstance(item, str | Mapping) for item in value)
    return isinstance(value, str) or value is None
