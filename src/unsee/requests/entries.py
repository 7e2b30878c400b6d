"""The entries of a ledger: what was asked, begun, decided and undone; and what follows from them.

Entries are only ever added. The state of a ledger, such as which patches are deployed, is computed
from all of them, so that the history cannot contradict it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Literal

from pydantic import Field, JsonValue

from unsee.records.part import Bool, Float, Int, Number, RecordPart, Text

Status = Literal["new", "running", "accepted", "rejected", "undone", "withdrawn"]

# The statuses of requests that `unsee request run` takes up without being told their ids.
PENDING: tuple[Status, ...] = ("new", "running")


class LedgerSettings(RecordPart):
    """The model of a ledger, and how each of its requests is answered."""

    model: Text = Field(description="The deployed model: a checkpoint folder, or a hub id.")
    retain: Text | None = Field(
        default=None, description="Where the samples are that the model must still recognise."
    )
    strangers: Text | None = Field(
        default=None, description="Where pictures of people are whom the model does not know."
    )
    method: Text = Field(default="vkd", description="The unlearning method.")
    set: dict[Text, JsonValue] = Field(
        default={}, description="Fields of the method and of the training that were given."
    )
    attacks: tuple[Text, ...] = Field(
        default=("standard",), description="Attacks on every result; empty makes none."
    )
    forget_margin: Float = Field(
        default=0.05,
        description="Score above chance, 0..1, up to which a person counts as forgotten.",
    )
    keep_margin: Float = Field(
        default=0.02,
        description="Loss of score since the ledger began, 0..1, up to which the others are kept.",
    )
    attack_margin: Float | None = Field(
        default=None,
        description="Score above chance, 0..1, up to which an attack counts as resisted; null "
        "reports what attacks recover and does not decide by it.",
    )
    redact: Bool = Field(
        default=True, description="Keep names, questions, answers and paths out of the run folders."
    )
    seed: Int = Field(default=0, description="Seed of the first step; each later step adds 1.")
    device: Text = Field(default="auto", description="auto, cpu or cuda.")
    trust_remote_code: Bool = Field(
        default=False, description="Allow the checkpoint's own Python code to run."
    )


class Created(RecordPart):
    """The first entry: the ledger was created over a model."""

    settings: LedgerSettings = Field(description="What it is about.")
    base: dict[Text, Text] = Field(description="SHA-256 of the base checkpoint's files, by name.")


class Requested(RecordPart):
    """A request was received."""

    id: Text = Field(description="The request's id.")
    photographs: tuple[Text, ...] = Field(
        description="Keyed hash (HMAC-SHA256) of each photograph's decoded pixels, in order."
    )
    count: Int | None = Field(
        default=None,
        description="Number of distinct photographs; a photograph given twice counts as one. null: "
        "as many as there are hashes.",
    )
    boxes: dict[Text, tuple[Text, ...]] = Field(
        default={},
        description="The marked face or faces, x0,y0,x1,y1, of each group photograph, by its hash; "
        "a photograph that is not here shows nobody else.",
    )
    people: Int = Field(description="Number of people, one for each subfolder or concept.")
    answers: Bool = Field(
        default=False, description="Whether questions and answers came with the photographs."
    )
    notes: tuple[Text, ...] = Field(default=(), description="What the data check found.")

    @property
    def distinct(self) -> int:
        """The number of distinct photographs."""
        return len(set(self.photographs)) if self.count is None else self.count

    @property
    def marked(self) -> int:
        """The number of group photographs of which only a marked face is meant."""
        return len(self.boxes)


class Started(RecordPart):
    """A step was begun: one run that answers one request, or several together."""

    step: Int = Field(description="Number of the step, from 1.")
    requests: tuple[Text, ...] = Field(description="Ids of the requests that it answers.")
    set: dict[Text, JsonValue] = Field(
        default={}, description="Fields that replace those of the ledger's settings."
    )
    attacks: tuple[Text, ...] | None = Field(
        default=None, description="Attacks in place of the settings' ones; null keeps those."
    )
    held: tuple[Text, ...] = Field(
        default=(),
        description="Ids of earlier requests whose photographs are kept at their erased features.",
    )


class SubjectScore(RecordPart):
    """The score of a request's people, or of the people to keep, before and after a step."""

    measure: Text = Field(description="Key of the measure, such as forget_holdout/vqa/accuracy.")
    base: Number = Field(default=None, description="Score of the base model, 0..1.")
    after: Number = Field(default=None, description="Score after the step, 0..1.")
    floor: Float = Field(
        default=0.0, description="Score of a model that never saw the people: chance, 0..1."
    )
    n: Int | None = Field(default=None, description="Number of questions or pictures.")


class Criterion(RecordPart):
    """One condition of a decision."""

    name: Text = Field(
        description="What is judged: forgotten, still forgotten, kept, text, patch or attack."
    )
    subject: Text = Field(
        default="", description="The request, measure or attack that it is about."
    )
    value: Number = Field(default=None, description="What was measured; null if nothing was.")
    limit: Number = Field(default=None, description="Largest or smallest value that is accepted.")
    margin: Number = Field(default=None, description="The declared margin, if it decides by one.")
    passed: Bool | None = Field(
        default=None,
        description="Whether it holds; null if it was not measured or does not decide.",
    )
    text: Text = Field(default="", description="The condition and its outcome in a sentence.")


class Decision(RecordPart):
    """Whether a result was accepted at the declared margins, and why not."""

    accepted: Bool = Field(description="Whether every condition that was measured holds.")
    criteria: tuple[Criterion, ...] = Field(description="The conditions.")
    not_measured: tuple[Text, ...] = Field(
        default=(), description="What could not be measured or attacked, and why."
    )

    @property
    def failed(self) -> tuple[Criterion, ...]:
        """The conditions that do not hold."""
        return tuple(criterion for criterion in self.criteria if criterion.passed is False)


class Decided(RecordPart):
    """A step ended with a decision."""

    step: Int = Field(description="Number of the step.")
    decision: Decision = Field(description="The decision.")
    patch_sha256: Text = Field(description="SHA-256 of the patch's tensors file.")
    manifest_sha256: Text = Field(description="SHA-256 of the patch's manifest.")
    scores: dict[Text, SubjectScore] = Field(
        default={}, description="Scores by what is scored: `kept`, or the id of a request."
    )
    certificates: dict[Text, Text] = Field(
        default={}, description="SHA-256 of each certificate.json, by request."
    )
    audited: tuple[Text, ...] = Field(
        default=(), description="Ids of earlier requests that were audited again."
    )
    not_audited: tuple[Text, ...] = Field(
        default=(), description="Ids of earlier requests whose photographs were not given."
    )
    seconds: Number = Field(default=None, description="Wall-clock time of unlearning (s).")


class Dropped(RecordPart):
    """An unfinished step was given up; its requests are as before it."""

    step: Int = Field(description="Number of the step.")


class Undone(RecordPart):
    """The steps from a number on were taken back; the model is as it was before them."""

    step: Int = Field(description="Number of the first step that was taken back.")
    undone: tuple[Text, ...] = Field(description="Ids of the requests that are undone.")
    again: tuple[Text, ...] = Field(
        default=(), description="Ids of later requests, which are to be run again."
    )


class Withdrawn(RecordPart):
    """A request that was not carried out was withdrawn."""

    id: Text = Field(description="The request's id.")


class Adopted(RecordPart):
    """A ledger that was moved or copied is used at its new place from here on."""


Body = (
    Created | Requested | Started | Decided | Dropped | Undone | Withdrawn | Adopted
)  # fmt: skip
KINDS: Mapping[str, type[Body]] = {
    kind.__name__.lower(): kind
    for kind in (Created, Requested, Started, Decided, Dropped, Undone, Withdrawn, Adopted)
}


@dataclass(frozen=True)
class Entry:
    """An entry as it is stored.

    Attributes:
        number: Its place in the ledger, from 1.
        time: When it was added (ISO 8601, UTC).
        body: What it says.
    """

    number: int
    time: str
    body: Body

    @property
    def kind(self) -> str:
        """The name of the kind of entry, such as "requested"."""
        return type(self.body).__name__.lower()


@dataclass
class Step:
    """One run, which answers one or several requests.

    Attributes:
        number: Number of the step, from 1.
        started: When it was begun (ISO 8601, UTC).
        entry: What it was begun with.
        ended: When it was decided, or given up.
        decided: Its result; None while it is unfinished.
        status: "running", "accepted", "rejected", "undone" or "dropped".
    """

    number: int
    started: str
    entry: Started
    ended: str | None = None
    decided: Decided | None = None
    status: str = "running"


@dataclass
class Request:
    """A request with its history.

    Attributes:
        id: Its id.
        created: When it was received (ISO 8601, UTC).
        entry: What was received.
        status: "new", "running" (begun and not finished), "accepted", "rejected", "undone" or
            "withdrawn".
        steps: The numbers of the steps that worked on it.
    """

    id: str
    created: str
    entry: Requested
    status: Status = "new"
    steps: list[int] = field(default_factory=list)


@dataclass
class LedgerState:
    """Requests, steps and deployed patches, as they follow from the entries of a ledger.

    Attributes:
        created: The first entry.
        requests: The requests by id, in the order in which they came.
        steps: The steps by number.
        stack: The numbers of the accepted steps whose patches are deployed, in order.
    """

    created: Created
    requests: dict[str, Request] = field(default_factory=dict)
    steps: dict[int, Step] = field(default_factory=dict)
    stack: list[int] = field(default_factory=list)

    @property
    def settings(self) -> LedgerSettings:
        """The model of the ledger, and how requests are answered."""
        return self.created.settings

    @property
    def unfinished(self) -> Step | None:
        """The step that was begun and not finished, if any; there is at most one."""
        return next((s for s in self.steps.values() if s.status == "running"), None)

    @property
    def pending(self) -> list[str]:
        """Ids of the requests that wait to be run."""
        return [r.id for r in self.requests.values() if r.status in PENDING]

    @property
    def forgotten(self) -> list[str]:
        """Ids of the requests that the deployed patches answer, in the order of the patches."""
        return [i for number in self.stack for i in self.steps[number].entry.requests]

    def last_score(self, subject: str) -> float | None:
        """The last score of a request or of "kept" after a deployed step, 0..1; None if none.

        Args:
            subject: A request's id, or "kept".
        """
        for number in reversed(self.stack):
            decided = self.steps[number].decided
            score = decided.scores.get(subject) if decided is not None else None
            if score is not None and score.after is not None:
                return score.after
        return None


def state_of(entries: Iterable[Entry]) -> LedgerState:
    """Computes the state of a ledger from its entries.

    Args:
        entries: All of them, in order; the first is `Created`.

    Raises:
        ValueError: If they contradict each other.
    """
    entries = list(entries)
    if not entries or not isinstance(entries[0].body, Created):
        raise ValueError("its first entry does not say what it is about")
    state = LedgerState(entries[0].body)
    for entry in entries[1:]:
        try:
            _add(state, entry)
        except KeyError as error:
            raise ValueError(f"entry {entry.number} is about {error}, which is unknown") from error
    return state


def _add(state: LedgerState, entry: Entry) -> None:
    """Changes the state by one entry."""
    body = entry.body
    if isinstance(body, Requested):
        state.requests[body.id] = Request(body.id, entry.time, body)
    elif isinstance(body, Started):
        state.steps[body.step] = Step(body.step, entry.time, body)
        for name in body.requests:
            state.requests[name].steps.append(body.step)
        _set(state, body.requests, "running")
    elif isinstance(body, Decided):
        step = state.steps[body.step]
        step.decided, step.ended = body, entry.time
        step.status = "accepted" if body.decision.accepted else "rejected"
        _set(state, step.entry.requests, "accepted" if body.decision.accepted else "rejected")
        if body.decision.accepted:
            state.stack.append(body.step)
    elif isinstance(body, Dropped):
        step = state.steps[body.step]
        step.status, step.ended = "dropped", entry.time
        for name in step.entry.requests:
            state.requests[name].status = _status_before(state, name, body.step)
    elif isinstance(body, Undone):
        for number in state.stack[state.stack.index(body.step) :]:
            state.steps[number].status = "undone"
        del state.stack[state.stack.index(body.step) :]
        _set(state, body.undone, "undone")
        _set(state, body.again, "new")
    elif isinstance(body, Withdrawn):
        _set(state, [body.id], "withdrawn")


def _set(state: LedgerState, names: Iterable[str], status: Status) -> None:
    for name in names:
        state.requests[name].status = status


def _status_before(state: LedgerState, name: str, step: int) -> Status:
    """The status of a request before a step that was given up."""
    ended = [state.steps[n] for n in state.requests[name].steps if n != step]
    last = next((s.status for s in reversed(ended) if s.status in ("rejected", "undone")), None)
    if last is None:
        return "new"
    return "rejected" if last == "rejected" else "undone"
