"""Commands on checkpoints: apply a patch, and compare."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from unsee.cli.shared import Json, app, echo


@app.command()
def apply(
    patch: Annotated[Path, typer.Argument(help="Patch folder.")],
    model: Annotated[str, typer.Option(help="The checkpoint it was made from.")],
    out: Annotated[Path, typer.Option(help="Checkpoint folder to write.")],
    as_json: Json = False,
) -> None:
    """Apply a visual patch to its base checkpoint, shard by shard.

    Example: unsee apply runs/job/patch --model DIR --out DIR-unlearned
    """
    from dataclasses import asdict

    from unsee.artifacts.patch import apply_patch
    from unsee.recipes.plan import shipped_checkpoint

    done = apply_patch(patch, shipped_checkpoint(model), out)
    if as_json:
        echo(asdict(done), as_json)
        return
    typer.echo(
        f"{out}: {len(done.manifest.changed)} tensors changed, {len(done.rewritten)} weight files "
        f"rewritten, {len(done.copied)} files copied."
    )
    if done.left_out:
        typer.echo(
            f"Note: left out, as they still hold what was forgotten: {', '.join(done.left_out)}",
            err=True,
        )


@app.command()
def verify(
    before: Annotated[str, typer.Argument(help="A checkpoint.")],
    after: Annotated[str, typer.Argument(help="Another.")],
    probes: Annotated[
        int, typer.Option(min=0, help="Texts that both models read; 0 loads no model.")
    ] = 64,
    as_json: Json = False,
) -> None:
    """Say exactly what differs between two checkpoints, and whether they read text alike.

    Example: unsee verify DIR DIR-unlearned
    """
    from dataclasses import asdict

    from unsee.artifacts.verify import verify as compare
    from unsee.recipes.plan import shipped_checkpoint

    found = compare(shipped_checkpoint(before), shipped_checkpoint(after), probes)
    if as_json:
        echo(asdict(found), as_json)
        return
    typer.echo(found.describe())
