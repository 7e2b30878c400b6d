"""Commands on checkpoints: apply and verify."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Literal

import typer

from unsee.cli.shared import Json, app, echo, progress


@app.command()
def apply(
    patch: Annotated[Path, typer.Argument(help="Patch folder.")],
    model: Annotated[str, typer.Option(help="Checkpoint that the patch was made from.")],
    out: Annotated[Path, typer.Option(help="Checkpoint folder to write.")],
    other_files: Annotated[
        Literal["refuse", "copy", "leave-out"],
        typer.Option(help="Files over 10 MB that transformers does not read."),
    ] = "refuse",
    as_json: Json = False,
) -> None:
    """Apply a visual patch to its base checkpoint.

    Weight files are rewritten one at a time; those without changed tensors are copied.

    Example: unsee apply runs/job/patch --model DIR --out DIR-unlearned
    """
    with progress(as_json) as bar:
        from unsee import api

        bar.stage("applying the patch")
        done = api.apply(patch, model, out, other_files=other_files)
    if as_json:
        echo(asdict(done), as_json)
        return
    typer.echo(
        f"{out}: {len(done.manifest.changed)} tensors changed, {len(done.rewritten)} weight files "
        f"rewritten, {len(done.copied)} files copied."
    )
    if done.left_out:
        names = ", ".join(done.left_out)
        typer.echo(f"Note: left out, as they may still hold what was forgotten: {names}", err=True)


@app.command()
def verify(
    before: Annotated[str, typer.Argument(help="Checkpoint folder, or hub id.")],
    after: Annotated[str, typer.Argument(help="Another checkpoint of the same family.")],
    probes: Annotated[
        int, typer.Option(min=0, help="Number of texts to compare outputs on; 0 loads no model.")
    ] = 64,
    as_json: Json = False,
) -> None:
    """List the differences between two checkpoints.

    Compares them tensor by tensor, and their outputs on text without images.

    Example: unsee verify DIR DIR-unlearned
    """
    with progress(as_json) as bar:
        from unsee import api

        bar.stage("comparing the checkpoints")
        verification = api.verify(before, after, probes=probes)
    if as_json:
        echo(asdict(verification), as_json)
        return
    typer.echo(verification.describe())
