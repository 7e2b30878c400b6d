"""Masks names and paths in the messages of a redacted run: its notes and its errors."""

from __future__ import annotations

import logging
import os
import re
import unicodedata
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from itertools import islice
from pathlib import Path, PureWindowsPath
from typing import Any

from unsee.artifacts.pseudonyms import Pseudonyms
from unsee.artifacts.redactor import CHECKPOINTS, Redactor
from unsee.data.folders import PICTURES
from unsee.data.tables import SUFFIXES, read_rows
from unsee.errors import UnseeError
from unsee.files import is_regular
from unsee.recipes.redaction import vocabulary

LOGGER = logging.getLogger("unsee")

# Names of files, texts of a table, and its bytes, that are looked for in a message.
MOST_NAMES, MOST_BYTES = 20_000, 20_000_000

# Names of folders and files that are words of messages, and name nobody. Written otherwise, as
# "Base", they may be a name, and are masked.
COMMON = frozenset(
    "base checkpoint checkpoints data dataset datasets face faces folder image images ledger model "
    "models others output outputs patch patches people person photo photograph photographs photos "
    "picture pictures run runs step steps table train".split()
)

# Keys of folders whose files are called as in every checkpoint or run.
NO_DATA = CHECKPOINTS | {"out", "patch", "salt"}

HINT = "Names and paths are masked by redact; `unsee data check` shows them."

MASK = "[redacted]"


class Mask:
    """Replaces what a user typed, and the names in the data, in messages.

    The data is read when there is a message to mask, and not before.
    """

    def __init__(self, values: Mapping[str, Any]) -> None:
        """Masks the values of a recipe or request that are no words of the package.

        Args:
            values: The plain values by key.
        """
        given = dict(_given(values))
        self._places = [text for text, key in given.items() if key not in NO_DATA]
        self._typed = {form: key for text, key in given.items() for form in _forms(text)}
        self._pattern: re.Pattern[str] | None = None

    def __call__(self, text: str) -> str:
        """Returns the message with "[redacted]" for names, and KEY for what was typed."""
        text = unicodedata.normalize("NFC", text)
        for value, key in sorted(self._typed.items(), key=lambda item: -len(item[0])):
            text = re.sub(_words(value), key.upper(), text, flags=re.IGNORECASE)
        if self._pattern is None:
            names = sorted(_names(self._places), key=len, reverse=True)
            words = "|".join(map(_words, names)) or _words("")
            self._pattern = re.compile(words, re.IGNORECASE)
        return self._pattern.sub(MASK, text)


@contextmanager
def masked(active: bool, values: Mapping[str, Any]) -> Iterator[None]:
    """Masks the notes and errors of a block.

    Args:
        active: Whether anything is masked.
        values: The plain values of the recipe or request.
    """
    if not active:
        yield
        return
    mask = Mask(values)

    def rewrite(record: logging.LogRecord) -> bool:
        record.msg, record.args = mask(record.getMessage()), ()
        return True

    LOGGER.addFilter(rewrite)
    try:
        yield
    except UnseeError as error:
        message = mask(str(error))
        if message != str(error):
            message = f"{message} {HINT}"
        # What it was raised from has the names.
        error.args = (message,)
        error.__cause__, error.__suppress_context__ = None, True
        error.__context__ = None
        raise
    finally:
        LOGGER.removeFilter(rewrite)


def _given(values: Mapping[str, Any], parent: str = "") -> Iterator[tuple[str, str]]:
    """The texts that a user typed, with their keys; no numbers, and no words of the package."""
    redactor = Redactor(Pseudonyms(b""), vocabulary())
    for key, value in values.items():
        name = parent or key
        if isinstance(value, Mapping):
            yield from _given(value, "" if key == "set" else name)
        elif isinstance(value, list | tuple):
            yield from _given(dict(enumerate(value)), name)  # type: ignore[arg-type]
        elif isinstance(value, str | Path) and not _is_plain(text := str(value), name, redactor):
            yield text, name


def _forms(text: str) -> Iterator[str]:
    """Every form of a path in which a message may have it; no words that name nobody."""
    forms = (text, os.path.abspath(text), os.path.realpath(text))
    names = [
        name for path in (Path(text), PureWindowsPath(text)) for name in (path.name, path.stem)
    ]
    for form in (*forms, *map(os.path.dirname, forms), *names):
        form = unicodedata.normalize("NFC", form)
        if not _is_common(form):
            yield form


def _is_plain(text: str, key: str, redactor: Redactor) -> bool:
    """Whether a value is a number or a word of the package, and no place here."""
    return redactor.is_safe(text, key) and not (text and os.path.exists(text))


def _is_common(text: str) -> bool:
    return text in COMMON or text in vocabulary()


def _names(typed: Iterable[str]) -> set[str]:
    """The names of files and folders below and beside what was typed, and the texts of tables."""
    names: set[str] = set()
    for text in typed:
        path = Path(text)
        with suppress(OSError, ValueError):
            # A message may propose what lies beside a path that is misspelt.
            for entry in islice(Path(os.path.abspath(path)).parent.iterdir(), MOST_NAMES):
                names |= {entry.name, entry.stem} - COMMON
        with suppress(OSError, ValueError):
            if path.is_dir():
                for entry in islice(path.rglob("*"), MOST_NAMES):
                    names |= {entry.name, entry.stem} - COMMON
            if is_regular(path) and path.suffix.lower() in SUFFIXES:
                names |= set(islice(_table_texts(path), MOST_NAMES))
    names = {unicodedata.normalize("NFC", name) for name in names}
    return {n for n in names if len(n) > 1 and not n.isdigit() and n not in vocabulary()}


def _table_texts(path: Path) -> Iterator[str]:
    """The texts of a table; of a damaged one, whatever stands between quotes and commas."""
    try:
        for _, row in read_rows(path, "forget", True):
            yield from _texts(row)
    except UnseeError:
        with path.open("rb") as file:
            content = file.read(MOST_BYTES).decode("utf-8", "ignore")
        for text in re.split(r"[\"',;:\t\r\n{}\[\]]+", content):
            yield from _texts(text.strip())


def _texts(value: Any) -> Iterator[str]:
    """The texts in a row, and the file names of those that are paths."""
    if isinstance(value, str) and len(value) < 1000:
        yield value
        yield Path(value).name
        yield from _parts_of_picture(value)
    elif isinstance(value, Mapping):
        for inner in value.values():
            yield from _texts(inner)
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from _texts(inner)


def _parts_of_picture(text: str) -> Iterator[str]:
    """The names in the path of a picture, which messages spell with other separators."""
    path = PureWindowsPath(text)
    if path.suffix.lower() in PICTURES:
        for part in path.parts[bool(path.anchor) :]:
            yield from (name for name in (part, PureWindowsPath(part).stem) if name not in COMMON)


def _words(text: str) -> str:
    """A pattern of a text that is not part of a longer word; of nothing for "" or "/"."""
    return rf"(?<!\w){re.escape(text)}(?!\w)" if text.strip("./~ ") else r"(?!)"
