"""Names of repositories as they are typed: [hub:]OWNER/NAME[@REVISION]."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, replace
from os import PathLike

from unsee.errors import ConfigError, quoted

PREFIX = "hub:"

# The owner and the name of a repository, and a branch, a tag or a commit.
_ID = r"[A-Za-z0-9][\w.-]*/[\w.-]*\w"
_REVISION = r"\w[\w./+-]*"
_NAME = re.compile(rf"(?P<id>{_ID})(?:@(?P<revision>{_REVISION}))?")


@dataclass(frozen=True)
class Repository:
    """A repository on the hub.

    Attributes:
        id: Its owner and name, OWNER/NAME.
        revision: A branch, a tag or a commit; None is the branch "main".
    """

    id: str
    revision: str | None = None

    def __str__(self) -> str:
        """The repository as it is typed, OWNER/NAME[@REVISION]."""
        return self.id if self.revision is None else f"{self.id}@{self.revision}"

    def at(self, revision: str | None) -> Repository:
        """The repository at another revision."""
        return replace(self, revision=revision)


def parse(text: str) -> Repository | None:
    """The repository that a text spells; None if it spells none. No folder is looked for.

    Example:
        >>> parse("hub:some-lab/some-model@v1.0")
        Repository(id='some-lab/some-model', revision='v1.0')
    """
    match = _NAME.fullmatch(text.removeprefix(PREFIX))
    return Repository(match["id"], match["revision"]) if match is not None else None


def find(location: str | PathLike[str]) -> Repository | None:
    """The repository that a location names; None if it is a path.

    A file or folder of that name takes precedence, unless the location begins with "hub:".

    Raises:
        ConfigError: If it begins with "hub:" and is not OWNER/NAME[@REVISION].
    """
    text = str(location)
    if not text.startswith(PREFIX):
        return None if os.path.exists(text) else parse(text)
    repository = parse(text)
    if repository is None:
        raise ConfigError(
            f"{quoted(text)} is no repository of the hub. Type hub:OWNER/NAME, or "
            "hub:OWNER/NAME@REVISION for a branch, a tag or a commit."
        )
    return repository
