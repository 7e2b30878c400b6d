"""Repositories of the hub as folders, each at one commit for as long as the process runs."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from contextlib import suppress
from fnmatch import fnmatch
from pathlib import Path
from typing import Literal

from unsee.errors import UnseeError, counted, first_line, listed
from unsee.hub.names import Repository, find
from unsee.hub.xet import advice

Kind = Literal["model", "dataset"]

# The folder of each repository that was read, called like its commit. A branch may move while a
# run reads it.
_folders: dict[tuple[Kind, Repository], Path] = {}

# The patterns of the files that are in it.
_complete: set[tuple[Path, tuple[str, ...]]] = set()

MOST_REVISIONS = 8


def snapshot(
    repository: Repository,
    kind: Kind,
    patterns: Sequence[str],
    label: str,
    error: type[UnseeError],
    needed: Sequence[str] | None = None,
) -> Path:
    """The folder of a repository's files at its commit; those that are missing are downloaded.

    Args:
        repository: The repository.
        kind: Whether it is one of models or of data sets.
        patterns: Patterns of the files to download.
        label: What it is read for, to begin messages with, such as "model ".
        error: The error that is raised.
        needed: Patterns of which a file must match one; None is `patterns`.

    Raises:
        UnseeError: If the hub cannot be reached, has no such repository, revision or file, or does
            not let this account read it.
    """
    from huggingface_hub import snapshot_download

    known, wanted = _folders.get((kind, repository)), tuple(patterns)
    if known is not None and (known, wanted) in _complete and known.is_dir():
        return known
    revision = known.name if known is not None else repository.revision
    try:
        folder = Path(
            snapshot_download(
                repository.id, repo_type=kind, revision=revision, allow_patterns=list(wanted)
            )
        )
    except Exception as failure:
        raise error(explain(failure, repository, kind, label)) from failure
    needed = patterns if needed is None else needed
    names = (path.relative_to(folder).as_posix() for path in folder.rglob("*"))
    # As the client matches the patterns.
    if not any(fnmatch(name, pattern) for name in names for pattern in needed):
        raise error(_no_such_file(repository, kind, needed, label, folder.name))
    _folders[kind, repository] = folder
    _complete.add((folder, wanted))
    return folder


def commit_of(repository: Repository, kind: Kind) -> str | None:
    """The commit that `snapshot` read in this process; None if it read none."""
    folder = _folders.get((kind, repository))
    return folder.name if folder is not None else None


def commits(locations: Iterable[str | Path], kind: Kind) -> dict[str, str]:
    """The commit of each location that was read from the hub, by OWNER/NAME[@REVISION].

    Args:
        locations: As they were given, or the folders that `snapshot` returned.
        kind: Whether they are of models or of data sets.
    """
    given = {str(location) for location in locations}
    named = {find(location) for location in given}
    return {
        str(repository): folder.name
        for (of, repository), folder in _folders.items()
        if of == kind and (str(folder) in given or repository in named)
    }


def explain(failure: Exception, repository: Repository, kind: Kind, label: str) -> str:
    """The message for a failure on the hub: what was tried, why it failed, and what to type.

    Args:
        failure: What the client raised.
        repository: The repository.
        kind: Whether it is one of models or of data sets.
        label: What it is used for, to begin the message with, such as "model ".
    """
    from huggingface_hub import constants, errors

    what = "model" if kind == "model" else "data set"
    place = f"{label}'{repository}'"
    where = f"{constants.ENDPOINT}/{'datasets/' if kind == 'dataset' else ''}{repository.id}"
    download = f"hf download {repository.id}{' --repo-type dataset' if kind == 'dataset' else ''}"
    download += f" --revision {repository.revision}" if repository.revision else ""
    chain = [failure, failure.__cause__, failure.__context__]
    response = getattr(failure, "response", None)
    status = f" (HTTP {response.status_code})" if response is not None else ""
    # A gated repository is a subclass of one that is not found.
    if isinstance(failure, errors.GatedRepoError):
        return (
            f"{place}: the hub keeps this {what} for accounts that its owner has admitted{status}. "
            f"Ask for access at {where}, then type `hf auth login` (or set HF_TOKEN)."
        )
    if isinstance(failure, errors.RepositoryNotFoundError):
        return (
            f"{place}: no such folder, and no {what} of that name at {where} that this account may "
            f"read{status}. Check the spelling; if it is private, type `hf auth login` (or set "
            "HF_TOKEN)."
        )
    if isinstance(failure, errors.RevisionNotFoundError):
        return f"{place}: {repository.id} has no revision '{repository.revision or 'main'}'. " + (
            _revisions(repository, kind)
        )
    if any(isinstance(one, errors.OfflineModeIsEnabled) for one in chain):
        return (
            f"{place}: no such folder, it was not downloaded before, and HF_HUB_OFFLINE keeps the "
            f"hub from being asked. Type `{download}` where the hub can be reached, or unset "
            "HF_HUB_OFFLINE."
        )
    if response is not None and response.status_code in (401, 403):
        return (
            f"{place}: the hub refuses the token of this account{status}: "
            f"{first_line(failure)}. Type `hf auth login`, or set HF_TOKEN to a valid one."
        )
    cause = next((one for one in reversed(chain) if one is not None), failure)
    return (
        f"{place}: no such folder, it was not downloaded before, and the hub did not provide it "
        f"from {where} ({first_line(cause)}). Check the network (and HF_ENDPOINT, if it is set) "
        f"and type the command again, type `{download}` elsewhere, or give a local folder."
        f"{advice(cause)}"
    )


def _revisions(repository: Repository, kind: Kind) -> str:
    """The revisions that there are, the nearest first, as far as the hub tells them."""
    from huggingface_hub import HfApi

    names: list[str] = []
    # The message stands without them where the hub does not list them.
    with suppress(Exception):
        refs = HfApi().list_repo_refs(repository.id, repo_type=kind)
        names = [ref.name for ref in (*refs.branches, *refs.tags)]
    if not names:
        return f"Type {repository.id} for its newest commit, or another revision after the @."
    near = difflib.get_close_matches(repository.revision or "", names, 1, 0.5)
    shown = [*near, *(name for name in names if name not in near)]
    return (
        f"It has {listed(shown, MOST_REVISIONS)}. Type {repository.id}@{shown[0]}, or a commit "
        "after the @."
    )


def _no_such_file(
    repository: Repository, kind: Kind, patterns: Sequence[str], label: str, commit: str
) -> str:
    """The message for a repository that has none of the files."""
    from huggingface_hub import HfApi

    wanted = " or ".join((*patterns[:3], *(["..."] if len(patterns) > 3 else [])))
    try:
        files = sorted(HfApi().list_repo_files(repository.id, repo_type=kind, revision=commit))
    except Exception as failure:
        return explain(failure, repository, kind, label)
    has = f"{counted(len(files), 'file')}: {listed(files)}" if files else "no file"
    return (
        f"{label}'{repository}': commit {commit[:12]} has no file {wanted}. It has {has}. Type "
        "another revision (OWNER/NAME@REVISION), or give a local folder."
    )
