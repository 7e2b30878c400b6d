"""The command that removes personal data from run folders."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from unsee.cli.shared import Json, app, echo


@app.command()
def purge(
    runs: Annotated[list[Path], typer.Argument(help="Run folders, finished or not.")],
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Change nothing; say what would be changed.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Remove what identifies a person from run folders, and leave the proof.

    Names, faces, questions, answers, paths, hashes of pictures, the state of the optimizer and
    cached features of pictures go. The patch or model, its manifest, the hashes of the checkpoints,
    measures, checks and attacks stay.

    Example: unsee purge runs/job --dry-run
    """
    from unsee import api
    from unsee.runs.purge import as_dict

    purged = api.purge(runs, dry_run=dry_run)
    if as_json:
        echo([as_dict(one) for one in purged], as_json)
        return
    for one in purged:
        for change in one.changes:
            action = f"would be {change.action}" if dry_run else change.action
            typer.echo(f"{change.path}: {action} ({change.reason})")
        if not one.changes:
            typer.echo(f"{one.folder}: nothing in it identifies a person any more.")
        for name in one.unknown:
            typer.echo(f"{one.folder / name}: left, since no run writes it. Look at it yourself.")
