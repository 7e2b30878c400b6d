"""The command finetune."""

from __future__ import annotations

from pathlib import Path

import typer

from unsee.cli.shared import DryRun, Json, Out, Overrides, RecipeFile, app, command, echo


@app.command()
def finetune(
    recipe: RecipeFile,
    overrides: Overrides = None,
    out: Out = None,
    dry_run: DryRun = False,
    as_json: Json = False,
) -> None:
    """Fine-tune target and reference models from a base.

    who=target learns everything, who=visual_retain all texts but no image of the people to forget,
    who=retain_only nothing about them; who=all makes the three.

    Example: unsee finetune finetune-pocket-lora who=all --out models
    """
    from unsee.progress import bar
    from unsee.recipes.catalog import find_recipe
    from unsee.recipes.finetune import read_finetune
    from unsee.recipes.plan_finetune import plan_finetune
    from unsee.runs.finetune import finetune, finished_finetune

    recipe = find_recipe(recipe)
    made = read_finetune(recipe, overrides or [])
    lesson = plan_finetune(made)
    if dry_run:
        echo({"recipe": str(recipe), "base": lesson.base, "models": lesson.describe()}, as_json)
        return
    place = out or Path("runs") / recipe.stem
    if finished_finetune(lesson, place) is not None:
        typer.echo(f"Note: {place} holds these models, finished before.", err=True)
    with bar(quiet=as_json) as shown:
        record = finetune(lesson, place, command(), shown)
    if as_json:
        echo(record.to_dict(), as_json)
        return
    for who, model in record.models.items():
        for kind, name in model.saved.items():
            typer.echo(f"{who} {kind}: {place / name}")
