"""The document of a certificate: what its pages say, for HTML and PDF alike."""

from __future__ import annotations

import base64
import datetime
import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from unsee.certificates import schema
from unsee.certificates.keys import fingerprint
from unsee.certificates.schema import AttackRow, Certificate, MeasureRow, ReAudit, Score
from unsee.certificates.signing import signed_bytes
from unsee.errors import shorten
from unsee.report import wording
from unsee.report.findings import percent

Level = Literal["good", "warn", "bad", "unknown"]

# What fits on two pages; certificate.json has everything.
MOST_MEASURES, MOST_ATTACKS, MOST_TENSORS, MOST_AUDITS, MOST_HASHES = 8, 9, 4, 5, 3
MOST_STATEMENTS, LONGEST, LONGEST_ITEM = 11, 650, 400

# Letters of a document that fits on two sheets in letters of ordinary size.
LONG = 9000

ELSEWHERE = "certificate.json"


@dataclass(frozen=True)
class Paragraph:
    """A paragraph."""

    text: str
    small: bool = False


@dataclass(frozen=True)
class Facts:
    """Labels with values; `digests` are the labels whose values are hashes."""

    rows: tuple[tuple[str, str], ...]
    digests: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Table:
    """A table; `widths` are shares of the page's width, and `numbers` the columns of numbers."""

    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    widths: tuple[float, ...]
    numbers: frozenset[int] = frozenset()


@dataclass(frozen=True)
class Bullets:
    """A list of sentences."""

    items: tuple[str, ...]


@dataclass(frozen=True)
class Commands:
    """Lines to type."""

    lines: tuple[str, ...]


Block = Paragraph | Facts | Table | Bullets | Commands


@dataclass(frozen=True)
class Section:
    """A section with its heading."""

    title: str
    blocks: tuple[Block, ...]


@dataclass(frozen=True)
class Badge:
    """A short judgement with its level."""

    label: str
    value: str
    level: Level


@dataclass(frozen=True)
class Document:
    """The document: a heading, badges and sections.

    Attributes:
        title: The heading.
        subtitle: Request, date and number of the certificate.
        lead: The verdict's sentence.
        badges: The judgements.
        sections: The sections, in order.
        digest: SHA-256 of what is signed, which identifies the certificate on paper.
        signed: A line on the signature, for the foot of every page.
        issued: When the certificate was made.
    """

    title: str
    subtitle: str
    lead: str
    badges: tuple[Badge, ...]
    sections: tuple[Section, ...]
    digest: str
    signed: str
    issued: str

    @property
    def is_long(self) -> bool:
        """Whether it needs smaller letters on two sheets of paper."""
        return len(as_text(self)) > LONG


def document(certificate: Certificate) -> Document:
    """Returns the document of a certificate; the same certificate always gives the same.

    Args:
        certificate: The certificate, signed or not.
    """
    request = certificate.request
    about = f"Request {request.id}" if request.id else "Request without a reference"
    sections = (
        Section("Request for erasure", tuple(_request(certificate))),
        Section("Result", tuple(_result(certificate))),
        Section("What changed", tuple(_changes(certificate))),
        Section("Measures", tuple(_measures(certificate))),
        Section("Attacks", tuple(_attacks(certificate))),
        *([Section("Re-audit", tuple(_re_audit(request.re_audit)))] if request.re_audit else []),
        Section("Residual risk", tuple(_residual_risk(certificate))),
        Section("Verify it again", tuple(_verify(certificate))),
        Section("What this certificate does not say", (Bullets(certificate.limits),)),
        Section("Software and signature", tuple(_software(certificate))),
    )
    return Document(
        title="Certificate of unlearning",
        subtitle=f"{about} · issued {_moment(certificate.issued)}",
        lead=_cut(certificate.verdict.sentence),
        badges=tuple(_badges(certificate)),
        sections=sections,
        digest=hashlib.sha256(signed_bytes(certificate)).hexdigest(),
        signed=_signed(certificate),
        issued=certificate.issued,
    )


def _badges(certificate: Certificate) -> Iterator[Badge]:
    verdict, risk = certificate.verdict, certificate.residual_risk
    yield Badge("Verdict", verdict.headline, verdict.level)
    outcome = certificate.equivalence.outcome
    levels: dict[str, Level] = {"indistinguishable": "good", "distinguishable": "bad"}
    said = outcome.replace("_", " ").capitalize()
    yield Badge("Equivalence", said, levels.get(outcome, "unknown"))
    named: dict[str, tuple[str, Level]] = {
        "bounded": ("Bounded by the tests that were run", "good"),
        "found": ("Found", "bad"),
        "unknown": ("Unknown", "unknown"),
    }
    yield Badge("Residual risk", *named[risk.level])
    decision = certificate.request.decision
    if decision is not None:
        level: Level = "good" if decision == "accepted" else "bad"
        yield Badge("Decision", decision.replace("_", " ").capitalize(), level)
    signed = certificate.signature is not None
    yield Badge("Signature", "Signed" if signed else "Not signed", "unknown" if signed else "warn")


def _request(certificate: Certificate) -> Iterator[Block]:
    request = certificate.request
    rows = [("Reference", request.id or "none given")]
    if request.received:
        rows.append(("Received", _moment(request.received)))
    if request.carried_out:
        rows.append(("Carried out", _moment(request.carried_out) + _delay(request)))
    people = request.data_subjects if request.data_subjects is not None else certificate.run.people
    if people is not None:
        rows.append(("Data subjects", str(people)))
    photographs = request.photographs
    if photographs is None:
        rows.append(("Photographs", "not identified in this certificate"))
    else:
        rows.append(("Photographs", f"{photographs.count}, salt {photographs.salt_id}"))
        some = [digest[:16] for digest in photographs.salted_sha256[:MOST_HASHES]]
        rows.append(("Salted hashes", _and_more(some, len(photographs.salted_sha256))))
    if request.earlier:
        some = [shorten(p.request_id or p.patch_id[:12], 40) for p in request.earlier]
        rows.append(("Earlier requests", _and_more(some[:6], len(some))))
    if request.decision is not None:
        decided = request.decision.replace("_", " ").capitalize()
        rows.append(("Decision", decided + (": " if request.reasons else "")))
        rows[-1] = ("Decision", _cut(rows[-1][1] + " ".join(request.reasons)))
    yield Facts(tuple(rows), frozenset({"Salted hashes"}))


def _delay(request: schema.Request) -> str:
    """The days between receipt and erasure, in brackets; empty if either is not known."""
    if not request.received or not request.carried_out:
        return ""
    try:
        first, last = (
            datetime.date.fromisoformat(moment[:10])
            for moment in (request.received, request.carried_out)
        )
    except ValueError:
        return ""
    days = (last - first).days
    return f" ({days} day{'' if days == 1 else 's'} after receipt)"


def _result(certificate: Certificate) -> Iterator[Block]:
    run = certificate.run
    yield Paragraph(_cut(certificate.equivalence.statement))
    how = [f"Method {run.method}"] if run.method else []
    how += [f"{wording.duration(run.cost_seconds)} of unlearning"] if run.cost_seconds else []
    how += [f"finished {_moment(run.finished)}"] if run.finished else []
    if how:
        yield Paragraph(f"{', '.join(how)}.", small=True)


def _changes(certificate: Certificate) -> Iterator[Block]:
    base, result, changes = certificate.base, certificate.result, certificate.changes
    part = "visual weights" if base.weights_part == "visual" else "weights"
    rows = [("Base", base.name or "name not recorded")]
    if base.earlier_patches:
        below = len(base.earlier_patches)
        rows[0] = ("Base", f"{rows[0][1]}, with {below} earlier patch{'' if below == 1 else 'es'}")
    rows += [(f"Base {part}", base.weights_sha256)] if base.weights_sha256 else []
    rows += [(f"Result {part}", result.weights_sha256)] if result.weights_sha256 else []
    if result.patch_id:
        rows.append(("Patch", result.patch_id))
    digests = frozenset({f"Base {part}", f"Result {part}", "Patch"})
    count = f"{_number(changes.changed)} of {_number(changes.total)} tensors"
    if changes.outside_visual is not None:
        count += f", {changes.outside_visual} of them outside the visual part"
    if result.patch_bytes is not None:
        count += f"; patch of {wording.size(result.patch_bytes)}"
    rows.append(("Changed", count))
    if changes.tensors is None:
        rows.append(("Tensors", "counted, not listed: the run saved no patch"))
    else:
        some = [f"{t.name} {list(t.shape)}" for t in changes.tensors[:MOST_TENSORS]]
        rows.append(("Tensors", _and_more([shorten(s, 90) for s in some], len(changes.tensors))))
    rows.append(("Text", _cut(changes.text.statement)))
    yield Facts(tuple(rows), digests)


def _measures(certificate: Certificate) -> Iterator[Block]:
    rows = _first_measures(certificate.measures)
    if not rows:
        yield Paragraph("The run measured no answers.")
        return
    cells = tuple(_measure_cells(row) for row in rows)
    yield Table(
        ("Measure", "Before", "After", "95 % interval", "Never saw them", "n"),
        cells,
        (0.40, 0.10, 0.10, 0.15, 0.17, 0.08),
        frozenset({1, 2, 3, 4, 5}),
    )
    more = len(certificate.measures) - len(rows)
    note = (
        "Shares of right answers in percent, other scores from 0 to 1. Never saw them: a reference "
        "model trained without the photographs. A dash: not measured, or too few people for an "
        "interval."
    )
    yield Paragraph(f"{note}{_more(more, 'measure')}", small=True)


def _first_measures(measures: Sequence[MeasureRow]) -> list[MeasureRow]:
    """The first metric of every split, the forgotten first; as many as fit."""
    order = ("forgotten", "kept", "general", "text", "ability", "other")
    first: dict[str, MeasureRow] = {}
    for row in sorted(measures, key=lambda row: order.index(row.group)):
        prefix, _, metric = row.key.rpartition("/")
        known = first.get(prefix)
        better = wording.is_share(metric) and not metric.startswith("names_")
        if known is None or (better and not wording.is_share(known.key.rpartition("/")[2])):
            first[prefix] = row
    return list(first.values())[:MOST_MEASURES]


def _measure_cells(row: MeasureRow) -> tuple[str, ...]:
    prefix, _, metric = row.key.rpartition("/")
    groups = {"forgotten": "Data subjects", "kept": "Others"}
    place = wording.place(prefix) if prefix else row.key
    label = f"{groups.get(row.group, '')}: {place}".removeprefix(": ")
    after = row.models.get("unlearned", Score())
    reference = row.models.get("reference") or row.models.get("retain_only")
    return (
        shorten(f"{label} ({wording.metric_name(metric)})", 90),
        _score(metric, row.models.get("target")),
        _score(metric, after),
        _interval(metric, after.low, after.high),
        _score(metric, reference),
        wording.NONE if after.n is None else str(after.n),
    )


def _score(metric: str, score: Score | None) -> str:
    return wording.NONE if score is None else wording.score(metric, score.value)


def _attacks(certificate: Certificate) -> Iterator[Block]:
    attacks = certificate.attacks
    rows = sorted(attacks.run, key=lambda row: -_rise(row))[:MOST_ATTACKS]
    if rows:
        yield Table(
            ("Attack", "Budget", "Before", "Under it", "95 % interval", "Never saw them"),
            tuple(_attack_cells(row) for row in rows),
            (0.17, 0.41, 0.08, 0.11, 0.11, 0.12),
            frozenset({2, 3, 4, 5}),
        )
        more = len(attacks.run) - len(rows)
        yield Paragraph(
            "Scores about the data subjects, those that rise most first; of relearning the highest "
            f"score on the way.{_more(more, 'attack')}",
            small=True,
        )
    else:
        yield Paragraph("No attack was run.")
    if attacks.not_run:
        names = [name.replace("_", " ") for name in attacks.not_run]
        yield Paragraph(_cut(f"Not run: {', '.join(names)}."))


def _rise(row: AttackRow) -> float:
    score = row.models.get("unlearned")
    if score is None or score.after is None:
        return -1.0
    return score.after - (score.before or 0.0)


def _attack_cells(row: AttackRow) -> tuple[str, ...]:
    score = row.models.get("unlearned", schema.AttackScore())
    reference = row.models.get("reference") or row.models.get("retain_only")
    metric = row.reads.rpartition("/")[2]
    metric = "accuracy" if metric == "answers" else metric
    label = row.attack.replace("_", " ")
    if row.reads != "answers" and "/" not in row.reads:
        label += f" ({row.reads})"
    after = wording.score(metric, score.after)
    after += f" at {score.step}" if score.step is not None else ""
    return (
        shorten(label, 60),
        shorten(", ".join(_budget(row)), 150),
        wording.score(metric, score.before),
        after,
        _interval(metric, score.low, score.high),
        wording.NONE if reference is None else wording.score(metric, reference.after),
    )


def _budget(row: AttackRow) -> Iterator[str]:
    """The budget in a few words: access, and its fields."""
    if row.access:
        yield "/".join(dict.fromkeys(access.replace("_", " ") for access in row.access))
    for key, value in row.budget.items():
        if value not in ("off", "not recorded", "no", "0", ""):
            yield f"{key.replace('_', ' ')} {value}"


def _re_audit(audits: Sequence[ReAudit]) -> Iterator[Block]:
    ordered = sorted(audits, key=lambda audit: audit.passed is not False)
    names = {"forgotten_earlier": "Forgotten earlier", "kept": "Kept"}
    rows = []
    for audit in ordered[:MOST_AUDITS]:
        prefix, _, metric = audit.measure.rpartition("/")
        label = names[audit.who] + (f" ({audit.request_id})" if audit.request_id else "")
        place = f"{wording.place(prefix)}: " if prefix else ""
        outcome = {True: "passed", False: "failed", None: "not judged"}[audit.passed]
        rows.append(
            (
                shorten(label, 60),
                shorten(f"{place}{wording.metric_name(metric)}", 80),
                wording.score(metric, audit.before),
                wording.score(metric, audit.after),
                wording.NONE if audit.margin is None else percent(audit.margin),
                outcome,
            )
        )
    yield Table(
        ("People", "Measure", "Before", "After", "Margin", "Outcome"),
        tuple(rows),
        (0.28, 0.34, 0.09, 0.09, 0.09, 0.11),
        frozenset({2, 3, 4}),
    )
    if len(audits) > len(rows):
        failed = sum(audit.passed is False for audit in ordered[MOST_AUDITS:])
        yield Paragraph(
            f"{len(audits) - len(rows)} more, {failed} of them failed; see {ELSEWHERE}.", small=True
        )


def _residual_risk(certificate: Certificate) -> Iterator[Block]:
    statements = certificate.residual_risk.statements
    shown = [shorten(text, LONGEST_ITEM) for text in statements[:MOST_STATEMENTS]]
    yield Bullets(tuple(shown))
    if len(statements) > len(shown):
        more = _more(len(statements) - len(shown), "statement").strip()
        yield Paragraph(more, small=True)


def _verify(certificate: Certificate) -> Iterator[Block]:
    yield Commands(certificate.verify)
    yield Facts(
        (
            ("This certificate", hashlib.sha256(signed_bytes(certificate)).hexdigest()),
            ("Record", certificate.run.record_sha256),
        ),
        frozenset({"This certificate", "Record"}),
    )


def _software(certificate: Certificate) -> Iterator[Block]:
    made = certificate.software
    parts = [f"unsee {made.unsee}" if made.unsee else ""]
    parts += [f"commit {made.commit[:12]}" if made.commit else ""]
    parts += ["with uncommitted changes" if made.dirty else ""]
    for name in ("python", "torch", "transformers"):
        value = getattr(made, name)
        parts.append(f"{name} {value}" if value else "")
    parts += [made.platform or "", f"device {made.device}" if made.device else ""]
    parts += [f"seed {made.seed}" if made.seed is not None else ""]
    known = ", ".join(part for part in parts if part)
    line = f"{known}; certificate by unsee {made.certificate_by}.".lstrip("; ")
    yield Paragraph(line, small=True)
    yield Paragraph(_signed(certificate))


def _signed(certificate: Certificate) -> str:
    if certificate.signer is None or certificate.signature is None:
        return (
            "Not signed: nothing shows who issued this certificate, nor that it was not edited "
            "since."
        )
    public = base64.b64decode(certificate.signer.public_key)
    return (
        f"Signed with Ed25519 by the key {fingerprint(public)}. Compare it with the fingerprint "
        "that the signer gave you."
    )


def _interval(metric: str, low: float | None, high: float | None) -> str:
    if low is None or high is None:
        return wording.NONE
    if wording.is_share(metric):
        return f"{100 * low:.0f} to {100 * high:.0f}"
    return f"{low:.2f} to {high:.2f}"


def _moment(text: str) -> str:
    """A time for readers: "2026-11-29, 01:25 UTC"."""
    day, _, clock = text.partition("T")
    if not clock:
        return day
    zone = "UTC" if clock.endswith(("Z", "+00:00")) else clock[-6:]
    return f"{day}, {clock[:5]} {zone}"


def _number(count: int | None) -> str:
    return "an unknown number" if count is None else f"{count:,}"


def _and_more(some: Sequence[str], count: int) -> str:
    more = count - len(some)
    text = ", ".join(some)
    return f"{text} and {more} more, in {ELSEWHERE}" if more > 0 else text


def _more(count: int, word: str) -> str:
    if count <= 0:
        return ""
    return f" {count} more {word}{'' if count == 1 else 's'} in {ELSEWHERE}."


def _cut(text: str) -> str:
    return shorten(text, LONGEST)


def as_text(document: Document) -> str:
    """The document as plain text, for a terminal."""
    lines = [document.title, document.subtitle, ""]
    lines += [f"{badge.label}: {badge.value}" for badge in document.badges]
    lines += ["", document.lead]
    for section in document.sections:
        lines += ["", section.title.upper()]
        for block in section.blocks:
            lines += _block_text(block)
    return "\n".join(lines)


def _block_text(block: Block) -> list[str]:
    if isinstance(block, Paragraph):
        return [block.text]
    if isinstance(block, Facts):
        width = max(len(label) for label, _ in block.rows)
        return [f"{label:<{width}}  {value}" for label, value in block.rows]
    if isinstance(block, Table):
        rows = (block.head, *block.rows)
        widths = [max(len(row[column]) for row in rows) for column in range(len(block.head))]
        return [
            "  ".join(
                f"{cell:>{width}}" if column in block.numbers else f"{cell:<{width}}"
                for column, (cell, width) in enumerate(zip(row, widths, strict=True))
            ).rstrip()
            for row in rows
        ]
    if isinstance(block, Bullets):
        return [f"- {item}" for item in block.items]
    return [f"  {line}" for line in block.lines]
