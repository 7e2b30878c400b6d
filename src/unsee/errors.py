"""The exception tree: every error that a user can cause or correct.

```
UnseeError                 anything below; the command line prints it and exits with 2
├── CertificateError       a certificate or a signing key that cannot be read
├── ConfigError            a recipe, an option or a hyperparameter
│   └── UnknownNameError   a method, metric, attack, family or benchmark that is not registered
├── DataError              a picture, a table, a set that is empty or overlaps
├── ModelError             a checkpoint: unknown family, pickle weights, missing processor
├── CallbackError          a callback or a tracker of a run failed
├── HubError               an upload to the Hugging Face hub that failed
├── PatchError             a visual patch and its base do not fit
├── RunError               a run folder: in use, incomplete, not a record
└── TrainingError          a loss that is not finite, a mask that masks nothing
```
"""

from __future__ import annotations

import difflib
import re
import reprlib
import warnings
from collections.abc import Iterable, Mapping, Sequence
from importlib.util import find_spec

_REPR = reprlib.Repr()
_REPR.maxlevel, _REPR.maxstring, _REPR.maxother, _REPR.maxlong = 3, 80, 80, 40


class UnseeError(Exception):
    """Base of all errors; the message says what was given, what is allowed and what to type."""

    def __init__(self, message: str = "") -> None:
        """Keeps the message, with control characters escaped: names of files may hold any."""
        super().__init__(without_secrets(printable(message)))


class ConfigError(UnseeError):
    """A recipe, an option or a hyperparameter that is not allowed."""


class UnknownNameError(ConfigError):
    """A name that is not registered or not a field; the message suggests the nearest known name."""

    def __init__(
        self,
        kind: str,
        given: str,
        allowed: Iterable[str],
        listing: str | None = None,
        aliases: Mapping[str, str] | None = None,
    ) -> None:
        """Builds the message.

        Args:
            kind: What the name should be, such as "method".
            given: The name as typed.
            allowed: All known names.
            listing: How to list them, where they are too many for a message.
            aliases: Earlier names, old to new; for one that resembles `given`, the message suggests
                the new name.
        """
        names = sorted(allowed)
        given = shorten(str(given))
        hint = suggestion(given, names, aliases)
        allowed_names = listing or ", ".join(names) or "none"
        super().__init__(f"unknown {kind} '{given}'.{hint} Allowed: {allowed_names}.")


def suggestion(given: str, allowed: Iterable[str], aliases: Mapping[str, str] | None = None) -> str:
    """A question that suggests the nearest known name, with a space before it; "" if none is near.

    A name of which the given one is a word, such as phone_number for phone, is near too.

    Args:
        given: The name as typed.
        allowed: All known names.
        aliases: Earlier names, old to new; for one that resembles `given`, the new is suggested.

    Example:
        >>> suggestion("vdk", ["npo", "vkd"]), suggestion("vdk", ["npo"])
        (" Did you mean 'vkd'?", '')
    """
    renamed = dict(aliases or {})
    known = [*allowed, *sorted(renamed)]
    nearest = difflib.get_close_matches(given, known, n=1, cutoff=0.6)
    nearest = nearest or sorted((n for n in known if given in n.split("_")), key=len)
    return f" Did you mean '{renamed.get(nearest[0], nearest[0])}'?" if nearest else ""


class CertificateError(UnseeError):
    """A certificate or a signing key that cannot be read or used."""


class DataError(UnseeError):
    """A picture, table or set of samples that cannot be used."""


class ModelError(UnseeError):
    """A checkpoint that cannot be loaded or lacks something that is needed."""


class PatchError(UnseeError):
    """A visual patch that is damaged or belongs to another base."""


class RunError(UnseeError):
    """A run folder that is in use, incomplete or not a record."""


class TrainingError(UnseeError):
    """Training that cannot continue: a loss that is not finite, or no parameter to train."""


class CallbackError(UnseeError):
    """A callback of the caller's or a tracker that failed during a run."""


class HubError(UnseeError):
    """An upload to the Hugging Face hub that is refused, or did not reach it."""


class WorkerFinished(UnseeError):
    """A run in a process other than the first of several: its training is done.

    The first process writes the record. A script that a launcher starts should end here.
    """


def printable(text: object) -> str:
    r"""Returns a text with control characters and halves of surrogate pairs written as escapes.

    Line breaks stay.

    Example:
        >>> printable("a\x1b[31m.png")
        'a\\x1b[31m.png'
    """
    return "".join(
        c if c.isprintable() or c in "\n\t\u3000\xa0" else c.encode("unicode_escape").decode()
        for c in str(text)
    )


_PASSWORD = re.compile(r"(\w://[^\s:/@]*:)(?!\d+(?:[/?#\s]|$))[^\s]*(?=@)")
_SECRET = re.compile(
    r"((?:[?&;]\w*token|(?:password|passwd|pwd|secret|api_key|(?:access|auth|hf|hub)_token))=)"
    r"[^&\s'\"]+",
    re.IGNORECASE,
)
_HUB_TOKEN = re.compile(r"\bhf_[A-Za-z0-9]{16,}\b")


def without_secrets(text: str) -> str:
    """Returns a text with *** for passwords in URLs, for values of secrets, and for hub tokens.

    Example:
        >>> without_secrets("--storage postgresql://ada:pw@host/db?sslpassword=x")
        '--storage postgresql://ada:***@host/db?sslpassword=***'
    """
    text = _SECRET.sub(r"\1***", _PASSWORD.sub(r"\1***", text))
    return _HUB_TOKEN.sub("hf_***", text)


def shorten(text: str, length: int = 80) -> str:
    """Returns a text's beginning, in at most `length` characters and with "..." where it was cut.

    Example:
        >>> shorten("abcdefghij", 8)
        'abcde...'
    """
    return text if len(text) <= length else f"{text[: length - 3]}..."


def listed(texts: Sequence[str], most: int = 5) -> str:
    """Returns the first texts, separated by commas, and how many more there are.

    Example:
        >>> listed(["a", "b", "c"], most=2)
        'a, b and 1 more'
    """
    more = f" and {len(texts) - most} more" if len(texts) > most else ""
    return ", ".join(texts[:most]) + more


def counted(count: int, one: str, many: str | None = None) -> str:
    """Returns a count with its noun in singular or plural.

    Args:
        count: How many there are.
        one: The noun in singular.
        many: The noun in plural; default: with an s.

    Example:
        >>> counted(1, "photograph"), counted(1200, "person", "people")
        ('1 photograph', '1,200 people')
    """
    return f"{count:,} {one if count == 1 else many or f'{one}s'}"


def quoted(value: object) -> str:
    """Returns a value as Python writes it, cut short so that it fits into a message.

    Example:
        >>> quoted("x" * 1000)[:9], len(quoted(list(range(1000)))) < 90
        ("'xxxxxxxx", True)
    """
    return shorten(_REPR.repr(value), 90)


def first_line(error: BaseException) -> str:
    """The first line of an error's message, cut short, or its type where it has none."""
    text = str(error).strip()
    return shorten(text.splitlines()[0], 300) if text else type(error).__name__


def warn_renamed(kind: str, old: str, new: str) -> None:
    """Warns that a name was renamed and that its old form works for one more release.

    Args:
        kind: What is named, such as "field of vkd" or "option".
        old: The name that was given.
        new: The name to use from now on.
    """
    warnings.warn(
        f"{kind} '{old}' is now called '{new}'. The old name works for one more release.",
        FutureWarning,
        stacklevel=3,
    )


def require_extra(module: str, extra: str, purpose: str) -> None:
    """Checks that an optional dependency is installed, before it is imported.

    Args:
        module: The import name, such as "optuna".
        extra: The extra of unsee that installs it, such as "compare".
        purpose: What needs it, as the subject of a sentence.

    Raises:
        ConfigError: If it is not installed.
    """
    if find_spec(module) is None:
        raise ConfigError(
            f"{purpose} needs {module}, which is not installed. Type: pip install 'unsee[{extra}]'."
        )
