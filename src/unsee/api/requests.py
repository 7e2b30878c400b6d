"""A ledger of deletion requests over one deployed model, as the public API has it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypedDict, Unpack

from pydantic import ValidationError

from unsee.api.inputs import Location, Progress, listed, location_text, mapping, source_of
from unsee.errors import ConfigError, RunError
from unsee.progress import as_bar
from unsee.requests.entries import LedgerSettings, LedgerState, Request, Step
from unsee.requests.ledger import LedgerFolder
from unsee.requests.view import export, ledger_values, show_values


class LedgerOptions(TypedDict, total=False):
    """Further arguments of `create_ledger`.

    Attributes:
        strangers: Pictures of people whom the model does not know.
        method: Name of the unlearning method.
        attacks: Attacks on every result, as text as after `--attack`; () makes none.
        forget_margin: Score above chance, 0..1, up to which a person counts as forgotten.
        keep_margin: Loss of score since the ledger began, 0..1, up to which the others are kept.
        attack_margin: Score above chance up to which an attack counts as resisted; None reports
            what attacks recover and does not decide by it.
        fields: Fields of the method and of the training.
        redact: Keep names, questions, answers and paths out of the run folders; default: True.
        seed: Seed of the first step.
        device: "auto" (a GPU if there is one), "cpu" or "cuda".
        trust_remote_code: Allow the checkpoint's own Python code to run.
    """

    strangers: Location | None
    method: str
    attacks: Sequence[str]
    forget_margin: float
    keep_margin: float
    attack_margin: float | None
    fields: Mapping[str, Any]
    redact: bool
    seed: int
    device: str
    trust_remote_code: bool


class Ledger:
    """A ledger of deletion requests over one deployed model.

    Each request is answered by a step: unlearning from the model as the last request left it, a
    patch on top of the earlier ones, evaluation, attacks, an audit of everyone forgotten before and
    of those who are kept, and a decision at the declared margins. The ledger keeps hashes and ids;
    no name, no path and no picture.

    Example:
        ledger = unsee.create_ledger("ledger", "checkpoints/llava-7b", retain="photos/others")
        ledger.new("photos/anna", id="2026-17")
        ledger.run(photos=["photos/anna"])[0].decided.decision.accepted
    """

    def __init__(self, opened: LedgerFolder) -> None:
        """Wraps an opened ledger; `create_ledger` and `open_ledger` make one."""
        self._folder = opened

    @property
    def folder(self) -> Path:
        """The ledger's folder."""
        return self._folder.folder

    @property
    def state(self) -> LedgerState:
        """The requests, steps and deployed patches now."""
        return self._folder.state

    def new(
        self,
        photos: Location,
        *,
        id: str | None = None,
        remember_path: bool = False,
        box: str | None = None,
    ) -> Request:
        """Adds a request to forget the people on photographs; nothing is unlearned yet.

        Args:
            photos: A folder of photographs (one subfolder for each person, or flat), or a table
                with columns image, question, answer and concept.
            id: The request's id; default: the next of R1, R2, ...
            remember_path: Keep the path in the ledger, so that the photographs are found again.
            box: The face to forget in the only photograph, as "x0,y0,x1,y1"; everyone else on it is
                kept. For several photographs, write a boxes.csv beside them.

        Returns:
            The request, with what the data check found in `entry.notes`.

        Raises:
            ConfigError: If the id is not allowed, or given twice.
            DataError: If a photograph cannot be read, or the box does not fit.
        """
        return self._folder.new(location_text("photos", photos), id, remember_path, box)

    def run(
        self,
        *ids: str,
        photos: Location | Sequence[Location] = (),
        fields: Mapping[str, Any] | None = None,
        attacks: Sequence[str] | None = None,
        progress: Progress = None,
    ) -> list[Step]:
        """Answers requests; an interrupted one is continued by the same call.

        Args:
            *ids: The requests; several are answered together, in one step. Without any, all that
                wait are answered, one step each.
            photos: Where the photographs are, of these and of earlier requests; default: the
                remembered paths.
            fields: Fields of the method and of the training, in place of the ledger's.
            attacks: Attacks in place of the ledger's; () makes none.
            progress: As for `unlearn`.

        Returns:
            The steps, each with its decision.

        Raises:
            DataError: If photographs of a request to answer are not found.
            UnseeError: If the model was changed, or a setting does not fit.
        """
        places = [photos] if isinstance(photos, str | Path) else list(photos)
        return self._folder.run(
            listed("ids", list(ids), str),
            [location_text("photos", place) for place in places],
            mapping("fields", fields or {}),
            None if attacks is None else listed("attacks", attacks, str),
            as_bar(progress),
        )

    def undo(self, id: str, *, later: bool = False) -> LedgerState:
        """Takes a request back: the model is again as it was before it, bit for bit.

        Args:
            id: The request. One that was not carried out is withdrawn.
            later: Also take back the requests that were answered after it, to be run again.

        Returns:
            The state of the ledger afterwards.

        Raises:
            RunError: If later requests were answered on top of it and `later` is not set.
        """
        return self._folder.undo(id, later)

    def show(self, id: str) -> dict[str, Any]:
        """Returns everything that the ledger says of a request.

        Args:
            id: The request.

        Raises:
            UnknownNameError: If there is no such request.
        """
        return show_values(self._folder, id)

    def write_salt(self, id: str, out: Location) -> None:
        """Writes the salt of the hashes of a request's photographs, for `certificate verify`.

        Whoever has it and a photograph can tell whether the request was about that photograph.

        Args:
            id: The request.
            out: A file that does not exist; only you can read it.

        Raises:
            UnseeError: If there is no such request, or the file cannot be written.
        """
        self._folder.write_salt(id, Path(location_text("out", out)))

    def values(self) -> dict[str, Any]:
        """The whole ledger as plain values: settings, requests, steps and deployed patches."""
        return ledger_values(self.state)

    def export(self, out: Location, *, checkpoint: bool = False) -> dict[str, Any]:
        """Writes the deployed patches and the decisions, and the checkpoint if asked for.

        Args:
            out: Folder to write.
            checkpoint: Also write the model with all deployed patches on it.

        Returns:
            What was written.

        Raises:
            UnseeError: If a patch or the base was altered, or `out` is not empty.
        """
        return export(self._folder, Path(location_text("out", out)), checkpoint)

    def adopt(self) -> LedgerState:
        """Uses a ledger that was moved or copied at its new place from now on."""
        return self._folder.adopt()


def create_ledger(
    folder: Location,
    model: Location,
    *,
    retain: Location | None = None,
    **options: Unpack[LedgerOptions],
) -> Ledger:
    """Creates a ledger of deletion requests over a deployed model.

    Args:
        folder: A folder that is empty or does not exist.
        model: The deployed checkpoint.
        retain: Images or samples that the model must still recognise; with answers, they show
            after every request how much of them is kept.
        **options: See `LedgerOptions`.

    Returns:
        The ledger, without a request.

    Raises:
        ConfigError: If an option is not allowed.
        UnseeError: If the model cannot be used, or the folder is not empty.

    Example:
        ledger = unsee.create_ledger("ledger", "pocket:target", retain="pocket:retain")
    """
    source_of(model)
    given: dict[str, Any] = {"model": _kept_location("model", model)}
    for name, place in (("retain", retain), ("strangers", options.get("strangers"))):
        if place is not None:
            given[name] = _kept_location(name, place)
    given["set"] = mapping("fields", options.get("fields", {}))
    if "attacks" in options:
        given["attacks"] = tuple(listed("attacks", options["attacks"], str))
    plain = ("method", "forget_margin", "keep_margin", "attack_margin", "redact", "seed", "device")
    given |= {k: options[k] for k in (*plain, "trust_remote_code") if k in options}  # type: ignore[literal-required]
    try:
        settings = LedgerSettings(**given)
    except ValidationError as error:
        first = error.errors()[0]
        raise ConfigError(f"{first['loc'][0]}: {first['msg']}.") from error
    return Ledger(LedgerFolder.create(Path(location_text("folder", folder)), settings))


def open_ledger(folder: Location) -> Ledger:
    """Opens a ledger of deletion requests.

    Args:
        folder: Its folder.

    Returns:
        The ledger.

    Raises:
        RunError: If there is none in the folder, it was altered, or its key is missing.

    Example:
        [request.id for request in unsee.open_ledger("ledger").state.requests.values()]
    """
    ledger = Ledger(LedgerFolder(Path(location_text("folder", folder))))
    if not ledger.folder.is_dir():
        raise RunError(f"{folder} is no folder.")
    return ledger


def _kept_location(argument: str, place: Location) -> str:
    """A location as the ledger keeps it: absolute if it is on this disk, so that it stays right."""
    text = location_text(argument, place)
    return str(Path(text).resolve()) if Path(text).exists() else text
