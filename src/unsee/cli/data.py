"""Commands that make data sets."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from unsee.cli.shared import Json, Seed, app, echo

pocket_app = typer.Typer(help="The embedded benchmark.", no_args_is_help=True)
app.add_typer(pocket_app, name="pocket")


@pocket_app.command()
def build(
    out: Annotated[Path, typer.Option(help="Folder to make.")],
    seed: Seed = 0,
    people: Annotated[int, typer.Option(help="How many have a name.")] = 40,
    forget: Annotated[int, typer.Option(help="How many of them are to be forgotten.")] = 4,
    faces: Annotated[
        Path | None, typer.Option(help="Photographs instead of drawings: a subfolder a person.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Make the pocket benchmark from seeds: pictures, models and references.

    Example: unsee pocket build --out pocket --faces photos/
    """
    from unsee.benchmarks.pocket.build import build as make
    from unsee.progress import bar

    with bar(quiet=as_json) as shown:
        make(out, seed=seed, people=people, forget=forget, faces=faces, progress=shown.stage)
    echo(json.loads((out / "build.json").read_text("utf-8")), as_json)
