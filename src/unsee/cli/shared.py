"""What the commands share: the application, common options, running and printing."""

from __future__ import annotations

import json
import shlex
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from unsee.training.launcher import is_main_process

app = typer.Typer(
    name="unsee",
    help="Make a multimodal LLM stop recognising what it sees, and keep what it has read.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


def _print_version(asked: bool) -> None:
    if asked:
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


Out = Annotated[Path | None, typer.Option("--out", help="Run folder to write.")]
Json = Annotated[bool, typer.Option("--json", help="Print only JSON on standard output.")]
Seed = Annotated[int, typer.Option(min=0, help="Decides every random draw.")]
Set = Annotated[
    list[str] | None,
    typer.Option("--set", help="A field of the method or the training: key=value. Repeatable."),
]
RecipeFile = Annotated[Path, typer.Argument(help="A YAML recipe, or a shipped one's name.")]
Overrides = Annotated[list[str] | None, typer.Argument(help="key=value ...")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Check everything, do nothing.")]
Trust = Annotated[
    bool, typer.Option("--trust-remote-code", help="Let the checkpoint's own Python code run.")
]

DeviceName = Annotated[
    str, typer.Option("--device", help="auto (a GPU where there is one), cpu or cuda.")
]


def run_recipe(recipe: Any, kind: str, out: Path, as_json: bool) -> None:
    """Plans a recipe, tells the user what was decided, and runs it."""
    from unsee.recipes.plan import plan

    job, notes = plan(recipe, kind, command())
    for note in (*notes, *job.advice()) if is_main_process() else ():
        typer.echo(f"Note: {note}", err=True)
    run_job(job, out, as_json)


def run_job(job: Any, out: Path, as_json: bool) -> None:
    """Runs a job with progress, and prints its verdict and where things are."""
    from unsee.progress import bar
    from unsee.runs.run import run as do

    with bar(quiet=as_json or not is_main_process()) as shown:
        summary = do(job, out, shown)
    if summary is None:
        return
    if as_json:
        echo(summary, as_json)
        return
    typer.echo(summary["verdict"])
    for key, value in (summary["artifacts"] or {}).items():
        typer.echo(f"{key}: {out / value}")


def command() -> str:
    """What the user typed."""
    return shlex.join(["unsee", *sys.argv[1:]])


def echo(value: Any, as_json: bool) -> None:
    """Prints a result: as JSON, or one line a key."""
    if as_json or not isinstance(value, dict):
        typer.echo(json.dumps(value, indent=1, ensure_ascii=False, default=str))
        return
    for key, content in value.items():
        typer.echo(f"{key}: {content}")
