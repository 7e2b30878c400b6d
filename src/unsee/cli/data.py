"""Commands that make data sets, and look into them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from unsee.cli.shared import Json, Seed, app, echo
from unsee.errors import ConfigError

pocket_app = typer.Typer(help="The embedded benchmark.", no_args_is_help=True)
app.add_typer(pocket_app, name="pocket")
data_app = typer.Typer(help="Data sets.", no_args_is_help=True)
app.add_typer(data_app, name="data")


@data_app.command()
def check(
    spec: Annotated[
        str, typer.Argument(help="Folder, table, or NAME[:SPLIT][@LOCATION][?ratio=R&shots=N].")
    ],
    as_json: Json = False,
) -> None:
    """Read a data set and say what is in it, and what is unusable.

    Example: unsee data check mllmu@DIR?ratio=5
    """
    from unsee.recipes.data_check import inspect

    found = inspect(spec)
    if as_json:
        echo(found, as_json)
    else:
        for name, counts in found["splits"].items():
            tasks = ", ".join(f"{number} {task}" for task, number in counts["tasks"].items())
            typer.echo(
                f"{name}: {counts['samples']} samples ({tasks}), {counts['people']} people, "
                f"{counts['pictures']} pictures, {counts['empty_answers']} empty answers"
            )
            if counts["repeated"]:
                typer.echo(f"{name}: {counts['repeated']} samples ask what another asks")
        for shared in found["overlaps"]:
            one, other = shared["splits"]
            typer.echo(f"{one} and {other} share {shared['pictures']} pictures")
        for problem in found["problems"]:
            typer.echo(f"unusable: {problem}")
    if found["problems"]:
        raise typer.Exit(2)


@pocket_app.command()
def build(
    out: Annotated[Path, typer.Option(help="Folder to make.")],
    seed: Seed = 0,
    people: Annotated[int | None, typer.Option(help="How many have a name (40).")] = None,
    forget: Annotated[int | None, typer.Option(help="How many are to be forgotten (4).")] = None,
    faces: Annotated[
        Path | None, typer.Option(help="Photographs instead of drawings: a subfolder a person.")
    ] = None,
    parts: Annotated[
        str | None, typer.Option(help="Pretrained parts instead of a tiny model: smol, minimind.")
    ] = None,
    effort: Annotated[str, typer.Option(help="With --parts: full, small, quick.")] = "full",
    language: Annotated[
        Path | None, typer.Option(help="With --parts minimind: the npm tarball or its folder.")
    ] = None,
    device: Annotated[str, typer.Option(help="With --parts: auto, cpu or cuda.")] = "auto",
    as_json: Json = False,
) -> None:
    """Make the pocket benchmark from seeds: pictures, models and references.

    Example: unsee pocket build --out pocket --faces photos/
    """
    from unsee.pocket_builder.from_scratch import build as make
    from unsee.progress import bar

    with bar(quiet=as_json) as shown:
        if parts is None:
            _only_with_parts(effort=effort != "full", language=language, device=device != "auto")
            people, forget = 40 if people is None else people, 4 if forget is None else forget
            make(out, seed=seed, people=people, forget=forget, faces=faces, progress=shown.stage)
        else:
            from unsee.pocket_builder.from_pretrained import build as make_pretrained

            make_pretrained(
                out, parts, seed=seed, people=people, forget=forget, faces=faces, scale=effort,
                source=language, device=device, progress=shown.stage,
            )  # fmt: skip
    echo(json.loads((out / "build.json").read_text("utf-8")), as_json)


def _only_with_parts(**given: object) -> None:
    wrong = [name for name, value in given.items() if value]
    if wrong:
        raise ConfigError(f"--{wrong[0]} goes with --parts only. Type --parts smol or minimind.")
