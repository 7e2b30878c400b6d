"""Commands that make data sets."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from unsee.cli.shared import Json, Seed, app, echo
from unsee.errors import ConfigError

pocket_app = typer.Typer(help="The embedded benchmark.", no_args_is_help=True)
app.add_typer(pocket_app, name="pocket")


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
    device: Annotated[str | None, typer.Option(help="With --parts: cpu or cuda.")] = None,
    as_json: Json = False,
) -> None:
    """Make the pocket benchmark from seeds: pictures, models and references.

    Example: unsee pocket build --out pocket --faces photos/
    """
    from unsee.benchmarks.pocket.build import build as make
    from unsee.progress import bar

    with bar(quiet=as_json) as shown:
        if parts is None:
            _only_with_parts(effort=effort != "full", language=language, device=device)
            people, forget = 40 if people is None else people, 4 if forget is None else forget
            make(out, seed=seed, people=people, forget=forget, faces=faces, progress=shown.stage)
        else:
            from unsee.benchmarks.pocket.pretrained import build as make_pretrained

            make_pretrained(
                out, parts, seed=seed, people=people, forget=forget, faces=faces, scale=effort,
                source=language, device=device, progress=shown.stage,
            )  # fmt: skip
    echo(json.loads((out / "build.json").read_text("utf-8")), as_json)


def _only_with_parts(**given: object) -> None:
    wrong = [name for name, value in given.items() if value]
    if wrong:
        raise ConfigError(f"--{wrong[0]} goes with --parts only. Type --parts smol or minimind.")
