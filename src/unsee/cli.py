"""The command line: parse, call, print. Everything heavy is imported when a command runs."""

from __future__ import annotations

import json
import os
import shlex
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from unsee.errors import ConfigError, UnknownNameError, UnseeError

app = typer.Typer(
    name="unsee",
    help="Make a multimodal LLM stop recognising what it sees, and keep what it has read.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
pocket_app = typer.Typer(help="The embedded benchmark.", no_args_is_help=True)
app.add_typer(pocket_app, name="pocket")

KINDS = ("methods", "benchmarks", "metrics", "attacks", "families")

Out = Annotated[Path | None, typer.Option("--out", help="Run folder to write.")]
Json = Annotated[bool, typer.Option("--json", help="Print only JSON on standard output.")]
Seed = Annotated[int, typer.Option(min=0, help="Decides every random draw.")]
Set = Annotated[
    list[str] | None,
    typer.Option("--set", help="A field of the method or the training: key=value. Repeatable."),
]
Trust = Annotated[
    bool, typer.Option("--trust-remote-code", help="Let the checkpoint's own Python code run.")
]


@app.command()
def demo(
    out: Annotated[Path, typer.Option(help="Run folder to write.")] = Path("runs/demo"),
    seed: Seed = 0,
    as_json: Json = False,
) -> None:
    """Make a small LLaVA forget four faces, attack it, and write a report.

    Example: unsee demo --out runs/demo
    """
    from unsee.plan import demo_recipe

    _run(demo_recipe(seed), "demo", out, as_json)


@app.command()
def unlearn(
    model: Annotated[str, typer.Option(help="Checkpoint folder, or hub id.")],
    forget: Annotated[
        str, typer.Option(help="Folder of pictures, table of samples, or pocket:forget.")
    ],
    retain: Annotated[str | None, typer.Option(help="The same, of what to keep.")] = None,
    strangers: Annotated[
        str | None, typer.Option(help="Folder of pictures of people it was never told about.")
    ] = None,
    reference: Annotated[
        str | None, typer.Option(help="A model that perfect unlearning would give.")
    ] = None,
    method: Annotated[str, typer.Option(help="See `unsee list methods`.")] = "vkd",
    supervision: Annotated[
        str | None, typer.Option(help="vkd: full (answers too) or features (pictures alone).")
    ] = None,
    out: Out = None,
    save: Annotated[
        str | None, typer.Option(help="patch or model; by default a patch where one suffices.")
    ] = None,
    set_: Set = None,
    seed: Seed = 0,
    trust_remote_code: Trust = False,
    as_json: Json = False,
) -> None:
    """Unlearn people from your own checkpoint; a folder of their pictures is enough.

    Example: unsee unlearn --model DIR --forget photos/ --out runs/job
    """
    from unsee.config import make_recipe, parse_overrides
    from unsee.plan import default_out

    given = {
        "model": model, "forget": forget, "retain": retain, "strangers": strangers,
        "reference": reference, "method": method, "save": save, "seed": seed,
        "trust_remote_code": trust_remote_code,
    }  # fmt: skip
    fields = parse_overrides(set_ or [])
    if supervision is not None:
        fields["supervision"] = supervision
    recipe = make_recipe(given | {"set": fields}, {})
    _run(recipe, "unlearn", out or default_out("unlearn", recipe), as_json)


@app.command()
def run(
    recipe: Annotated[Path, typer.Argument(help="A YAML recipe.")],
    overrides: Annotated[list[str] | None, typer.Argument(help="key=value ...")] = None,
    out: Out = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Check everything, do nothing.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Run a recipe: train, evaluate, attack, record, report.

    Example: unsee run recipes/pocket-vkd.yaml lr=1e-4 --out runs/vkd
    """
    from unsee.config import read_recipe
    from unsee.plan import default_out, plan

    made = read_recipe(recipe, overrides or [])
    if dry_run:
        job, _ = plan(made, "run", _command())
        counts = {name: len(samples) for name, samples in job.splits.items()}
        _print({"recipe": str(recipe), "method": made.method, "splits": counts}, as_json)
        return
    _run(made, "run", out or default_out(recipe.stem, made), as_json)


@app.command()
def evaluate(
    model: Annotated[str, typer.Option(help="Checkpoint folder, or hub id.")],
    data: Annotated[
        list[str], typer.Option(help="Samples with answers: PATH, or SPLIT=PATH. Repeatable.")
    ],
    reference: Annotated[str | None, typer.Option(help="A model beside it.")] = None,
    out: Annotated[Path, typer.Option(help="Run folder to write.")] = Path("runs/evaluate"),
    trust_remote_code: Trust = False,
    as_json: Json = False,
) -> None:
    """Score a model on samples with answers.

    Example: unsee evaluate --model DIR --data pocket:forget_holdout --data pocket:general
    """
    from unsee.plan import evaluation

    others = {"reference": reference} if reference else {}
    job = evaluation(model, _splits(data), others, _command(), trust_remote_code=trust_remote_code)
    _do(job, out, as_json)


@app.command()
def audit(
    model: Annotated[str, typer.Option(help="The model that is said to have forgotten.")],
    forget: Annotated[str, typer.Option(help="Samples with answers, or pocket:forget.")],
    attack: Annotated[str, typer.Option(help="See `unsee list attacks`.")] = "relearn",
    holdout: Annotated[
        str | None, typer.Option(help="Held-out forget samples; else some of --forget are.")
    ] = None,
    retain_holdout: Annotated[str | None, typer.Option(help="Samples that must stay.")] = None,
    reference: Annotated[
        str | None, typer.Option(help="A model that never saw them, under the same attack.")
    ] = None,
    target: Annotated[str | None, typer.Option(help="The model before unlearning.")] = None,
    set_: Set = None,
    out: Annotated[Path, typer.Option(help="Run folder to write.")] = Path("runs/audit"),
    trust_remote_code: Trust = False,
    as_json: Json = False,
) -> None:
    """Try to bring back what a model is said to have forgotten.

    Example: unsee audit --attack relearn --model DIR --forget people.jsonl --set modules=all
    """
    from unsee.config import build_attack, parse_overrides
    from unsee.plan import evaluation

    split, at, build = forget.partition("@")
    if (split, holdout) == ("pocket:forget", None):
        holdout = f"pocket:forget_holdout{at}{build}"
        retain_holdout = retain_holdout or f"pocket:retain_holdout{at}{build}"
    paths = {"forget": forget, "forget_holdout": holdout, "retain_holdout": retain_holdout}
    others = {"reference": reference, "target": target}
    job = evaluation(
        model,
        {name: path for name, path in paths.items() if path},
        {name: path for name, path in others.items() if path},
        _command(),
        (build_attack(attack, parse_overrides(set_ or [])),),
        trust_remote_code,
    )
    _do(job, out, as_json)


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

    _print({"report": str(reports.write(runs, output))}, as_json)


@app.command()
def apply(
    patch: Annotated[Path, typer.Argument(help="Patch folder.")],
    model: Annotated[str, typer.Option(help="The checkpoint it was made from.")],
    out: Annotated[Path, typer.Option(help="Checkpoint folder to write.")],
    as_json: Json = False,
) -> None:
    """Apply a visual patch to its base checkpoint, shard by shard.

    Example: unsee apply runs/job/patch --model DIR --out DIR-unlearned
    """
    from dataclasses import asdict

    from unsee.patch import apply_patch

    done = apply_patch(patch, model, out)
    if as_json:
        _print(asdict(done), as_json)
        return
    typer.echo(
        f"{out}: {len(done.manifest.changed)} tensors changed, {len(done.rewritten)} weight files "
        f"rewritten, {len(done.copied)} files copied."
    )
    if done.left_out:
        typer.echo(
            f"Note: left out, as they still hold what was forgotten: {', '.join(done.left_out)}",
            err=True,
        )


@app.command()
def verify(
    before: Annotated[str, typer.Argument(help="A checkpoint.")],
    after: Annotated[str, typer.Argument(help="Another.")],
    as_json: Json = False,
) -> None:
    """Say exactly what differs between two checkpoints, and whether they read text alike.

    Example: unsee verify DIR DIR-unlearned
    """
    from dataclasses import asdict

    from unsee.verify import verify as compare

    found = compare(before, after)
    if as_json:
        _print(asdict(found), as_json)
        return
    typer.echo(found.describe())


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
        _print(rows, as_json)
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

    from unsee.train import Settings

    known: dict[str, Any] = {"settings": Settings}
    for kind in KINDS:
        known |= dict(_registry(kind).items())
    if name not in known:
        raise UnknownNameError("name", name, known)
    item = known[name]
    values = {}
    if is_dataclass(item):
        values = {f.name: None if f.default is MISSING else f.default for f in fields(item)}
    text = cleandoc(item.__doc__ or "")
    if as_json:
        source = getattr(item, "source", "")
        _print({"name": name, "text": text, "source": source, "fields": values}, as_json)
        return
    typer.echo(text)
    for key, value in values.items():
        typer.echo(f"  --set {key}={value}")


@pocket_app.command()
def build(
    out: Annotated[Path, typer.Option(help="Folder to make.")],
    seed: Seed = 0,
    people: Annotated[int, typer.Option(help="How many have a name.")] = 40,
    forget: Annotated[int, typer.Option(help="How many of them are to be forgotten.")] = 4,
    faces: Annotated[
        Path | None, typer.Option(help="Photographs instead of drawings: a subfolder a person.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Make the pocket benchmark from seeds: pictures, models and references.

    Example: unsee pocket build --out pocket --faces photos/
    """
    from unsee.benchmarks.pocket.build import build as make
    from unsee.progress import bar

    with bar(quiet=as_json) as shown:
        make(out, seed=seed, people=people, forget=forget, faces=faces, progress=shown.stage)
    _print(json.loads((out / "build.json").read_text("utf-8")), as_json)


def main() -> None:
    """Runs the command line; errors are told in a sentence, without a traceback."""
    code = 0
    try:
        # typer returns the code of an exit, and takes Ctrl-C for an exit with 130.
        code = app(standalone_mode=False) or 0
    except UnseeError as error:
        _fail(str(error), 2)
    except KeyboardInterrupt:
        code = 130
    except Exception as error:
        usage: Callable[[], str] | None = getattr(error, "format_message", None)
        if usage is not None:
            _fail(f"{usage()} Try --help.", 2)
        if os.environ.get("UNSEE_TRACEBACK"):
            raise
        what = f"{type(error).__name__}: {error}"
        _fail(f"unexpected error ({what}). Set UNSEE_TRACEBACK=1 to see where, and report it.", 1)
    if code == 130:
        _fail(f"stopped. Nothing is lost; to go on, type:\n  {_command()}", 130)
    sys.exit(code)


def _run(recipe: Any, kind: str, out: Path, as_json: bool) -> None:
    from unsee.plan import plan

    job, notes = plan(recipe, kind, _command())
    for note in notes:
        typer.echo(f"Note: {note}", err=True)
    _do(job, out, as_json)


def _do(job: Any, out: Path, as_json: bool) -> None:
    from unsee.job import run as do
    from unsee.progress import bar

    with bar(quiet=as_json) as shown:
        summary = do(job, out, shown)
    if as_json:
        _print(summary, as_json)
        return
    typer.echo(summary["verdict"])
    for key, value in (summary["artifacts"] or {}).items():
        typer.echo(f"{key}: {out / value}")


def _splits(pairs: list[str]) -> dict[str, str]:
    found = {}
    for pair in pairs:
        name, separator, path = pair.partition("=")
        if not separator:
            named = pair.removeprefix("pocket:").partition("@")[0]
            name, path = (named if pair.startswith("pocket:") else "data"), pair
        if name in found:
            raise ConfigError(f"--data {pair}: the split '{name}' is given twice. Type NAME=PATH.")
        found[name] = path
    return found


def _registry(kind: str) -> Any:
    if kind not in KINDS:
        raise UnknownNameError("kind", kind, KINDS)
    import importlib

    return getattr(importlib.import_module(f"unsee.{kind}"), kind.upper())


def _command() -> str:
    return shlex.join(["unsee", *sys.argv[1:]])


def _print(value: Any, as_json: bool) -> None:
    if as_json or not isinstance(value, dict):
        typer.echo(json.dumps(value, indent=1, ensure_ascii=False, default=str))
        return
    for key, content in value.items():
        typer.echo(f"{key}: {content}")


def _fail(message: str, code: int) -> None:
    typer.echo(f"unsee: {message}", err=True)
    sys.exit(code)
