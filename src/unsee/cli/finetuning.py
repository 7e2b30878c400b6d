"""The command finetune."""

from __future__ import annotations

import json
from pathlib import Path

import typer

from unsee.cli.shared import (
    DryRun,
    Json,
    Out,
    Overrides,
    RecipeFile,
    Trust,
    app,
    command,
    echo,
    progress,
    trusted,
)


@app.command()
def finetune(
    recipe: RecipeFile,
    overrides: Overrides = None,
    out: Out = None,
    dry_run: DryRun = False,
    trust_remote_code: Trust = False,
    as_json: Json = False,
) -> None:
    """Fine-tune target and reference models from a base.

    who=target learns everything, who=visual_retain all texts but no image of the people to forget,
    who=retain_only nothing about them; who=all makes the three. who=visual_refit trains visual
    weights from before the people were learned beside the target's language part.

    Example: unsee finetune finetune-pocket-lora who=all --out models
    """
    with progress(as_json) as bar:
        from unsee import api
        from unsee.recipes.catalog import find_recipe
        from unsee.recipes.parsing import parse_overrides

        fields = parse_overrides(overrides or []) | trusted(trust_remote_code)
        folder = out or Path("runs") / find_recipe(recipe).stem
        if not dry_run:
            record = api.finetune(recipe, out=folder, progress=bar, command=command(), **fields)
    if dry_run:
        echo(api.check_finetune(recipe, **fields), as_json)
    elif as_json:
        echo(json.loads((folder / "finetune.json").read_text("utf-8")), as_json)
    else:
        for role, model in record.models.items():
            for kind, name in model.saved.items():
                typer.echo(f"{role} {kind}: {folder / name}")
