"""A ledger of deletion requests over one deployed model: new, run, undo, show."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from unsee.artifacts.manifest import MANIFEST, TENSORS
from unsee.artifacts.pseudonyms import Salt
from unsee.certificates import private_key_from_environment
from unsee.data.digests import salted_hash
from unsee.errors import ConfigError, RunError, UnknownNameError, UnseeError, listed, quoted
from unsee.files import refuse_nested, remove
from unsee.models.checkpoint import resolve
from unsee.progress import Bar
from unsee.records.folder import PARTS, STATE
from unsee.records.lock import exclusive, is_empty
from unsee.records.reader import Run
from unsee.requests.audit import audit_requests
from unsee.requests.decision import decide, scores_of_run
from unsee.requests.entries import (
    Adopted,
    Created,
    Decided,
    Dropped,
    LedgerSettings,
    LedgerState,
    Request,
    Started,
    Step,
    Undone,
    Withdrawn,
)
from unsee.requests.evidence import write_certificates
from unsee.requests.models import (
    RUN,
    base_hashes,
    check_base,
    deployed_model,
    patch_folder,
    patch_hashes,
    step_folder,
)
from unsee.requests.photographs import (
    Found,
    check_photographs,
    find_photographs,
    make_request,
    require_found,
    samples_of,
    without_names,
)
from unsee.requests.settings import PlannedStep, check_settings, model_folder, plan_step
from unsee.requests.store import FILE, Store
from unsee.runs import run as running
from unsee.runs.preflight import check_job
from unsee.types import Sample

LOGGER = logging.getLogger("unsee")

# The folder of a step in which earlier requests are audited; it is removed with the decision.
AUDIT = "audit"

BUSY = "name another ledger with --ledger"

# An id is part of file names and of keys of measures.
ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")

# Stand for the people to keep and for strangers, where ids stand for those to forget.
RESERVED = ("kept", "stranger")


class LedgerFolder:
    """A ledger of deletion requests over one deployed model.

    A folder with `ledger.sqlite` (the entries), `ledger.key` (its secret key), `steps/` (a folder
    for each run, with its patch) and `state/` (the deployed checkpoint, which can be removed at any
    time). The entries hold hashes, counts and request ids; no name, no path and no picture.

    Attributes:
        folder: Its folder.
        store: Its entries.
    """

    def __init__(self, folder: Path) -> None:
        """Opens a ledger.

        Raises:
            RunError: If there is none in the folder.
        """
        self.folder = folder
        self.store = Store.open(folder)

    @classmethod
    def create(cls, folder: Path, settings: LedgerSettings) -> LedgerFolder:
        """Creates a ledger over a deployed model.

        Args:
            folder: A folder that is empty or does not exist.
            settings: The model, and how requests are answered.

        Raises:
            UnseeError: If a setting or the model cannot be used, or the folder is not empty;
                nothing is written then.
        """
        read = {name: getattr(settings, name) for name in ("model", "retain", "strangers")}
        refuse_nested(folder, read.items(), "--ledger")
        check_settings(settings)
        if (folder / FILE).exists():
            raise RunError(
                f"{folder} holds a ledger already. Type: unsee request list --ledger {folder}; or "
                "name another folder with --ledger."
            )
        created = Created(settings=settings, base=base_hashes(model_folder(settings)))
        with exclusive(folder, BUSY):
            # A process that was killed while it made the ledger leaves these.
            ours = {".ledger.sqlite.partial", "ledger.key", ".ledger.key.partial"}
            if not is_empty(folder) and {p.name for p in folder.iterdir()} - ours:
                raise RunError(
                    f"{folder} is not empty and holds no ledger. Name another with --ledger."
                )
            Store.create(folder, created)
        return cls(folder)

    @property
    def state(self) -> LedgerState:
        """The requests, steps and deployed patches now."""
        return self.store.state()

    def request(self, name: str) -> Request:
        """A request by its id.

        Raises:
            UnknownNameError: If there is none.
        """
        return _request(self.state, name)

    def new(
        self,
        photos: str,
        name: str | None = None,
        remember: bool = False,
        box: str | None = None,
    ) -> Request:
        """Adds a request to forget the people on photographs; nothing is unlearned yet.

        Args:
            photos: A folder of photographs (one subfolder for each person, or flat), or a table
                with columns image, question, answer and concept.
            name: The request's id; default: the next of R1, R2, ...
            remember: Keep the path of the photographs in the ledger, so that they are found again
                without being named.
            box: The face to forget in the only photograph, x0,y0,x1,y1; it is kept in the ledger.

        Raises:
            ConfigError: If the id is not allowed, or given twice.
            DataError: If a photograph cannot be read, or the box does not fit.
        """
        if name is not None and not ID.fullmatch(name):
            raise ConfigError(
                f"--id {quoted(name)} is not allowed: give up to 64 letters, digits, '.', '_' and "
                "'-', the first a letter or a digit. It should not name the person."
            )
        self.store.check_place()
        checked = check_photographs(photos, box)

        def add(state: LedgerState) -> Any:
            _refuse_taken(name, state)
            chosen = name or _next_id(state)
            twice = self._asked_before(state, checked.pictures)
            entry = make_request(checked, chosen, self.store)
            return entry.model_copy(update={"notes": (*entry.notes, *twice)})

        place = str(Path(photos).resolve()) if remember and Path(photos).exists() else None
        if remember and place is None:
            place = photos
        state = self.store.append(add, place)
        return list(state.requests.values())[-1]

    def _asked_before(self, state: LedgerState, pictures: Sequence[Any]) -> list[str]:
        """A note for each earlier request that has some of the same photographs."""
        notes = []
        for request in state.requests.values():
            known = set(request.entry.photographs)
            salt = self.store.salt_of(request.id)
            same = len({salted_hash(picture, salt) for picture in pictures} & known)
            if same and request.status != "withdrawn":
                are = "is also one" if same == 1 else "are also those"
                notes.append(
                    f"{same} of the photographs {are} of request {request.id} ({request.status})"
                )
        return notes

    def write_salt(self, name: str, out: Path) -> None:
        """Writes the salt of a request's hashes, with which its photographs can be recognised.

        Args:
            name: The request's id.
            out: A file that does not exist; only the owner can read it.

        Raises:
            RunError: If it cannot be written.
        """
        self.request(name)
        if os.path.lexists(out):
            raise RunError(f"{out} exists. Name another file with --out.")
        Salt(self.store.salt_of(name), out, is_new=True, option="--out").keep()

    def run(
        self,
        names: Sequence[str] = (),
        photos: Sequence[str] = (),
        fields: Mapping[str, Any] | None = None,
        attacks: Sequence[str] | None = None,
        bar: Bar | None = None,
    ) -> list[Step]:
        """Answers requests; an interrupted one is continued by the same call.

        Args:
            names: Ids of the requests; several are answered together, in one step. Without any, all
                pending requests are answered, one step each, in the order in which they came.
            photos: Where the photographs are, of these and of earlier requests.
            fields: Fields of the method and of the training, in place of the ledger's.
            attacks: Attacks in place of the ledger's; empty makes none.
            bar: Shows the progress.

        Returns:
            The steps with their decisions.

        Raises:
            UnseeError: If a request, its photographs or the model cannot be used. What was decided
                before stays.
        """
        bar = bar or Bar(None)
        # A key that cannot sign is named before hours of training, not after them.
        private_key_from_environment()
        with exclusive(self.folder, BUSY):
            self.store.check_place()
            groups = self._groups(list(dict.fromkeys(names)))
            return [self._run(group, photos, fields or {}, attacks, bar) for group in groups]

    def _groups(self, names: Sequence[str]) -> list[list[str]]:
        """The requests of each step that is to be run; an unfinished step comes first."""
        state = self.state
        unfinished = state.unfinished
        for name in names:
            request = _request(state, name)
            if request.status == "accepted":
                raise RunError(
                    f"request {name} is accepted already, by step {request.steps[-1]}. To take it "
                    f"back, type: unsee request undo {name}"
                )
            if request.status == "withdrawn":
                raise RunError(f"request {name} was withdrawn. Make a new one: unsee request new.")
        if unfinished is None:
            groups = [list(names)] if names else [[name] for name in state.pending]
            if not groups:
                raise RunError("no request waits. Make one: unsee request new --photos DIR")
            return groups
        own = list(unfinished.entry.requests)
        if names and set(names) != set(own):
            raise RunError(
                f"step {unfinished.number} over {', '.join(own)} is unfinished. Finish it with "
                f"unsee request run {' '.join(own)}, or give it up with unsee request undo {own[0]}"
            )
        return [own] if names else [own, *([n] for n in state.pending if n not in own)]

    def _run(
        self,
        names: Sequence[str],
        photos: Sequence[str],
        fields: Mapping[str, Any],
        attacks: Sequence[str] | None,
        bar: Bar,
    ) -> Step:
        """Runs one step to its decision, or continues it."""
        bar.stage("reading photographs")
        state = self.state
        found = self._find(state, names, photos)
        require_found(found, names)
        source = model_folder(state.settings)
        bar.stage("checking the model")
        check_base(source, state.created.base)
        model = deployed_model(self.folder, state, source)
        earlier = {n: found.samples[n] for n in state.forgotten if n in found.samples}
        started = self._start(state, names, fields, attacks, tuple(earlier))
        # The photographs of a step that is continued are those that it was begun with.
        require_found(found, names, started.held)
        forget = {name: found.samples[name] for name in names}
        held = {name: found.samples[name] for name in started.held}
        planned = plan_step(state.settings, started, (resolve(source), model), forget, held)
        check_job(planned.job)
        for note in planned.notes:
            LOGGER.warning(note)
        if state.unfinished is None:
            self.store.append(lambda now: started)
        out = step_folder(self.folder, started.step) / RUN
        try:
            record = running.run(planned.job, out, bar)
        except UnseeError:
            if not out.is_dir() or is_empty(out):
                # Refused before anything was done, so that other settings can be tried.
                self.store.append(lambda now: Dropped(step=started.step))
            raise
        if record is None:
            raise RunError("a ledger's step runs in one process. Start it without a launcher.")
        return self._decide(planned, record, earlier, bar)

    def _find(self, state: LedgerState, names: Sequence[str], photos: Sequence[str]) -> Found:
        """The photographs of the requests to answer, and of those answered before."""
        wanted = [state.requests[name] for name in dict.fromkeys([*names, *state.forgotten])]
        places = self.store.places()
        remembered = [
            places[r.id] for r in wanted if r.id in places and Path(places[r.id]).exists()
        ]
        return find_photographs([*photos, *remembered], wanted, self.store)

    def _start(
        self,
        state: LedgerState,
        names: Sequence[str],
        fields: Mapping[str, Any],
        attacks: Sequence[str] | None,
        held: tuple[str, ...],
    ) -> Started:
        """The entry of a new step, or the one of the step that is to be continued."""
        given = None if attacks is None else tuple(attacks)
        unfinished = state.unfinished
        if unfinished is None:
            number = max(state.steps, default=0) + 1
            return Started(
                step=number, requests=tuple(names), set=dict(fields), attacks=given, held=held
            )
        entry = unfinished.entry
        if (fields and dict(fields) != entry.set) or (given is not None and given != entry.attacks):
            raise ConfigError(
                f"step {entry.step} over {', '.join(names)} is unfinished and was begun with other "
                "settings. Type the same command as before, or give the step up with unsee request "
                f"undo {names[0]}"
            )
        return entry

    def _decide(
        self,
        planned: PlannedStep,
        record: Run,
        earlier: Mapping[str, Sequence[Sample]],
        bar: Bar,
    ) -> Step:
        """Audits, decides, writes the certificates, and adds the decision."""
        state, summary = self.state, record.summary
        step = max(state.steps)
        patch = patch_folder(self.folder, step)
        folder = step_folder(self.folder, step) / AUDIT
        own = planned.requests
        asked = {name: without_names(samples, name) for name, samples in earlier.items()}
        if len(own) > 1:
            held = planned.job.splits.get("forget_holdout") or ()
            asked |= {name: _tested(name, held, planned.job.data.forget) for name in own}
        audited = audit_requests(planned.job, patch, asked, folder, bar)
        scores = {**scores_of_run(planned, summary), **audited}
        not_audited = tuple(name for name in state.forgotten if name not in audited)
        decision = decide(planned, summary, scores, state, not_audited)
        bar.stage("writing the certificate")
        certificates = write_certificates(self.store, state, record, decision, scores)
        # Answers and features of the audit may name people.
        remove(folder)
        hashes = patch_hashes(patch)
        decided = Decided(
            step=step,
            decision=decision,
            patch_sha256=hashes[TENSORS],
            manifest_sha256=hashes[MANIFEST],
            scores=scores,
            certificates=certificates,
            audited=tuple(name for name in state.forgotten if name in audited),
            not_audited=not_audited,
            seconds=summary.cost.seconds if summary.cost is not None else None,
        )
        return self.store.append(lambda now: decided).steps[step]

    def undo(self, name: str, later: bool = False) -> LedgerState:
        """Takes a request back: the deployed model is again as it was before it, bit for bit.

        A request that was not carried out is withdrawn, and one that was begun is given up.

        Args:
            name: The request's id.
            later: Also take back the requests that were answered after it; they are then pending,
                to be run again from the state before it.

        Raises:
            RunError: If later requests were answered on top of it and `later` is not set.
        """
        with exclusive(self.folder, BUSY):
            state = self.state
            request = _request(state, name)
            unfinished = state.unfinished
            if request.status == "running" and unfinished is not None:
                state = self.store.append(lambda now: Dropped(step=unfinished.number))
                _remove_unfinished(step_folder(self.folder, unfinished.number))
                return state
            if request.status in ("new", "rejected"):
                self.store.forget_place(name)
                return self.store.append(lambda now: Withdrawn(id=name))
            if request.status != "accepted":
                raise RunError(f"request {name} is {request.status} already.")
            if unfinished is not None:
                own = " ".join(unfinished.entry.requests)
                raise RunError(
                    f"step {unfinished.number} over {own} is unfinished. Finish it with unsee "
                    f"request run {own}, or give it up with unsee request undo "
                    f"{unfinished.entry.requests[0]}"
                )
            first = next(n for n in state.stack if name in state.steps[n].entry.requests)
            above = state.stack[state.stack.index(first) :]
            others = [i for n in above for i in state.steps[n].entry.requests if i != name]
            if others and not later:
                raise RunError(
                    f"request {name} was answered before or together with {listed(others, 10)}, "
                    "whose patches contain it or were made on top of it. To take all of them back, "
                    f"and then run {'those' if others[1:] else 'that one'} again, type: "
                    f"unsee request undo {name} --later"
                )
            return self.store.append(
                lambda now: Undone(step=first, undone=(name,), again=tuple(others))
            )

    def adopt(self) -> LedgerState:
        """Uses a ledger that was moved or copied at its new place from now on."""
        with exclusive(self.folder, BUSY):
            return self.store.append(lambda now: Adopted())


def _remove_unfinished(step: Path) -> None:
    """Removes what a step that was given up leaves: half-trained weights, answers and features."""
    for path in (step / AUDIT, step / RUN / STATE, step / RUN / PARTS):
        remove(path)


def _request(state: LedgerState, name: str) -> Request:
    if name not in state.requests:
        raise UnknownNameError("request", name, state.requests, None)
    return state.requests[name]


def _refuse_taken(name: str | None, state: LedgerState) -> None:
    """Refuses an id that another request has, also with other capitals: folders are called so.

    Raises:
        ConfigError: If it is taken.
    """
    if name is None:
        return
    if name.lower() in RESERVED:
        raise ConfigError(
            f"--id {name} is not allowed: a ledger calls the people to keep, or strangers, so. "
            "Give another id, or leave --id out."
        )
    taken = next((i for i in state.requests if i.lower() == name.lower()), None)
    if taken is not None:
        raise ConfigError(
            f"--id {name}: the ledger has this request already (see `unsee request show "
            f"{taken}`). Give another id, or leave --id out."
        )


def _next_id(state: LedgerState) -> str:
    number = len(state.requests) + 1
    while f"r{number}" in {name.lower() for name in state.requests}:
        number += 1
    return f"R{number}"


def _tested(request: str, held: Sequence[Sample], trained: Sequence[Sample]) -> list[Sample]:
    """The photographs of a request that its audit tests: those held out, or all if they are few.

    A photograph is only found again where there is another one of its person.

    Args:
        request: The request.
        held: What was held out, of all requests of the step.
        trained: What was trained on.
    """
    own = samples_of(request, held)
    few = len({sample.picture for sample in own}) < 2
    return [*own, *samples_of(request, trained)] if few else own
