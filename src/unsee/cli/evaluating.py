"""Commands that measure: evaluate, audit and report."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from unsee.cli.shared import (
    DeviceName,
    HubRevision,
    Json,
    PatchOption,
    Redact,
    SaltFile,
    Trust,
    announce_loading,
    app,
    at_hub_revision,
    command,
    complete,
    echo,
    print_run,
    progress,
    split_names,
)

LoadInName = Annotated[
    str | None, typer.Option("--load-in", help="Quantize the weights when loading: 8bit or 4bit.")
]


@app.command()
def evaluate(
    model: Annotated[str, typer.Option(help="Checkpoint to evaluate: a folder, or a hub id.")],
    data: Annotated[
        list[str] | None,
        typer.Option(
            metavar="[NAME=]PATH",
            help="Samples with answers: a table or a benchmark's split, or NAME=PATH to name the "
            "split. Repeatable.",
        ),
    ] = None,
    hub_revision: HubRevision = None,
    patch: PatchOption = None,
    target: Annotated[
        str | None, typer.Option(help="Model before unlearning, evaluated on the same data.")
    ] = None,
    reference: Annotated[
        str | None,
        typer.Option(help="Reference model, trained without images of the forgotten people."),
    ] = None,
    metrics: Annotated[
        str | None,
        typer.Option(
            help="Metrics, separated by commas; see `unsee list metrics`.",
            autocompletion=complete("metrics"),
        ),
    ] = None,
    max_new_tokens: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Longest answer to generate (tokens). Default: the benchmark's, or room for the "
            "longest true answer.",
        ),
    ] = None,
    rules: Annotated[
        str | None,
        typer.Option(
            help="published: score answers as the benchmark's scripts do (default). own: as the "
            "metrics do by default."
        ),
    ] = None,
    tasks: Annotated[
        str | None,
        typer.Option(help="Tasks of lm-evaluation-harness, separated by commas."),
    ] = None,
    tasks_path: Annotated[
        Path | None, typer.Option(help="Folder of further tasks in lm-eval's YAML format.")
    ] = None,
    limit: Annotated[
        int | None, typer.Option(min=1, help="Largest number of samples for each task.")
    ] = None,
    shots: Annotated[
        int | None, typer.Option(min=0, help="Few-shot examples. Default: what each task says.")
    ] = None,
    chat_template: Annotated[
        bool,
        typer.Option("--chat-template", help="Apply the chat template to the prompts of tasks."),
    ] = False,
    out: Annotated[Path, typer.Option(help="Run folder to write.")] = Path("runs/evaluate"),
    redact: Redact = False,
    salt: SaltFile = None,
    trust_remote_code: Trust = False,
    device: DeviceName = "auto",
    load_in: LoadInName = None,
    as_json: Json = False,
) -> None:
    """Evaluate a model, or a visual patch applied to it.

    Scores it on samples with answers (--data), on published tasks (--tasks), or both.

    Example: unsee evaluate --model DIR --data pocket:forget_holdout --data pocket:general
    """
    with progress(as_json) as bar:
        from unsee import api
        from unsee.api.inputs import named_splits

        run = api.evaluate(
            model,
            at_hub_revision(hub_revision, {**named_splits(data)}) if data else (),  # type: ignore[arg-type]
            metrics=split_names(metrics, "--metrics"),
            tasks=split_names(tasks, "--tasks"),
            out=out,
            progress=bar,
            target=target,
            reference=reference,
            patch=patch or (),
            max_new_tokens=max_new_tokens,
            rules=rules,  # type: ignore[arg-type]
            tasks_path=tasks_path,
            limit=limit,
            shots=shots,
            chat_template=chat_template,
            load_in=load_in,  # type: ignore[arg-type]
            device=device,  # type: ignore[arg-type]
            trust_remote_code=trust_remote_code,
            redact=redact,
            salt=salt,
            command=command(),
        )
    print_run(run, as_json)


@app.command()
def audit(
    model: Annotated[
        str, typer.Option(help="Unlearned checkpoint to attack: a folder, or a hub id.")
    ],
    forget: Annotated[
        str,
        typer.Option(
            help="What it should have forgotten: samples with answers, or pocket:forget; "
            "photographs, of an image encoder."
        ),
    ],
    hub_revision: HubRevision = None,
    attack: Annotated[
        list[str] | None,
        typer.Option(
            "--attack",
            "--attacks",
            metavar="ATTACK",
            help="NAME?field=value&field=value; + chains attacks, all is every attack, standard "
            "the standard suite. Repeatable. Default: relearn.",
            autocompletion=complete("attacks"),
        ),
    ] = None,
    patch: PatchOption = None,
    holdout: Annotated[
        str | None,
        typer.Option(
            help="Held-out forget samples, which score the attack. Default: part of --forget."
        ),
    ] = None,
    retain: Annotated[
        str | None, typer.Option(help="Samples of other people that the attacker also has.")
    ] = None,
    retain_holdout: Annotated[
        str | None, typer.Option(help="Retain samples to score after the attack.")
    ] = None,
    non_members: Annotated[
        str | None,
        typer.Option(help="Non-member samples: controls for membership inference."),
    ] = None,
    reference: Annotated[
        str | None,
        typer.Option(
            help="Reference model, trained without images of the forgotten people; attacked too."
        ),
    ] = None,
    retain_only: Annotated[
        str | None,
        typer.Option(help="Model trained on nothing about the forgotten people; attacked too."),
    ] = None,
    visual_refit: Annotated[
        str | None,
        typer.Option(
            help="Visual weights from before the people were learned, trained again; attacked too."
        ),
    ] = None,
    target: Annotated[str | None, typer.Option(help="Model before unlearning.")] = None,
    equivalence_margin: Annotated[
        float,
        typer.Option(help="Difference to the reference that counts as equal, before the attack."),
    ] = 0.05,
    attack_margin: Annotated[float, typer.Option(help="The same under attack.")] = 0.05,
    set_: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="KEY=VALUE",
            help="Field of every attack that has it, as key=value, or of one, as ATTACK.key=value. "
            "Repeatable.",
        ),
    ] = None,
    out: Annotated[Path, typer.Option(help="Run folder to write.")] = Path("runs/audit"),
    redact: Redact = False,
    salt: SaltFile = None,
    trust_remote_code: Trust = False,
    device: DeviceName = "auto",
    load_in: LoadInName = None,
    as_json: Json = False,
) -> None:
    """Attack a model to recover what it should have forgotten.

    Example: unsee audit --attack relearn --model DIR --forget people.jsonl --set modules=all
    """
    with progress(as_json) as bar:
        from unsee import api
        from unsee.recipes.parsing import parse_overrides

        given = {
            "forget": forget,
            "holdout": holdout,
            "retain": retain,
            "retain_holdout": retain_holdout,
            "non_members": non_members,
        }
        run = api.audit(
            model,
            **at_hub_revision(hub_revision, given),  # type: ignore[arg-type]
            attacks=attack or ["relearn"],
            out=out,
            progress=bar,
            patch=patch or (),
            target=target,
            reference=reference,
            retain_only=retain_only,
            visual_refit=visual_refit,
            equivalence_margin=equivalence_margin,
            attack_margin=attack_margin,
            fields=parse_overrides(set_ or []),
            load_in=load_in,  # type: ignore[arg-type]
            device=device,  # type: ignore[arg-type]
            trust_remote_code=trust_remote_code,
            redact=redact,
            salt=salt,
            command=command(),
        )
    print_run(run, as_json)


@app.command()
def report(
    runs: Annotated[list[Path], typer.Argument(help="Folders of finished runs.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="HTML file to write.")] = Path(
        "report.html"
    ),
    as_json: Json = False,
) -> None:
    """Write one HTML report of finished runs.

    The file needs no network and no other file.

    Example: unsee report runs/vkd runs/npo -o report.html
    """
    announce_loading(quiet=as_json)
    from unsee import report as reports

    echo({"report": str(reports.write(runs, output))}, as_json)
