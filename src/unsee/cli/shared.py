"""Shared parts of the commands: the application, common options, progress and printing."""

from __future__ import annotations

import json
import shlex
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from unsee.cli.catalogue import names
from unsee.errors import ConfigError, quoted, warn_renamed, without_secrets
from unsee.training.launcher import is_main_process

if TYPE_CHECKING:
    from unsee.progress import Bar
    from unsee.records.reader import Run

app = typer.Typer(
    name="unsee",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


def _print_version(given: bool) -> None:
    if given:
        from unsee import __version__

        typer.echo(f"unsee {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool,
        typer.Option(
            "--version", is_eager=True, callback=_print_version, help="Print the version."
        ),
    ] = False,
) -> None:
    """Make a multimodal LLM stop recognising what it sees, and keep what it has read."""


def complete(kind: str) -> Any:
    """A completion function for the registered names of a kind."""
    return lambda incomplete: [name for name in names(kind) if name.startswith(incomplete)]


def _complete_recipes(incomplete: str) -> list[str]:
    from unsee.recipes.catalog import shipped_recipes

    return [name for name in shipped_recipes() if name.startswith(incomplete)]


Out = Annotated[Path | None, typer.Option("--out", help="Run folder to write.")]
Json = Annotated[bool, typer.Option("--json", help="Print only JSON on standard output.")]
Seed = Annotated[int, typer.Option(min=0, help="Seed of every random draw.")]
Set = Annotated[
    list[str] | None,
    typer.Option("--set", help="Field of the method or of the training, as key=value. Repeatable."),
]
RecipeFile = Annotated[
    Path,
    typer.Argument(
        help="YAML file, or the name of a recipe that ships with unsee, such as pocket-vkd.",
        autocompletion=_complete_recipes,
    ),
]
Overrides = Annotated[
    list[str] | None, typer.Argument(help="key=value pairs that replace fields of the recipe.")
]
DryRun = Annotated[
    bool, typer.Option("--dry-run", help="Check the recipe and the data, then stop.")
]
Trust = Annotated[
    bool,
    typer.Option("--trust-remote-code", help="Allow the checkpoint's own Python code to run."),
]
LogWith = Annotated[
    str | None,
    typer.Option(
        "--log-with",
        help="Experiment trackers that log losses and results: tensorboard, wandb, trackio ... "
        "Several with commas.",
    ),
]
Redact = Annotated[
    bool,
    typer.Option(
        "--redact",
        help="Keep names, questions, answers, pictures and paths out of every file of the run.",
    ),
]
SaltFile = Annotated[
    Path | None,
    typer.Option(
        "--salt",
        envvar="UNSEE_SALT",
        metavar="FILE",
        help="With --redact: file with the key of the hashes that stand for people; made if it is "
        "missing. Default: OUT.salt beside the run folder.",
    ),
]
DeviceName = Annotated[
    str, typer.Option("--device", help="auto (a GPU if there is one), cpu or cuda.")
]

PatchOption = Annotated[
    list[Path] | None,
    typer.Option(
        "--patch",
        help="Visual patch to put on the model in memory. Repeatable, in the order in which they "
        "were made.",
    ),
]

HubRevision = Annotated[
    str | None,
    typer.Option(
        "--hub-revision",
        metavar="REVISION",
        help="Branch, tag or commit of the data that is read from the Hugging Face hub.",
    ),
]

T = TypeVar("T")

# Set once a command has printed its result: standard output then holds all the JSON it may.
PRINTED = threading.Event()


def renamed(old: str, old_value: T | None, new: str, value: T | None) -> T | None:
    """The value of an option that was renamed, given under either name.

    Args:
        old: The old name, a hidden option that works for one more release.
        old_value: What was given under it; None if nothing was.
        new: The new name.
        value: What was given under that.

    Raises:
        ConfigError: If both are given.
    """
    if old_value is None:
        return value
    if value is not None:
        raise ConfigError(f"{old} is the old name of {new}, and both are given. Leave {old} out.")
    warn_renamed("option", old, new)
    return old_value


def split_names(text: str | None, option: str) -> list[str] | None:
    """Names between commas, each once; None if the option is not given.

    Raises:
        ConfigError: If it names nothing.
    """
    if text is None:
        return None
    split = list(dict.fromkeys(part.strip() for part in text.split(",") if part.strip()))
    if not split:
        raise ConfigError(f"{option} {quoted(text)} names nothing. Separate values by commas.")
    return split


def at_hub_revision(revision: str | None, given: dict[str, str | None]) -> dict[str, str | None]:
    """Data as it is typed, at the revision of --hub-revision where it is read from the hub.

    Args:
        revision: The revision; None leaves everything as it is.
        given: What is typed, by option.

    Raises:
        ConfigError: If none of it is read from the hub, or it names another revision.
    """
    if revision is None:
        return given
    from unsee.recipes.specs import at_revision, is_on_hub

    pinned = {name: text for name, text in given.items() if text is not None and is_on_hub(text)}
    if not pinned:
        raise ConfigError(
            f"--hub-revision {quoted(revision)}: none of the data is read from the hub. Leave it "
            "out, or give a benchmark that is on the hub."
        )
    return given | {name: at_revision(text, revision) for name, text in pinned.items()}


def trusted(trust_remote_code: bool) -> dict[str, bool]:
    """The field of a recipe that --trust-remote-code sets; {} where it is not given."""
    return {"trust_remote_code": True} if trust_remote_code else {}


def redaction(redact: bool, salt: Path | None) -> dict[str, Any]:
    """The fields of a recipe that --redact and --salt set; those that are not given stay."""
    return ({"redact": True} if redact else {}) | ({"salt": salt} if salt is not None else {})


def announce_loading(quiet: bool = False) -> None:
    """Says on a terminal what the first seconds of a command are spent on.

    Args:
        quiet: Say nothing.
    """
    if sys.stderr.isatty() and not quiet and is_main_process() and "torch" not in sys.modules:
        typer.echo("Loading PyTorch and transformers ...", err=True)


@contextmanager
def progress(as_json: bool = False) -> Iterator[Bar]:
    """A progress bar on standard error for the length of a command, shown on terminals only.

    A line is printed at once: importing torch and reading the data may take several seconds.

    Args:
        as_json: Show nothing.
    """
    announce_loading(quiet=as_json)
    from unsee.progress import bar

    with bar(quiet=as_json or not is_main_process()) as shown:
        yield shown.stage("reading data")


def print_run(run: Run, as_json: bool) -> None:
    """Prints the verdict of a run and where its files are; as JSON, all of summary.json."""
    if not is_main_process():
        return
    if as_json:
        echo(json.loads((run.folder / "summary.json").read_text("utf-8")), as_json)
        return
    typer.echo(run.summary.verdict)
    written = run.summary.artifacts.to_dict() if run.summary.artifacts is not None else {}
    for name, path in written.items():
        # The folder may be called like a person, and standard output is kept in logs.
        typer.echo(f"{name}: {path if run.summary.redacted else run.folder / path}")


def command() -> str:
    """The command line of this process, without passwords: records and pages hold it."""
    return shlex.join(["unsee", *map(without_secrets, sys.argv[1:])])


def is_redacted() -> bool:
    """Whether this command is to keep names and paths out of what it writes and prints."""
    return "--redact" in sys.argv or "redact=true" in sys.argv


def without_typed(text: str) -> str:
    """Returns a message without the paths that were typed, if the command is redacted."""
    if not is_redacted():
        return text
    from unsee.recipes.masking import Mask

    typed: dict[str, list[str]] = {}
    for before, word in pairwise(sys.argv[1:]):
        name, joined, value = word.partition("=")
        if joined or not word.startswith("-"):
            option = name if joined else before if before.startswith("-") else "value"
            typed.setdefault(option.lstrip("-"), []).append(value if joined else word)
    return Mask(typed)(text)


def echo(value: Any, as_json: bool) -> None:
    """Prints a result: as JSON, or one line for each key."""
    PRINTED.set()
    if as_json or not isinstance(value, dict):
        typer.echo(json.dumps(value, indent=1, ensure_ascii=False, default=str))
        return
    for key, content in value.items():
        typer.echo(f"{key}: {content}")
