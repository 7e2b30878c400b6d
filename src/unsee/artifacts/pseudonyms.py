"""Pseudonyms: keyed hashes that stand for people, samples, pictures and places in a redacted run.

Without the key nobody can tell whom a pseudonym stands for, even with the photograph or a list of
names; with it, the controller can. The key is in a file of its own, never in the run folder.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import re
import secrets
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from unsee.data.digests import salt_id
from unsee.errors import ConfigError, RunError, first_line
from unsee.files import is_regular, path_text
from unsee.types import Picture

# Names the file with the key, if --salt does not.
VARIABLE = "UNSEE_SALT"

# Shorter keys could be guessed.
LEAST_BYTES, MOST_BYTES = 16, 4096

# What a pseudonym looks like, so that purging a run twice changes nothing.
PSEUDONYM = re.compile(r"(?:person|sample|picture|group|redacted|run)-[0-9a-f]{12}")


@dataclass(frozen=True)
class Pseudonyms:
    """Keyed hashes (HMAC-SHA-256) under one key.

    Attributes:
        key: The key (salt), which only the controller has.

    Example:
        >>> pseudonyms = Pseudonyms(b"a key of sixteen bytes or more")
        >>> pseudonyms.name("person", "Ada Berg") == pseudonyms.name("person", "Ada Berg")
        True
        >>> pseudonyms.name("person", "Ada Berg")[:7]
        'person-'
    """

    key: bytes = field(repr=False)

    def name(self, kind: str, text: str) -> str:
        """Returns the pseudonym of a text, such as "person-1f0c2a5b9d3e".

        Args:
            kind: What it stands for: person, sample, group, picture, redacted (a place) or run.
            text: The name, id or place; a pseudonym is returned as it is.
        """
        if PSEUDONYM.fullmatch(text):
            return text
        return f"{kind}-{self.digest(kind, text)[:12]}"

    def digest(self, kind: str, text: str) -> str:
        """Returns the keyed hash of a text, 64 hexadecimal digits; of each kind another."""
        message = f"{kind}\0{text}".encode("utf-8", "surrogatepass")
        return hmac.new(self.key, message, hashlib.sha256).hexdigest()

    def pictures(self, pictures: Iterable[Picture]) -> str:
        """Returns the keyed hash over the pixels of some pictures, in any order."""
        return self.digest("pictures", "\n".join(sorted({p.digest for p in pictures})))

    def picture(self, digest: str) -> str:
        """Returns the keyed hash of a picture, as `unsee.data.digests.salted_hash` does.

        Args:
            digest: SHA-256 of its decoded pixels.
        """
        return hmac.new(self.key, bytes.fromhex(digest), hashlib.sha256).hexdigest()

    @property
    def key_id(self) -> str:
        """Identifies the key without revealing it, so that another key is noticed."""
        return salt_id(self.key)


@dataclass(frozen=True)
class Salt:
    """A key and the file that it is in, or will be written to.

    Attributes:
        key: The key.
        path: The file.
        is_new: Whether the file does not exist yet.
        option: The option that names the file.
    """

    key: bytes = field(repr=False)
    path: Path
    is_new: bool = False
    option: str = "--salt"

    def keep(self) -> None:
        """Writes a new key to its file, which only the owner can read.

        Raises:
            RunError: If it cannot be written, or another process has written another key meanwhile.
        """
        if not self.is_new:
            return
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            # A file where the folder should be.
            raise self._not_written(error) from error
        try:
            descriptor = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        except FileExistsError as error:
            if read_key(self.path) == self.key:
                return
            raise RunError(
                f"another process has written the key {self.path} meanwhile. Type the same command "
                "again."
            ) from error
        except OSError as error:
            raise self._not_written(error) from error
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(self.key)
        except OSError as error:
            with suppress(OSError):
                self.path.unlink()
            raise self._not_written(error) from error

    def _not_written(self, error: OSError) -> RunError:
        return RunError(
            f"the key {self.path} cannot be written ({error.strerror or error}). Name another "
            f"file: {self.option} FILE."
        )


def find_salt(given: str | Path | None, out: Path) -> Salt:
    """Returns the key of a run: from the file given, else the one beside the run folder.

    A file that does not exist gets a new random key, when the run begins.

    Args:
        given: The file that `--salt` names; None for that of the environment variable UNSEE_SALT,
            else OUT.salt beside the run folder.
        out: The run folder.

    Raises:
        ConfigError: If the file cannot be read, is in the run folder, or its key is too short.
    """
    named = given if given is not None else os.environ.get(VARIABLE) or None
    folder = Path(os.path.abspath(out))
    if named is None:
        path = folder.with_name(f"{folder.name or 'run'}.salt")
    else:
        path = Path(path_text("salt=", named, "give a file, such as salt=keys/request.salt."))
    if Path(os.path.realpath(path)).is_relative_to(Path(os.path.realpath(folder))):
        raise ConfigError(
            f"salt={path} is in the run folder, which would then hold the key of its own "
            "pseudonyms. Name a file elsewhere: --salt FILE."
        )
    if not path.exists():
        return Salt(secrets.token_hex(32).encode(), path, is_new=True)
    return Salt(read_key(path), path)


def read_key(path: Path) -> bytes:
    """The key in a file, without white space around it.

    Raises:
        ConfigError: If it cannot be read, or is too short or too long.
    """
    if not is_regular(path):
        raise ConfigError(f"salt={path} is no ordinary file. Name a file: --salt FILE.")
    try:
        with path.open("rb") as file:
            key = file.read(MOST_BYTES + 1).strip()
    except OSError as error:
        raise ConfigError(
            f"salt={path} cannot be read ({first_line(error)}). Give the file with the key, or "
            "the name of a new one."
        ) from error
    if not LEAST_BYTES <= len(key) <= MOST_BYTES:
        raise ConfigError(
            f"salt={path} holds {len(key)} bytes; a key has {LEAST_BYTES} to {MOST_BYTES:,}. Name "
            "a file that does not exist, and a random key is made."
        )
    return key
