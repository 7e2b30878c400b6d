"""Commands that ask a model, attack it, and report what came of it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated

import typer

from unsee.cli.shared import DeviceName, Json, Set, Trust, app, command, echo, run_job
from unsee.errors import ConfigError


@app.command()
def evaluate(
    model: Annotated[str, typer.Option(help="Checkpoint folder, or hub id.")],
    data: Annotated[
        list[str] | None,
        typer.Option(help="Samples with answers: PATH, or SPLIT=PATH. Repeatable."),
    ] = None,
    patch: Annotated[
        Path | None, typer.Option(help="A visual patch to put on the model, in memory.")
    ] = None,
    target: Annotated[str | None, typer.Option(help="The model before unlearning.")] = None,
    reference: Annotated[str | None, typer.Option(help="A model beside it.")] = None,
    metrics: Annotated[
        str | None, typer.Option(help="Names of `unsee list metrics`, with commas between.")
    ] = None,
    tasks: Annotated[
        str | None,
        typer.Option(help="Tasks of lm-evaluation-harness, with commas between: docs/tasks.md."),
    ] = None,
    tasks_path: Annotated[
        Path | None, typer.Option(help="A folder with tasks of your own, in lm-eval's YAML format.")
    ] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Most samples of a task.")] = None,
    shots: Annotated[
        int | None, typer.Option(min=0, help="Few-shot examples of a task; else each task's own.")
    ] = None,
    chat_template: Annotated[
        bool, typer.Option("--chat-template", help="Put the tasks' prompts through it.")
    ] = False,
    out: Annotated[Path, typer.Option(help="Run folder to write.")] = Path("runs/evaluate"),
    trust_remote_code: Trust = False,
    device: DeviceName = "auto",
    load_in: Annotated[
        str | None, typer.Option(help="Hold the weights in fewer bits: 8bit or 4bit.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Score a model, or a visual patch on it, on samples with answers or on published tasks.

    Example: unsee evaluate --model DIR --data pocket:forget_holdout --data pocket:general
    """
    from unsee.recipes.plan_evaluation import evaluation

    suite = None
    if tasks is not None:
        from unsee.evaluation.lm_eval import open_suite

        suite = open_suite(_names(tasks), tasks_path, limit, shots, chat_template)
    elif tasks_path is not None or limit is not None or shots is not None or chat_template:
        raise ConfigError(
            "--tasks-path, --limit, --shots and --chat-template say how tasks are run. Name some: "
            "--tasks NAME,NAME."
        )
    if suite is None and not data:
        raise ConfigError("evaluate on what? Type --data PATH, --tasks NAME, or both.")
    if metrics is not None and not data:
        raise ConfigError("--metrics are of --data; a task has its own. Leave it out, or add that.")
    others = {"reference": reference, "target": target}
    job = evaluation(
        model,
        _splits(data or []),
        {name: path for name, path in others.items() if path},
        command(),
        trust_remote_code=trust_remote_code,
        metrics=_names(metrics) if metrics is not None else None,
        suite=suite,
        patch=patch,
        device=device,  # type: ignore[arg-type]
        load_in=load_in,  # type: ignore[arg-type]
    )
    run_job(job, out, as_json)


@app.command()
def audit(
    model: Annotated[str, typer.Option(help="The model that is said to have forgotten.")],
    forget: Annotated[str, typer.Option(help="Samples with answers, or pocket:forget.")],
    attack: Annotated[
        list[str] | None,
        typer.Option(help="NAME?field=value, + between composed ones, or all. Repeatable."),
    ] = None,
    holdout: Annotated[
        str | None, typer.Option(help="Held-out forget samples; else some of --forget are.")
    ] = None,
    retain: Annotated[
        str | None, typer.Option(help="Samples of others that the attacker has.")
    ] = None,
    retain_holdout: Annotated[str | None, typer.Option(help="Samples that must stay.")] = None,
    non_members: Annotated[
        str | None, typer.Option(help="Samples like --forget of people no model was taught.")
    ] = None,
    reference: Annotated[
        str | None, typer.Option(help="A model that never saw them, under the same attack.")
    ] = None,
    retain_only: Annotated[
        str | None, typer.Option(help="A model that never learned anything of them.")
    ] = None,
    target: Annotated[str | None, typer.Option(help="The model before unlearning.")] = None,
    set_: Set = None,
    out: Annotated[Path, typer.Option(help="Run folder to write.")] = Path("runs/audit"),
    trust_remote_code: Trust = False,
    device: DeviceName = "auto",
    as_json: Json = False,
) -> None:
    """Try to bring back what a model is said to have forgotten.

    Example: unsee audit --attack relearn --model DIR --forget people.jsonl --set modules=all
    """
    from unsee.recipes.components import build_chains
    from unsee.recipes.parsing import parse_overrides
    from unsee.recipes.plan_evaluation import evaluation

    paths = {"forget": forget, "forget_holdout": holdout, "retain_holdout": retain_holdout}
    others = {"reference": reference, "retain_only": retain_only, "target": target}
    job = evaluation(
        model,
        {name: path for name, path in paths.items() if path},
        {name: path for name, path in others.items() if path},
        command(),
        build_chains(attack or ["relearn"], parse_overrides(set_ or [])),
        trust_remote_code,
        device=device,  # type: ignore[arg-type]
        attacker={"retain": retain, "non_members": non_members},
    )
    run_job(job, out, as_json)


@app.command()
def report(
    runs: Annotated[list[Path], typer.Argument(help="Run folders.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="HTML file.")] = Path(
        "report.html"
    ),
    as_json: Json = False,
) -> None:
    """Write one offline HTML file from finished runs.

    Example: unsee report runs/vkd runs/npo -o report.html
    """
    from unsee import report as reports

    echo({"report": str(reports.write(runs, output))}, as_json)


def _names(listed: str) -> list[str]:
    return [name.strip() for name in listed.split(",")]


def _splits(pairs: list[str]) -> dict[str, str]:
    from unsee.recipes.specs import parse_spec

    found = {}
    for pair in pairs:
        # "?ratio=5" has a "=" too, and a split's own name needs none before it.
        name, separator, path = pair.partition("=")
        if not re.fullmatch(r"[\w-]+", name):
            separator = ""
        if not separator:
            spec = parse_spec(pair)
            name, path = (spec.split if spec else "data"), pair
        if name in found:
            raise ConfigError(f"--data {pair}: the split '{name}' is given twice. Type NAME=PATH.")
        found[name] = path
    return found
