"""Commands that describe what can be used and written: list, show and schema."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import typer

from unsee.cli.catalogue import KINDS, entries, names, package_of
from unsee.cli.shared import Json, announce_loading, app, echo
from unsee.errors import UnknownNameError

# What `unsee show` knows besides the registered objects.
EXTRA = ("settings", "recipe", "finetune")


def _complete_names(incomplete: str) -> list[str]:
    known = [*EXTRA, *(name for kind in KINDS for name in names(kind))]
    return [name for name in known if name.startswith(incomplete)]


@app.command(name="list")
def list_(
    kind: Annotated[
        str | None,
        typer.Argument(
            help="methods, metrics, attacks, benchmarks, families or encoders. Without it: these "
            "kinds.",
            autocompletion=lambda incomplete: [k for k in KINDS if k.startswith(incomplete)],
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """List methods, metrics, attacks, benchmarks, families or encoders.

    Example: unsee list methods
    """
    if kind is None:
        counts = [
            {"kind": name, "count": len(names(name)), "summary": summary}
            for name, summary in KINDS.items()
        ]
        if as_json:
            echo(counts, as_json)
            return
        for row in counts:
            typer.echo(f"{row['kind']:<10}  {row['count']:>2}  {row['summary']}")
        typer.echo("Type `unsee list methods` for the names, `unsee show NAME` for one of them.")
        return
    listed = entries(kind)
    if as_json:
        echo([vars(entry) for entry in listed], as_json)
        return
    width = max((len(entry.name) for entry in listed), default=0)
    for entry in listed:
        typer.echo(f"{entry.name:<{width}}  {entry.summary}")


@app.command()
def show(
    name: Annotated[
        str,
        typer.Argument(
            help="A name that `unsee list KIND` prints, or settings, recipe or finetune.",
            autocompletion=_complete_names,
        ),
    ],
    as_json: Json = False,
) -> None:
    """Show a method, metric, attack, benchmark, family or encoder.

    The output is YAML: paste the lines below the comments into a recipe, or type a field as
    --set key=value. --json adds the type, the choices, the bounds and the description of each.

    Example: unsee show vkd
    """
    announce_loading(quiet=as_json)
    from dataclasses import is_dataclass
    from inspect import cleandoc

    from unsee.cli.fields import describe_fields, to_yaml
    from unsee.recipes.parsing import format_value

    kind, item = _find(name)
    text = cleandoc(item.__doc__ or "")
    fields = describe_fields(item) if is_dataclass(item) and isinstance(item, type) else {}
    values = {key: field["default"] for key, field in fields.items()}
    training = dict(getattr(item, "defaults", {}))
    presets = {key: dict(preset) for key, preset in getattr(item, "presets", {}).items()}
    if as_json:
        shown: dict[str, Any] = {
            "name": name,
            "kind": kind,
            "text": text,
            "source": getattr(item, "source", ""),
            "fields": values,
            "schema": fields,
        }
        extra = {"presets": presets, "training_defaults": training}
        echo(shown | {key: value for key, value in extra.items() if value}, as_json)
        return
    typer.echo("\n".join(f"# {line}".rstrip() for line in text.splitlines()))
    if training:
        typer.echo(f"#\n# Training defaults of this method: {format_value(training).strip('{}')}")
    for key, preset in presets.items():
        typer.echo(f"#\n# {key}: true stands for {format_value(preset).strip('{}')}")
    head = {"method": f"method: {name}", "attack": "attacks:", "benchmark": f"benchmark: {name}"}
    if kind in head:
        typer.echo(head[kind])
    if kind == "attack":
        typer.echo(f"- attack: {name}")
    if kind in ("method", "settings") and fields:
        typer.echo("set:")
    if kind != "benchmark" and fields:
        typer.echo(to_yaml(values, fields, 0 if kind in ("finetune", "recipe") else 2))


@app.command()
def schema(
    part: Annotated[
        Literal["record", "recipe", "certificate"],
        typer.Argument(
            help="record (summary.json of a run folder), recipe (YAML) or certificate "
            "(certificate.json)."
        ),
    ],
    json_schema: Annotated[
        bool,
        typer.Option("--json-schema", help="Print JSON Schema, which is the only format."),
    ] = True,
    as_json: Json = False,
) -> None:
    """Print the JSON Schema of a record, a recipe or a certificate.

    Editors complete and check YAML and JSON files by it; every key has a description.

    Example: unsee schema record --json-schema > record.schema.json
    """
    announce_loading(quiet=as_json)
    from unsee.certificates.schema import json_schema as certificate_json_schema
    from unsee.recipes.schema import recipe_json_schema
    from unsee.records.schema import json_schema as record_json_schema

    schemas = {
        "record": record_json_schema,
        "recipe": recipe_json_schema,
        "certificate": certificate_json_schema,
    }
    echo(schemas[part](), as_json=True)


def _find(name: str) -> tuple[str, Any]:
    """The kind ("method", "settings", ...) and the object that a name stands for.

    Raises:
        UnknownNameError: If nothing has the name.
    """
    from importlib import import_module

    if name == "settings":
        from unsee.training.settings import TrainingSettings

        return name, TrainingSettings
    if name == "recipe":
        from unsee.recipes.unlearn import RunOptions

        return name, RunOptions
    if name == "finetune":
        from unsee.recipes.finetune import Finetune

        return name, Finetune
    for kind in KINDS:
        registry = getattr(import_module(package_of(kind)), kind.upper())
        if name in registry.names():
            return registry.kind, registry.get(name)
    raise UnknownNameError("name", name, [*EXTRA, *(n for kind in KINDS for n in names(kind))])
