"""Commands that say what there is."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from unsee.cli.shared import Json, app, echo
from unsee.errors import UnknownNameError

KINDS = ("methods", "benchmarks", "metrics", "attacks", "families")


@app.command(name="list")
def list_(
    kind: Annotated[str, typer.Argument(help="methods, benchmarks, metrics, attacks, families.")],
    as_json: Json = False,
) -> None:
    """List what there is of a kind.

    Example: unsee list methods
    """
    rows = _registry(kind).describe()
    if as_json:
        echo(rows, as_json)
        return
    width = max((len(row["name"]) for row in rows), default=0)
    for row in rows:
        typer.echo(f"{row['name']:<{width}}  {row['summary']}")


@app.command()
def show(
    name: Annotated[str, typer.Argument(help="Anything that `unsee list` names.")],
    as_json: Json = False,
) -> None:
    """Show what a method, metric, attack, family or benchmark is, with its fields.

    Example: unsee show vkd
    """
    from dataclasses import MISSING, fields, is_dataclass
    from inspect import cleandoc

    from unsee.recipes.finetune import Finetune
    from unsee.training.settings import TrainingSettings

    known: dict[str, Any] = {"settings": TrainingSettings, "finetune": Finetune}
    for kind in KINDS:
        known |= dict(_registry(kind).items())
    if name not in known:
        raise UnknownNameError("name", name, known)
    item = known[name]
    values = {}
    if is_dataclass(item):
        values = {f.name: None if f.default is MISSING else f.default for f in fields(item)}
    text = cleandoc(item.__doc__ or "")
    presets = getattr(item, "presets", {})
    if as_json:
        source = getattr(item, "source", "")
        shown = {"name": name, "text": text, "source": source, "fields": values}
        echo(shown | ({"presets": presets} if presets else {}), as_json)
        return
    typer.echo(text)
    for key, value in values.items():
        typer.echo(f"  --set {key}={value}")
    for key, meant in presets.items():
        typer.echo(f"  --set {key}=true, for {' '.join(f'{k}={v}' for k, v in meant.items())}")


def _registry(kind: str) -> Any:
    if kind not in KINDS:
        raise UnknownNameError("kind", kind, KINDS)
    import importlib

    return getattr(importlib.import_module(f"unsee.{kind}"), kind.upper())
