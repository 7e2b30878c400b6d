"""The Hugging Face hub: push what a run saved, and load a patch."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from unsee.api.inputs import Location, location_text, one
from unsee.artifacts.model_card import Kind
from unsee.artifacts.patch import Patch, open_patch
from unsee.errors import ConfigError, quoted
from unsee.hub.names import Repository, parse
from unsee.hub.uploads import require_token, upload
from unsee.runs.publishing import prepare

KINDS: tuple[Kind, ...] = ("patch", "model", "adapter")


@dataclass(frozen=True)
class Pushed:
    """The result of `push`.

    Attributes:
        repository: OWNER/NAME, with @REVISION if a branch was given.
        kind: What was uploaded: "patch", "model" or "adapter".
        files: Sizes of the uploaded files in bytes, by name.
        left_out: Files of the folder that were not uploaded.
        card: The model card.
        url: The page of the commit; None after a dry run.
        commit: The commit; None after a dry run.
    """

    repository: str
    kind: Kind
    files: dict[str, int]
    left_out: tuple[str, ...]
    card: str
    url: str | None = None
    commit: str | None = None


def push(
    run: Location,
    repo: str,
    *,
    what: Literal["patch", "model", "adapter"] | None = None,
    private: bool = False,
    revision: str | None = None,
    license: str | None = None,
    base_model: str | None = None,
    dry_run: bool = False,
) -> Pushed:
    """Uploads what a run saved to the Hugging Face hub, with a model card.

    Args:
        run: The folder of a run, of a patch, or of a checkpoint that `apply` wrote.
        repo: OWNER/NAME; it is made if it is missing.
        what: "patch", "model" or "adapter"; default: what was saved. With "model" the patch of a
            run is put on the run's model first.
        private: Whether a repository that is made is private.
        revision: The branch to upload to, made if it is missing; default: main.
        license: The license in the card; default: that of the base's card.
        base_model: The hub id of the base; default: that of the run's model.
        dry_run: Upload nothing, and return what would be uploaded.

    Returns:
        What was uploaded, and the commit.

    Raises:
        RunError: If the folder holds nothing of that kind, or one of its files may identify a
            person.
        HubError: If there is no token, or the hub cannot be reached or refuses it.

    Example:
        unsee.push("runs/job", "some-lab/some-model-forgets", dry_run=True).card
    """
    if what not in (None, *KINDS):
        raise ConfigError(f"what={quoted(what)} is not allowed: {', '.join(KINDS)} are.")
    repository = _repository("repo", repo).at(revision)
    base = None if base_model is None else _repository("base_model", base_model).id
    if not one("dry_run", dry_run, bool):
        require_token()
    source = Path(location_text("run", run))
    with prepare(source, repository, what, license, base) as prepared:
        pushed = Pushed(
            str(repository), prepared.kind, prepared.sizes, prepared.left_out, prepared.card
        )
        if dry_run:
            return pushed
        with prepared.staged() as folder:
            done = upload(folder, repository, f"Upload a {prepared.kind} made by unsee", private)
    return Pushed(**{**vars(pushed), "url": done.url, "commit": done.commit})


def load_patch(patch: Location) -> Patch:
    """Opens a visual patch, in a folder or on the Hugging Face hub.

    Args:
        patch: Its folder, or hub:OWNER/NAME[@REVISION], which is downloaded.

    Returns:
        The patch: `patch.apply(vlm)` puts it on a loaded model.

    Raises:
        PatchError: If it is missing or damaged.

    Example:
        vlm = unsee.VLM.load("some-lab/some-model", revision="v1.0")
        unsee.load_patch("hub:some-lab/some-model-forgets").apply(vlm)
    """
    return open_patch(location_text("patch", patch))


def _repository(argument: str, value: str) -> Repository:
    """A repository that is written to, or named in a card: OWNER/NAME without a revision."""
    found = parse(location_text(argument, value))
    if found is None or found.revision is not None:
        raise ConfigError(
            f"{argument}={quoted(value)} is not allowed: give OWNER/NAME, without a revision."
        )
    return found
