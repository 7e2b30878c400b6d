"""The file of a ledger: what was altered by hand is found."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from unsee.artifacts.pseudonyms import Salt, read_key
from unsee.errors import RunError
from unsee.requests.entries import Created, LedgerSettings, Requested
from unsee.requests.store import FILE, KEY, Store


@pytest.fixture
def store(tmp_path: Path) -> Store:
    made = Store.create(tmp_path / "book", Created(settings=LedgerSettings(model="DIR"), base={}))
    for name in ("a", "b", "c"):
        made.append(lambda state, name=name: Requested(id=name, photographs=("0" * 64,), people=1))
    return made


def change(store: Store, statement: str) -> None:
    connection = sqlite3.connect(store.folder / FILE)
    connection.execute(statement)
    connection.commit()
    connection.close()


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE entries SET body = replace(body, '\"b\"', '\"x\"') WHERE number = 3",
        "UPDATE entries SET time = '2020-01-01T00:00:00+00:00' WHERE number = 2",
        "DELETE FROM entries WHERE number = 3",
        "DELETE FROM entries WHERE number = 4",
        "UPDATE entries SET number = number + 10",
        "UPDATE entries SET body = x'00ff' WHERE number = 2",
        "DELETE FROM facts WHERE name = 'last'",
    ],
)
def test_altered_entries_are_refused(store: Store, statement: str) -> None:
    assert list(store.state().requests) == ["a", "b", "c"]
    change(store, statement)
    with pytest.raises(RunError, match="was altered"):
        store.entries()


def test_entries_of_another_key_are_refused(store: Store) -> None:
    (store.folder / KEY).write_text("00" * 32)
    with pytest.raises(RunError, match="was altered"):
        Store.open(store.folder).entries()


@pytest.mark.parametrize(
    ("damage", "part"),
    [
        (lambda folder: (folder / KEY).unlink(), "is missing or damaged"),
        (lambda folder: (folder / KEY).write_text("abc"), "is missing or damaged"),
        (lambda folder: (folder / FILE).write_bytes(b"no database" * 100), "is damaged"),
        (lambda folder: (folder / FILE).unlink(), "there is no ledger"),
    ],
)
def test_damaged_files_are_named(store: Store, damage: object, part: str) -> None:
    damage(store.folder)  # type: ignore[operator]
    with pytest.raises(RunError, match=part):
        Store.open(store.folder).entries()


def test_missing_table_is_damage_and_no_other_process(store: Store) -> None:
    change(store, "DROP TABLE places")
    with pytest.raises(RunError, match="is damaged"):
        store.places()


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE entries SET body = CAST(x'7bff' AS TEXT) WHERE number = 2",
        "UPDATE facts SET value = CAST(x'ff' AS TEXT) WHERE name = 'last'",
    ],
)
def test_text_with_a_damaged_byte_is_damage_and_not_quoted(store: Store, statement: str) -> None:
    change(store, statement)
    with pytest.raises(RunError, match=r"is damaged \(it holds text that is no UTF-8\)") as raised:
        store.entries()
    assert raised.value.__suppress_context__


def test_remembered_path_that_is_no_text_is_refused(store: Store) -> None:
    change(store, "INSERT INTO places VALUES ('a', x'ff')")
    with pytest.raises(RunError, match="a remembered path is no text"):
        store.places()


def test_place_of_an_altered_ledger_is_not_looked_at(store: Store) -> None:
    # Its facts are sealed by no entry, so that it would be taken for a copy.
    (store.folder / KEY).write_text("00" * 32)
    with pytest.raises(RunError, match="was altered"):
        Store.open(store.folder).check_place()


def test_newer_tables_are_refused(store: Store) -> None:
    change(store, "PRAGMA user_version = 2")
    with pytest.raises(RunError, match="newer unsee"):
        Store.open(store.folder)


def test_other_databases_are_refused(tmp_path: Path) -> None:
    (tmp_path / KEY).write_text("00" * 32)
    sqlite3.connect(tmp_path / FILE).execute("CREATE TABLE t (x)").connection.close()
    with pytest.raises(RunError, match="is no ledger of unsee"):
        Store.open(tmp_path)


def test_entry_that_cannot_be_made_leaves_nothing(store: Store) -> None:
    def fail(state: object) -> Requested:
        raise RunError("no")

    with pytest.raises(RunError, match="no"):
        store.append(fail)
    assert len(store.entries()) == 4


def test_same_photograph_has_another_hash_in_each_request(store: Store) -> None:
    assert store.salt_of("a") != store.salt_of("b")


def test_salts_are_the_same_when_they_are_read_from_a_file(store: Store, tmp_path: Path) -> None:
    # One in twenty random bytes at an end is white space, which is not part of a key in a file.
    for number in range(100):
        salt = Salt(store.salt_of(str(number)), tmp_path / f"{number}.key", is_new=True)
        salt.keep()
        assert read_key(salt.path) == salt.key


def test_key_is_readable_by_its_owner_alone(store: Store) -> None:
    assert (store.folder / KEY).stat().st_mode & 0o077 == 0


def test_key_that_others_can_read_is_noted(store: Store, caplog: pytest.LogCaptureFixture) -> None:
    Store.open(store.folder)
    assert caplog.text == ""
    (store.folder / KEY).chmod(0o644)
    Store.open(store.folder)
    assert "can be read by others. Type: chmod 600" in caplog.text
