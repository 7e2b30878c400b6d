"""Commands on checkpoints: apply and verify."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Literal

import typer

from unsee.cli.shared import Json, Trust, app, echo, progress, split_names
from unsee.errors import ConfigError, UnknownNameError

REQUIREMENTS = ("text", "language", "visual", "files", "all")


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
    require: Annotated[
        str | None,
        typer.Option(
            help="What must hold, else the exit code is 1: text (the language part and "
            "the outputs on text are identical), language (the language part is), visual (no "
            "tensor outside the visual part differs), files (no other file does), all. Separate "
            "several by commas."
        ),
    ] = None,
    trust_remote_code: Trust = False,
    as_json: Json = False,
) -> None:
    """List the differences between two checkpoints.

    Compares them tensor by tensor, and their outputs on text without images. Differences are no
    failure unless --require names what must hold.

    Example: unsee verify DIR DIR-unlearned --require text,visual
    """
    required = split_names(require, "--require") or []
    for name in required:
        if name not in REQUIREMENTS:
            raise UnknownNameError("requirement", name, REQUIREMENTS)
    if {"text", "all"} & set(required) and not probes:
        raise ConfigError(
            f"--require {required[0]} compares outputs on texts, and --probes 0 runs none. Leave "
            "one of them out."
        )
    with progress(as_json) as bar:
        from unsee import api

        bar.stage("comparing the checkpoints")
        verification = api.verify(before, after, probes=probes, trust_remote_code=trust_remote_code)
    unmet = verification.unmet(required)
    if as_json:
        echo({**asdict(verification), "required": required, "unmet": unmet}, as_json)
    else:
        typer.echo(verification.describe())
    if unmet:
        typer.echo(f"unsee: not as required: {'; '.join(unmet.values())}.", err=True)
        raise typer.Exit(1)
