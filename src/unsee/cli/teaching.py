"""The command that makes models which know something."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from unsee.cli.shared import Json, Out, app, command, echo


@app.command()
def finetune(
    recipe: Annotated[Path, typer.Argument(help="A YAML recipe.")],
    overrides: Annotated[list[str] | None, typer.Argument(help="key=value ...")] = None,
    out: Out = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Check everything, do nothing.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Make target, visual-retain and retain-only models from a base checkpoint.

    Example: unsee finetune recipes/finetune-pocket-lora.yaml who=all --out models
    """
    from unsee.finetune import plan_finetune, read_finetune
    from unsee.progress import bar
    from unsee.teach import teach

    made = read_finetune(recipe, overrides or [])
    lesson = plan_finetune(made)
    if dry_run:
        echo({"recipe": str(recipe), "base": lesson.base, "models": lesson.describe()}, as_json)
        return
    place = out or Path("runs") / recipe.stem
    with bar(quiet=as_json) as shown:
        record = teach(lesson, place, command(), shown)
    if as_json:
        echo(record, as_json)
        return
    for who, model in record["models"].items():
        for kind, name in model["saved"].items():
            typer.echo(f"{who} {kind}: {place / name}")
