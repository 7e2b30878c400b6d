"""Uploads of folders to the hub, as one commit."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from unsee.errors import HubError, first_line
from unsee.hub.names import Repository
from unsee.hub.xet import advice


@dataclass(frozen=True)
class Uploaded:
    """The result of an upload.

    Attributes:
        url: The page of the commit.
        commit: The name of the commit.
    """

    url: str
    commit: str


def require_token() -> None:
    """Checks that there is a token to write with, before anything is prepared.

    Raises:
        HubError: If there is none.
    """
    from huggingface_hub import constants, get_token

    if get_token() is None:
        raise HubError(
            f"nothing was uploaded: the hub ({constants.ENDPOINT}) needs a token that may write. "
            "Make one in the settings of your account, then type `hf auth login`, or set HF_TOKEN."
        )


def upload(folder: Path, repository: Repository, message: str, private: bool = False) -> Uploaded:
    """Uploads the files of a folder; the repository and the branch are made if they are missing.

    Args:
        folder: The folder; all of its files are uploaded.
        repository: Where to; its revision is the branch.
        message: The first line of the commit's message.
        private: Whether a repository that is made is private.

    Raises:
        HubError: If the hub cannot be reached or refuses it.
    """
    from huggingface_hub import HfApi

    require_token()
    api = HfApi(library_name="unsee")
    try:
        api.create_repo(repository.id, private=private, exist_ok=True)
        if repository.revision is not None:
            api.create_branch(repository.id, branch=repository.revision, exist_ok=True)
        done = api.upload_folder(
            repo_id=repository.id,
            folder_path=folder,
            revision=repository.revision,
            commit_message=message,
        )
    except Exception as failure:
        raise HubError(_refusal(failure, repository)) from failure
    return Uploaded(str(done.commit_url), str(done.oid))


def _refusal(failure: Exception, repository: Repository) -> str:
    """The message for an upload that failed."""
    from huggingface_hub import constants, errors

    place = f"{repository} was not uploaded"
    response = getattr(failure, "response", None)
    status = response.status_code if response is not None else None
    if isinstance(failure, errors.OfflineModeIsEnabled):
        return f"{place}, because HF_HUB_OFFLINE keeps the hub from being asked. Unset it."
    if status in (401, 403, 404):
        owner = repository.id.partition("/")[0]
        return (
            f"{place}: the hub refuses the token (HTTP {status}: {first_line(failure)}). It must "
            f"be allowed to write to {owner}: type `hf auth whoami` to see whose it is, and "
            "`hf auth login` for another."
        )
    return (
        f"{place}, or not completely: {constants.ENDPOINT} did not take it "
        f"({first_line(failure)}). Type the command again; what is there already is not sent twice."
        f"{advice(failure)}"
    )
