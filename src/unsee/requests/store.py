"""The file of a ledger: entries in SQLite, each sealed with a keyed hash of all before it."""

from __future__ import annotations

import hashlib
import hmac
import json
import logging
import os
import secrets
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from pathlib import Path

from pydantic import ValidationError

from unsee.errors import RunError, first_line
from unsee.files import is_read_by_others, is_regular, make_folder, write_atomically
from unsee.requests.entries import (
    KINDS,
    Adopted,
    Body,
    Created,
    Entry,
    LedgerState,
    Requested,
    state_of,
)

LOGGER = logging.getLogger("unsee")

FILE, KEY = "ledger.sqlite", "ledger.key"

# Says which program's file it is, and of which version of the tables.
APPLICATION, VERSION = 0x756E7365, 1

# How long a process waits (s) while another one adds an entry.
PATIENCE = 10.0

TABLES = """
CREATE TABLE entries (
  number INTEGER PRIMARY KEY, time TEXT NOT NULL, kind TEXT NOT NULL, body TEXT NOT NULL,
  seal TEXT NOT NULL
);
CREATE TABLE facts (name TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE places (request TEXT PRIMARY KEY, path TEXT NOT NULL);
"""

BACKUP = "Restore the ledger's folder from a backup."


class Store:
    """The entries of a ledger on disk.

    Attributes:
        folder: The ledger's folder.
        key: The ledger's secret key, 32 bytes. It seals the entries and hashes the photographs, so
            that whoever holds a photograph, but not the key, cannot find it in the ledger.
    """

    def __init__(self, folder: Path, key: bytes) -> None:
        """Refers to a ledger that exists; `open` and `create` check it."""
        self.folder = folder
        self.key = key

    @classmethod
    def create(cls, folder: Path, created: Created) -> Store:
        """Writes a new ledger.

        Args:
            folder: Its folder, locked by the caller.
            created: The first entry.

        Raises:
            RunError: If the folder cannot be written.
        """
        make_folder(folder, "Name another folder with --ledger.")
        key = secrets.token_bytes(32)
        path = folder / KEY
        write_atomically(path, key.hex() + "\n")
        path.chmod(0o600)
        partial = folder / f".{FILE}.partial"
        partial.unlink(missing_ok=True)
        store = cls(folder, key)
        with store._connect(partial) as connection:
            connection.execute(f"PRAGMA application_id = {APPLICATION}")
            connection.execute(f"PRAGMA user_version = {VERSION}")
            connection.executescript(TABLES)
            connection.execute("BEGIN IMMEDIATE")
            store._insert(connection, [], created)
            store._keep_place(connection, partial)
            connection.commit()
        os.replace(partial, folder / FILE)
        return store

    @classmethod
    def open(cls, folder: Path) -> Store:
        """Opens a ledger.

        Raises:
            RunError: If there is none, its key is missing, or it is of a newer version.
        """
        file, key = folder / FILE, folder / KEY
        if not file.exists():
            raise RunError(
                f"there is no ledger in {folder}. Make one: unsee request init --model DIR "
                f"--ledger {folder}; or name another with --ledger."
            )
        if not is_regular(file):
            raise RunError(f"{file} is no ordinary file. {BACKUP}")
        try:
            secret = bytes.fromhex(key.read_text("utf-8").strip())
        except (OSError, ValueError) as error:
            raise RunError(
                f"{key}, the ledger's key, is missing or damaged ({first_line(error)}). Without it "
                f"photographs cannot be found again, and entries not be checked. {BACKUP}"
            ) from error
        if len(secret) != 32:
            raise RunError(f"{key} holds {len(secret)} bytes, and a ledger's key has 32. {BACKUP}")
        if is_read_by_others(key):
            LOGGER.warning(
                "the ledger's key %s can be read by others. Type: chmod 600 %s", key, key
            )
        store = cls(folder, secret)
        with store._connect(file) as connection:
            found = connection.execute("PRAGMA application_id").fetchone()[0]
            version = connection.execute("PRAGMA user_version").fetchone()[0]
        if found != APPLICATION:
            raise RunError(f"{file} is no ledger of unsee. Name another folder with --ledger.")
        if version > VERSION:
            raise RunError(
                f"{file} was written by a newer unsee (version {version} of the tables; this one "
                f"reads {VERSION}). Type: pip install --upgrade unsee."
            )
        return store

    def entries(self) -> list[Entry]:
        """All entries, in order, after checking their seals.

        Raises:
            RunError: If an entry was altered, removed or added by anything but unsee.
        """
        with self._connect(self.folder / FILE) as connection:
            return self._read(connection)

    def state(self) -> LedgerState:
        """The state that follows from the entries.

        Raises:
            RunError: If an entry was altered.
        """
        return self._state(self.entries())

    def append(self, make: Callable[[LedgerState], Body], place: str | None = None) -> LedgerState:
        """Adds an entry that depends on the state, in one transaction.

        Args:
            make: Makes the entry from the state before it; nothing is written if it raises.
            place: Path of the photographs of a `Requested` entry, to be remembered.

        Returns:
            The state after the entry.

        Raises:
            RunError: If the ledger was altered, copied, or cannot be written.
        """
        with self._connect(self.folder / FILE) as connection:
            connection.execute("BEGIN IMMEDIATE")
            entries = self._read(connection)
            body = make(self._state(entries))
            if isinstance(body, Adopted):
                self._keep_place(connection, self.folder / FILE)
            else:
                self._refuse_copy(connection)
            if place is not None and isinstance(body, Requested):
                connection.execute("INSERT OR REPLACE INTO places VALUES (?, ?)", (body.id, place))
            entry = self._insert(connection, entries, body)
            state = self._state([*entries, entry])
            connection.commit()
        return state

    def check_place(self) -> None:
        """Refuses a ledger that was copied or moved; see `append`.

        Raises:
            RunError: If it was, or an entry was altered.
        """
        with self._connect(self.folder / FILE) as connection:
            self._read(connection)
            self._refuse_copy(connection)

    def places(self) -> dict[str, str]:
        """The remembered paths of photographs, by request."""
        with self._connect(self.folder / FILE) as connection:
            places = dict(connection.execute("SELECT request, path FROM places").fetchall())
        if not all(isinstance(text, str) for text in (*places, *places.values())):
            raise self._altered("a remembered path is no text")
        return places

    def forget_place(self, request: str) -> None:
        """Removes the remembered path of a request's photographs, if there is one."""
        with self._connect(self.folder / FILE) as connection:
            connection.execute("DELETE FROM places WHERE request = ?", (request,))
            connection.commit()

    def salt_of(self, request: str) -> bytes:
        """The salt of the hashes of a request's photographs, 64 hexadecimal digits.

        It follows from the ledger's key. The same photograph in two requests has two hashes. It is
        text, as all keys in files are: white space at the ends of a file is not part of its key.

        Args:
            request: The request's id.
        """
        salt = hmac.new(self.key, f"request {request}".encode(), hashlib.sha256)
        return salt.hexdigest().encode()

    @contextmanager
    def _connect(self, file: Path) -> Iterator[sqlite3.Connection]:
        """A connection; what is not committed is rolled back."""
        try:
            with closing(
                sqlite3.connect(file, timeout=PATIENCE, isolation_level=None)
            ) as connection:
                # Deleted rows are overwritten, and a finished transaction survives a power cut.
                connection.execute("PRAGMA secure_delete = ON")
                connection.execute("PRAGMA synchronous = FULL")
                yield connection
        except sqlite3.OperationalError as error:
            code = getattr(error, "sqlite_errorcode", None)
            if code is None:
                # Of Python, and not of SQLite; it quotes the text.
                raise RunError(
                    f"{file} is damaged (it holds text that is no UTF-8). {BACKUP}"
                ) from None
            if code == sqlite3.SQLITE_ERROR:
                # Such as a table that is not there.
                raise RunError(f"{file} is damaged ({first_line(error)}). {BACKUP}") from error
            raise RunError(
                f"{file} cannot be used ({first_line(error)}). If another process writes it, wait "
                "until that one ends; else check its permissions and the free space."
            ) from error
        except sqlite3.DatabaseError as error:
            raise RunError(f"{file} is damaged ({first_line(error)}). {BACKUP}") from error

    def _read(self, connection: sqlite3.Connection) -> list[Entry]:
        rows = connection.execute(
            "SELECT number, time, kind, body, seal FROM entries ORDER BY number"
        ).fetchall()
        entries: list[Entry] = []
        before = ""
        for number, time, kind, body, seal in rows:
            if not all(isinstance(text, str) for text in (time, kind, body, seal)):
                raise self._altered(f"entry {number} is not as it was written")
            right = self._seal(before, number, time, kind, body)
            if number != len(entries) + 1 or not hmac.compare_digest(right, str(seal)):
                raise self._altered(f"entry {number} is not as it was written, or one is missing")
            try:
                entries.append(Entry(number, time, KINDS[kind].model_validate_json(body)))
            except (KeyError, ValidationError) as error:
                raise RunError(
                    f"{self.folder / FILE}: entry {number} ('{kind}') is not of this version of "
                    "unsee. Type: pip install --upgrade unsee."
                ) from error
            before = seal
        last = connection.execute("SELECT value FROM facts WHERE name = 'last'").fetchone()
        if last is None or last[0] != before:
            raise self._altered(f"entries after the last one, {len(entries)}, are missing")
        return entries

    def _altered(self, what: str) -> RunError:
        return RunError(f"the ledger {self.folder} was altered: {what}. {BACKUP}")

    def _state(self, entries: list[Entry]) -> LedgerState:
        try:
            return state_of(entries)
        except ValueError as error:
            raise self._altered(str(error)) from error

    def _insert(self, connection: sqlite3.Connection, entries: list[Entry], body: Body) -> Entry:
        row = connection.execute("SELECT value FROM facts WHERE name = 'last'").fetchone()
        time = datetime.now(UTC).isoformat(timespec="seconds")
        entry = Entry(len(entries) + 1, time, body)
        text = json.dumps(body.to_dict(), ensure_ascii=False, sort_keys=True)
        seal = self._seal(row[0] if row else "", entry.number, time, entry.kind, text)
        connection.execute(
            "INSERT INTO entries VALUES (?, ?, ?, ?, ?)",
            (entry.number, time, entry.kind, text, seal),
        )
        connection.execute("INSERT OR REPLACE INTO facts VALUES ('last', ?)", (seal,))
        return entry

    def _seal(self, before: str, number: int, time: str, kind: str, body: str) -> str:
        text = json.dumps([before, number, time, kind, body])
        return hmac.new(self.key, text.encode(), hashlib.sha256).hexdigest()

    def _here(self, file: Path) -> tuple[str, str]:
        """A keyed hash of the ledger's path, and the number of its file on the disk."""
        path = str(self.folder.resolve())
        return hmac.new(self.key, path.encode(), hashlib.sha256).hexdigest(), str(
            file.stat().st_ino
        )

    def _keep_place(self, connection: sqlite3.Connection, file: Path) -> None:
        path, inode = self._here(file)
        connection.execute("INSERT OR REPLACE INTO facts VALUES ('path', ?)", (path,))
        connection.execute("INSERT OR REPLACE INTO facts VALUES ('inode', ?)", (inode,))

    def _refuse_copy(self, connection: sqlite3.Connection) -> None:
        """Refuses a copy: two ledgers over one model would soon contradict each other."""
        facts = dict(connection.execute("SELECT name, value FROM facts").fetchall())
        path, inode = self._here(self.folder / FILE)
        # A backup that was restored has the path, and a renamed folder the file.
        if path != facts.get("path") and inode != facts.get("inode"):
            raise RunError(
                f"the ledger {self.folder} was copied or moved from another place, and two ledgers "
                "over one model would contradict each other. If this one is to be used from now "
                f"on, and no other, type: unsee request adopt --ledger {self.folder}"
            )
