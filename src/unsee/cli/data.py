"""Commands on data sets: data check and pocket build."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from unsee.cli.shared import (
    HubRevision,
    Json,
    Seed,
    announce_loading,
    app,
    at_hub_revision,
    echo,
    renamed,
)
from unsee.errors import ConfigError, counted, printable

pocket_app = typer.Typer(
    help="Build the pocket benchmark, which ships with unsee.", no_args_is_help=True
)
app.add_typer(pocket_app, name="pocket")
data_app = typer.Typer(help="Check data sets.", no_args_is_help=True)
app.add_typer(data_app, name="data")


@data_app.command()
def check(
    spec: Annotated[
        str,
        typer.Argument(
            help="Folder, table, hub id OWNER/NAME[@REVISION], or benchmark "
            "NAME[:SPLIT][@LOCATION][?ratio=R&shots=N&revision=REVISION&skew=S]."
        ),
    ],
    hub_revision: HubRevision = None,
    retain: Annotated[
        str | None,
        typer.Option(help="Set to keep: names near-duplicates, people and texts in both."),
    ] = None,
    strangers: Annotated[
        str | None, typer.Option(help="Pictures of strangers: names those that are in the data.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Check a data set: print what it holds and what is unusable.

    Of a data set on the hub, and of a folder of tables, only the beginnings of the files are read:
    what it holds, which benchmark it looks like, and which columns are missing. The exit code is 2
    if anything in it is unusable.

    Example: unsee data check mllmu@DIR?ratio=5
    """
    announce_loading(quiet=as_json)
    from unsee.recipes.data_check import inspect
    from unsee.recipes.data_overview import lines, overview, with_prefix

    typed = {"data": with_prefix(spec), "retain": retain, "strangers": strangers}
    given = at_hub_revision(hub_revision, typed)
    place = given["data"] or spec
    found = overview(place)
    if found is not None:
        _refuse_comparison(spec, retain, strangers)
        _print_overview(found, lines(found), as_json)
        return
    found = inspect(place, given["retain"], given["strangers"])
    if as_json:
        echo(found, as_json)
    else:
        for name, counts in found["splits"].items():
            tasks = ", ".join(f"{number} {task}" for task, number in counts["tasks"].items())
            typer.echo(
                f"{name}: {counted(counts['samples'], 'sample')} ({tasks}), "
                f"{counted(counts['people'], 'person', 'people')}, "
                f"{counted(counts['pictures'], 'picture')}, "
                f"{counted(counts['empty_answers'], 'empty answer')}"
            )
            if counts["repeated"]:
                typer.echo(f"{name}: {counts['repeated']} samples ask what another asks")
        for shared in found["overlaps"]:
            one, other = shared["splits"]
            typer.echo(f"{one} and {other} share {counted(shared['pictures'], 'picture')}")
        for note in found["notes"]:
            typer.echo(printable(note))
        for problem in found["problems"]:
            typer.echo(f"unusable: {problem}")
    if found["problems"]:
        raise typer.Exit(2)


def _refuse_comparison(spec: str, retain: str | None, strangers: str | None) -> None:
    """Refuses sets to compare with where no sample is read."""
    option = "--retain" if retain is not None else "--strangers" if strangers is not None else None
    if option is not None:
        raise ConfigError(
            f"{option} is compared sample by sample, and of {spec} only the tables are listed. "
            "Leave it out, or give a benchmark, a table, or a folder of pictures."
        )


def _print_overview(found: dict[str, Any], shown: list[str], as_json: bool) -> None:
    """Prints the tables of a data set; the exit code is 2 if one is unusable."""
    if as_json:
        echo(found, as_json)
    else:
        for line in shown:
            typer.echo(printable(line))
        for problem in found["problems"]:
            typer.echo(f"unusable: {printable(problem)}")
    if found["problems"]:
        raise typer.Exit(2)


@pocket_app.command()
def build(
    out: Annotated[Path, typer.Option(help="Folder to make.")],
    seed: Seed = 0,
    people: Annotated[
        int | None, typer.Option(help="Number of people the target model knows. Default: 40.")
    ] = None,
    forget_people: Annotated[
        int | None,
        typer.Option("--forget-people", help="Number of them to forget. Default: 4."),
    ] = None,
    forget: Annotated[int | None, typer.Option("--forget", hidden=True)] = None,
    faces: Annotated[
        Path | None,
        typer.Option(help="Photographs to use instead of drawings: one subfolder for each person."),
    ] = None,
    parts: Annotated[
        str | None,
        typer.Option(help="Pretrained parts to use instead of a tiny model: smol or minimind."),
    ] = None,
    effort: Annotated[
        str, typer.Option(help="With --parts: how long to train; full, small or quick.")
    ] = "full",
    language: Annotated[
        Path | None, typer.Option(help="With --parts minimind: the npm tarball, or its folder.")
    ] = None,
    device: Annotated[
        str, typer.Option(help="With --parts: auto (a GPU if there is one), cpu or cuda.")
    ] = "auto",
    as_json: Json = False,
) -> None:
    """Build the pocket benchmark: images, models and references.

    Example: unsee pocket build --out pocket --faces photos/
    """
    announce_loading(quiet=as_json)
    from unsee.pocket_builder.from_scratch import build as make
    from unsee.progress import bar

    forget = renamed("--forget", forget, "--forget-people", forget_people)
    with bar(quiet=as_json) as shown:
        if parts is None:
            _only_with_parts(effort=effort != "full", language=language, device=device != "auto")
            people, forget = 40 if people is None else people, 4 if forget is None else forget
            make(out, seed=seed, people=people, forget=forget, faces=faces, progress=shown.stage)
        else:
            from unsee.pocket_builder.from_pretrained import build as make_pretrained
            from unsee.pocket_builder.from_pretrained import scale_of

            make_pretrained(
                out,
                parts,
                seed=seed,
                faces=faces,
                scale=scale_of(effort, people, forget),
                source=language,
                device=device,
                progress=shown.stage,
            )
    echo(json.loads((out / "build.json").read_text("utf-8")), as_json)


def _only_with_parts(**given: object) -> None:
    wrong = [name for name, value in given.items() if value]
    if wrong:
        raise ConfigError(f"--{wrong[0]} needs --parts. Type --parts smol, or --parts minimind.")
