"""Commands that unlearn: demo, unlearn and run."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from unsee.cli.shared import (
    DeviceName,
    DryRun,
    HubRevision,
    Json,
    LogWith,
    Out,
    Overrides,
    RecipeFile,
    Redact,
    SaltFile,
    Seed,
    Set,
    Trust,
    app,
    at_hub_revision,
    command,
    complete,
    echo,
    print_run,
    progress,
    redaction,
    trusted,
)


@app.command()
def demo(
    out: Annotated[Path, typer.Option(help="Run folder to write.")] = Path("runs/demo"),
    seed: Seed = 0,
    as_json: Json = False,
) -> None:
    """Run a complete example on a small model that ships with unsee.

    Unlearns four people from a tiny LLaVA, attacks the result, and writes a report.

    Example: unsee demo --out runs/demo
    """
    with progress(as_json) as bar:
        from unsee import api

        made = api.demo(out, seed=seed, progress=bar, command=command())
    print_run(made, as_json)


@app.command()
def unlearn(
    model: Annotated[str, typer.Option(help="Checkpoint to unlearn: a folder, or a hub id.")],
    forget: Annotated[
        str,
        typer.Option(
            help="What to forget: a folder of images, a table of samples, or a benchmark's split "
            "such as pocket:forget."
        ),
    ],
    box: Annotated[
        str | None,
        typer.Option(
            help="Face to forget in a group photograph, if --forget holds one: x0,y0,x1,y1 in "
            "pixels or fractions. For several, a file boxes.csv or a column box."
        ),
    ] = None,
    retain: Annotated[
        str | None,
        typer.Option(help="Images or samples that the model must still recognise."),
    ] = None,
    patch: Annotated[
        list[Path] | None,
        typer.Option(
            help="Patch that is on the model already, put on it in memory; the new one is stacked "
            "on it. Repeatable, in the order in which they were made."
        ),
    ] = None,
    strangers: Annotated[
        str | None, typer.Option(help="Images of people that the model was never trained on.")
    ] = None,
    reference: Annotated[
        str | None,
        typer.Option(help="Reference model, trained without images of the forgotten people."),
    ] = None,
    hub_revision: HubRevision = None,
    method: Annotated[
        str,
        typer.Option(
            help="Unlearning method; see `unsee list methods`.",
            autocompletion=complete("methods"),
        ),
    ] = "vkd",
    supervision: Annotated[
        str | None,
        typer.Option(help="vkd only: full (answers and images) or features (images alone)."),
    ] = None,
    tier: Annotated[
        str | None,
        typer.Option(
            help="vkd only: visual (text stays bit for bit as it is) or language (the LLM is "
            "edited too, so that the face is harder to bring back)."
        ),
    ] = None,
    out: Out = None,
    save: Annotated[
        str | None,
        typer.Option(
            help="What to save: patch (visual weights), model, or adapter (LoRA). Default: patch "
            "if only the visual part changes, else model."
        ),
    ] = None,
    names: Annotated[
        bool,
        typer.Option("--names", help="Allow the saved model card to name the forgotten people."),
    ] = False,
    ask: Annotated[
        list[str] | None,
        typer.Option(
            help='Open question about photographs without answers, in place of "Who is this?" and '
            "two more. Repeatable; none asks nothing."
        ),
    ] = None,
    log_with: LogWith = None,
    redact: Redact = False,
    salt: SaltFile = None,
    set_: Set = None,
    seed: Seed = 0,
    trust_remote_code: Trust = False,
    device: DeviceName = "auto",
    as_json: Json = False,
) -> None:
    """Unlearn people from a checkpoint.

    A folder of images of these people is enough, one subfolder for each person.

    Example: unsee unlearn --model DIR --forget photos/ --out runs/job
    """
    with progress(as_json) as bar:
        from unsee import api
        from unsee.recipes.parsing import parse_overrides

        fields = parse_overrides(set_ or [])
        given_fields = {"supervision": supervision, "tier": tier}
        fields |= {name: value for name, value in given_fields.items() if value is not None}
        given = {"forget": forget, "retain": retain, "strangers": strangers}
        made = api.unlearn(
            model,
            **at_hub_revision(hub_revision, given),  # type: ignore[arg-type]
            method=method,
            out=out,
            progress=bar,
            command=command(),
            **({"patch": patch} if patch else {}),  # type: ignore[arg-type]
            **({"ask": ask} if ask else {}),  # type: ignore[arg-type]
            reference=reference,
            save=save,
            names=names,
            log_with=log_with,
            redact=redact,
            salt=salt,
            seed=seed,
            trust_remote_code=trust_remote_code,
            device=device,
            box=box,
            **fields,
        )
    print_run(made, as_json)


@app.command()
def run(
    recipe: RecipeFile,
    overrides: Overrides = None,
    out: Out = None,
    dry_run: DryRun = False,
    log_with: LogWith = None,
    redact: Redact = False,
    salt: SaltFile = None,
    trust_remote_code: Trust = False,
    as_json: Json = False,
) -> None:
    """Run a recipe: train, evaluate, attack and report.

    Example: unsee run pocket-vkd lr=1e-4 --out runs/vkd
    """
    with progress(as_json) as bar:
        from unsee import api
        from unsee.recipes.parsing import parse_overrides

        fields = parse_overrides(overrides or []) | trusted(trust_remote_code)
        if log_with is not None:
            fields["log_with"] = log_with
        fields |= redaction(redact, salt)
        if not dry_run:
            made = api.run(recipe, out=out, progress=bar, command=command(), **fields)
    if dry_run:
        echo(api.check_recipe(recipe, **fields), as_json)
    else:
        print_run(made, as_json)
