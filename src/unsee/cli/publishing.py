"""The command push: what a run saved, to the Hugging Face hub."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Literal

import typer

from unsee.cli.shared import Json, app, echo, progress
from unsee.errors import counted


@app.command()
def push(
    run: Annotated[
        Path,
        typer.Argument(help="Folder of a run, of a patch, or of a checkpoint that `apply` wrote."),
    ],
    repo: Annotated[
        str, typer.Option(metavar="OWNER/NAME", help="Repository; it is made if it is missing.")
    ],
    what: Annotated[
        Literal["patch", "model", "adapter"] | None,
        typer.Option(
            help="What to upload. Default: what was saved. model puts a run's patch on its model."
        ),
    ] = None,
    private: Annotated[
        bool, typer.Option("--private", help="Make the repository private, if it is made.")
    ] = False,
    revision: Annotated[
        str | None, typer.Option(help="Branch to upload to, made if it is missing. Default: main.")
    ] = None,
    license_: Annotated[
        str | None,
        typer.Option("--license", help="License in the card. Default: that of the base's card."),
    ] = None,
    base_model: Annotated[
        str | None,
        typer.Option(metavar="OWNER/NAME", help="Hub id of the base, where it was a folder."),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Upload nothing; print what would be uploaded.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Upload a patch or model to the Hugging Face hub, with a model card.

    Files that may identify a person are refused. The token is that of `hf auth login` or HF_TOKEN.

    Example: unsee push runs/job --repo OWNER/NAME --private --dry-run
    """
    with progress(as_json) as bar:
        from unsee import api

        bar.stage("preparing the upload")
        pushed = api.push(
            run,
            repo,
            what=what,
            private=private,
            revision=revision,
            license=license_,
            base_model=base_model,
            dry_run=dry_run,
        )
    if as_json:
        echo(asdict(pushed), as_json)
        return
    verb = "would be uploaded" if dry_run else "uploaded"
    files = ", ".join(f"{name} ({_size(size)})" for name, size in pushed.files.items())
    typer.echo(f"{pushed.repository}: {counted(len(pushed.files), 'file')} {verb}: {files}")
    if pushed.left_out:
        typer.echo(f"left out: {', '.join(pushed.left_out)}")
    for field, advice in (("base_model", "--base-model OWNER/NAME"), ("license", "--license NAME")):
        if f"\n{field}: " not in pushed.card:
            typer.echo(f"Note: the card names no {field}. Type {advice}.", err=True)
    if dry_run:
        typer.echo(pushed.card)
    else:
        typer.echo(f"commit {pushed.commit}: {pushed.url}")


def _size(size: int) -> str:
    """A file's size in words."""
    return f"{size / 1e6:,.1f} MB" if size >= 100_000 else f"{size:,} bytes"
