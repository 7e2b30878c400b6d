"""The command that lists past runs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from unsee.cli.shared import Json, app, echo


@app.command()
def runs(
    folder: Annotated[
        Path, typer.Argument(help="Folder of run folders; subfolders are looked into.")
    ] = Path("runs"),
    as_json: Json = False,
) -> None:
    """List past runs, the newest first: what they measured, and which are running or stopped.

    Scores are those before and after unlearning, on the pictures to forget and to keep. A record
    that cannot be read is listed with the reason.

    Example: unsee runs runs
    """
    from unsee.report.past_runs import as_dict, list_runs, table

    found = list_runs(folder)
    if as_json:
        echo([as_dict(run) for run in found], as_json)
    elif found:
        typer.echo(table(found))
    else:
        typer.echo(f"No runs in {folder}. `unsee demo` makes one.")
