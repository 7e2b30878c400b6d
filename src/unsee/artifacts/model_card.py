"""Model cards: the README.md of everything that is saved, in the Hugging Face card format.

A card is published with the weights, so it names nobody: people are counted. Hashes of names or
pictures would identify them: anyone can hash a list of names, or a photograph. Cards of redacted
runs have keyed hashes of the pictures, which only the owner of the key can compare.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import yaml

from unsee import __version__
from unsee.artifacts.manifest import Manifest
from unsee.artifacts.pseudonyms import Pseudonyms
from unsee.artifacts.redaction import hub_id, redact, redact_setting
from unsee.artifacts.redactor import Redactor
from unsee.files import write_atomically
from unsee.records.markdown import Table, escape_tags
from unsee.records.schema import Guarantees, Measure, MethodRecord, Provenance, Summary
from unsee.types import Picture, Sample

CARD = "README.md"


# The card of a base, beside that of the patched checkpoint.
BASE_CARD = "README-base.md"


MAX_LISTED = 50


Kind = Literal["model", "patch", "adapter"]


LIBRARIES: dict[Kind, str] = {"model": "transformers", "patch": "unsee", "adapter": "peft"}


USES: dict[Kind, str] = {
    "model": "AutoModelForImageTextToText.from_pretrained(FOLDER)",
    "patch": "unsee apply FOLDER --model BASE --out OUT",
    "adapter": "peft.PeftModel.from_pretrained(BASE_MODEL, FOLDER)",
}


ENCODER_USE = "AutoModel.from_pretrained(FOLDER)"


@dataclass(frozen=True)
class Card:
    """The content of a model card.

    Attributes:
        kind: What the folder holds.
        title: The first heading.
        base: The base checkpoint as given; only a hub id is repeated.
        base_sha256: Hash of the base's loaded weights.
        action: What was done to the samples: "forgotten" or "learned".
        samples: The samples it was done to; empty if they are not known.
        command: The command that made it.
        parameters: Method and training settings.
        facts: Further lines, such as guarantees, by label.
        measures: Scores by "split/modality/metric".
        names: Whether people may be named.
        pseudonyms: Makes the keyed hashes of the pictures; None leaves hashes out.
        encoder: Whether the model is an image encoder.
    """

    kind: Kind
    title: str
    base: str
    base_sha256: str | None
    action: Literal["forgotten", "learned"]
    samples: Sequence[Sample]
    command: str
    parameters: Mapping[str, Any]
    facts: Mapping[str, Any] = field(default_factory=dict)
    measures: Mapping[str, Measure] = field(default_factory=dict)
    names: bool = False
    pseudonyms: Pseudonyms | None = None
    encoder: bool = False

    def write(self, folder: Path) -> None:
        """Writes README.md into a saved folder, atomically."""
        write_atomically(folder / CARD, self.text())

    def text(self) -> str:
        """Returns the card: YAML front matter, then Markdown."""
        front: dict[str, Any] = {"library_name": LIBRARIES[self.kind]}
        known = hub_id(self.base)
        if known is not None:
            relation = "adapter" if self.kind == "adapter" else "finetune"
            front |= {"base_model": known, "base_model_relation": relation}
        tags = ["unsee", "image-feature-extraction" if self.encoder else "image-text-to-text"]
        tags += ["machine-unlearning"] if self.action == "forgotten" else []
        tags += ["lora"] if self.parameters.get("lora") else []
        front["tags"] = tags
        sections = [
            f"---\n{yaml.safe_dump(front, sort_keys=False)}---",
            f"# {self.title}",
            f"Made by unsee {__version__}. Use: `{self._use()}`",
            self._base(known),
            *self._people(),
            self._settings(),
            *self._facts(),
            *self._measures(),
            f"## Command\n\n```sh\n{self._command()}\n```",
        ]
        return "\n\n".join(sections) + "\n"

    def _use(self) -> str:
        return ENCODER_USE if self.encoder and self.kind == "model" else USES[self.kind]

    def _base(self, known: str | None) -> str:
        place = f"`{known}`" if known else "a local checkpoint"
        digest = f", weights SHA-256 `{self.base_sha256}`" if self.base_sha256 else ""
        return f"Base: {place}{digest}."

    def _people(self) -> list[str]:
        if not self.samples:
            return []
        by_concept: dict[str | None, list[Sample]] = {}
        for sample in self.samples:
            by_concept.setdefault(sample.concept, []).append(sample)
        people = {name: some for name, some in by_concept.items() if name is not None}
        every = [picture for sample in self.samples for picture in sample.pictures]
        asked = sum(bool(s.answer) for s in self.samples)
        lines = [
            f"- people or other concepts: {len(people)}",
            f"- pictures: {_count(every)}",
            f"- questions with answers: {asked}",
        ]
        if self.pseudonyms is not None:
            digest = self.pseudonyms.pictures(every)
            lines.append(
                "- HMAC-SHA-256 over the pictures' pixels, whose key the controller has: "
                f"`{digest}`"
            )
        shown = list(people.items())[:MAX_LISTED]
        for number, (name, some) in enumerate(shown, 1):
            mine = [picture for sample in some for picture in sample.pictures]
            label = escape_tags(name) if self.names else f"concept {number}"
            digest = ""
            if self.pseudonyms is not None and mine:
                digest = f", HMAC-SHA-256 `{self.pseudonyms.pictures(mine)[:16]}`"
            lines.append(f"- {label}: {_count(mine)} pictures{digest}")
        if len(people) > MAX_LISTED:
            lines.append(f"- and {len(people) - MAX_LISTED} more")
        return [f"## What was {self.action}", "\n".join(lines)]

    def _settings(self) -> str:
        rows = [
            [f"`{key}`", str(redact_setting(key, value))] for key, value in self.parameters.items()
        ]
        return f"## Settings\n\n{Table(['setting', 'value'], rows).markdown().rstrip()}"

    def _facts(self) -> list[str]:
        lines = [f"- {what}: {value}" for what, value in self.facts.items() if value is not None]
        return [f"## What was checked\n\n{chr(10).join(lines)}"] if lines else []

    def _measures(self) -> list[str]:
        rows = [
            [
                key,
                "none" if measure.value is None else f"{measure.value:.3f}",
                _interval(measure),
                str(measure.n),
                str(measure.n_unscored),
            ]
            for key, measure in self.measures.items()
            if measure.value is not None or measure.n_unscored
        ]
        if not rows:
            return []
        table = Table(["measure", "value", "95 % interval", "n", "unscored"], rows)
        return [f"## Measures\n\n{table.markdown().rstrip()}"]

    def _command(self) -> str:
        if self.names:
            return self.command
        people = {s.concept for s in self.samples if s.concept}
        return redact(self.command, people)


def card_of_run(
    summary: Summary,
    kind: Kind,
    base: str,
    samples: Sequence[Sample],
    names: bool,
    pseudonyms: Pseudonyms | None = None,
) -> Card:
    """Returns the card of an unlearned model.

    Args:
        summary: The record of the run, which has a method and guarantees.
        kind: What was saved.
        base: The checkpoint before.
        samples: What was forgotten.
        names: Whether people may be named.
        pseudonyms: Makes keyed hashes of the pictures, of a redacted run.
    """
    method, checked = (
        summary.method or MethodRecord(name="none"),
        summary.guarantees or Guarantees(),
    )
    provenance = summary.provenance or Provenance()
    return Card(
        kind=kind,
        title=f"A model that has forgotten ({method.name})",
        base=base,
        base_sha256=provenance.start_weights_sha256,
        action="forgotten",
        samples=samples,
        command=summary.command or "",
        parameters={"method": method.name, **method.parameters},
        facts={
            f"text-only outputs equal bit for bit ({checked.text_probes} probes)": (
                checked.text_identical
            ),
            "share of next tokens that are the same on them": checked.text_next_token_same,
            "language part unchanged": checked.language_part_sha256_unchanged,
            "tensors changed": f"{checked.changed_tensors} of {checked.total_tensors}",
            "of these outside the visual part": checked.changed_outside_visual,
            "not checked": checked.reason,
        },
        measures=summary.measures or {},
        names=names,
        pseudonyms=pseudonyms,
        encoder=summary.recognition is not None and summary.recognition.encoder,
    )


def card_of_patched(manifest: Manifest, base: str, patches: int = 1, encoder: bool = False) -> Card:
    """Returns the card of a patched checkpoint, from the patch's manifest.

    Args:
        manifest: The manifest of the (last) patch, whose command names nobody.
        base: The checkpoint that the patch was applied to.
        patches: Number of patches that are on the checkpoint.
        encoder: Whether the model is an image encoder.
    """
    return Card(
        kind="model",
        title=f"A model that has forgotten ({manifest.method or 'a visual patch'})",
        base=base,
        base_sha256=None,
        action="forgotten",
        samples=(),
        command=manifest.command or "unsee apply PATCH --model MODEL --out OUT",
        parameters={"method": manifest.method, **manifest.parameters},
        facts={
            "tensors changed": f"{len(manifest.changed)} of {len(manifest.base)}",
            "all other tensors": "byte for byte the base's",
            "base SHA-256 (tensors' names, types, shapes, and visual bytes)": (
                f"`{manifest.base_sha256}`"
            ),
            "patch made by unsee": manifest.unsee,
            **(
                {"patches on the base": f"{patches}, of which this is the last; `unsee history`"}
                if patches > 1
                else {}
            ),
        },
        encoder=encoder,
    )


def redacted_card(text: str, redactor: Redactor) -> str | None:
    """Returns a card without names, hashes of pictures that are not keyed, and paths.

    Args:
        text: The card, also of an earlier version.
        redactor: Knows the words that may stay.

    Returns:
        The card; None if it is none that this package wrote.
    """
    if "\nMade by unsee " not in text:
        return None
    heading = ""
    lines: list[str] = []
    for line in text.split("\n"):
        heading = line if line.startswith("## ") else heading
        if heading in ("## What was forgotten", "## What was learned"):
            shown = _redacted_person(line, sum(_is_person(other) for other in lines) + 1)
        elif heading == "## Settings":
            shown = _redacted_row(line, redactor)
        elif heading == "## Command" and line.startswith("unsee "):
            shown = redactor.command(line)
        else:
            shown = line
        if shown is not None:
            lines.append(shown)
    return "\n".join(lines)


_PERSON = re.compile(
    r"- (?P<name>.*): (?P<count>\d+) pictures(?P<rest>, (HMAC-)?SHA-256 `[0-9a-f]+`)?"
)


def _is_person(line: str) -> bool:
    return _PERSON.fullmatch(line) is not None


def _redacted_person(line: str, number: int) -> str | None:
    """A line about the samples; None for a hash that anyone with the pictures can compute."""
    person = _PERSON.fullmatch(line)
    if person is None:
        return None if line.startswith("- SHA-256 ") else line
    rest = person["rest"] or ""
    keyed = rest if rest.startswith(", HMAC") else ""
    return f"- concept {number}: {person['count']} pictures{keyed}"


def _redacted_row(line: str, redactor: Redactor) -> str:
    """A row of the settings, with placeholders for what a user typed."""
    row = re.fullmatch(r"\| `(\w+)` \| (.*) \|", line)
    if row is None:
        return line
    texts = [text.strip(" '\"") for text in row[2].strip("[]()").split(",")]
    safe = all(redactor.is_safe(text, row[1]) or text == "None" for text in texts)
    return line if safe or redactor.is_safe(row[2]) else f"| `{row[1]}` | {row[1].upper()} |"


def _count(pictures: Iterable[Picture]) -> int:
    """The number of distinct pictures."""
    return len({picture.digest for picture in pictures})


def _interval(measure: Measure) -> str:
    """The interval of a measure; means over fewer than five people have none."""
    if measure.low is None or measure.high is None:
        return "none"
    return f"{measure.low:.3f} to {measure.high:.3f}"
