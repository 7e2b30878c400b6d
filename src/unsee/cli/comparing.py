"""Commands that compare methods, or the parts of one, and judge the metrics that do so."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from unsee.cli.shared import (
    DeviceName,
    Json,
    Set,
    app,
    command,
    complete,
    echo,
    progress,
    renamed,
    split_names,
)
from unsee.errors import ConfigError, quoted, shorten, warn_renamed

if TYPE_CHECKING:
    from unsee.api import Comparison, ComparisonOptions
    from unsee.progress import Bar

Benchmarks = Annotated[
    list[str] | None,
    typer.Option(
        "--benchmark",
        help="NAME or NAME@FOLDER; pocket if none is given. Repeatable: builds of one benchmark "
        "that forget different percentages.",
    ),
]
Seeds = Annotated[str, typer.Option(help="Seeds of every run, separated by commas.")]
ForgetRatios = Annotated[
    str | None,
    typer.Option(
        "--forget-ratio",
        help="Percentages of the people to forget, separated by commas, such as 5,10.",
    ),
]
OldForgetRatios = Annotated[str | None, typer.Option("--forget", hidden=True)]
Attacks = Annotated[
    list[str] | None,
    typer.Option(
        "--attack",
        "--attacks",
        metavar="ATTACK",
        help="Attack on every run, NAME?field=value&field=value; + chains attacks, standard is the "
        "standard suite. Repeatable. none: no attack. Default: relearning of the visual part, and "
        "of all parts.",
        autocompletion=complete("attacks"),
    ),
]
Jobs = Annotated[int, typer.Option(min=1, help="Number of runs at a time, each in a process.")]
Page = Annotated[
    Path | None, typer.Option(help="Markdown page to write. Default: table.md in --out.")
]
TableFile = Annotated[
    Path | None,
    typer.Option(
        "--table",
        help="File of the tables to write: LaTeX if it ends in .tex, CSV if in .csv, and otherwise "
        "the markdown page. Default: table.md in --out.",
    ),
]
Figures = Annotated[
    Path | None,
    typer.Option(help="Folder of figures to write, as PDF and PNG. Needs unsee[figures]."),
]
Records = Annotated[
    Path | None,
    typer.Option(help="File of all records to write, such as compare.jsonl.xz."),
]
Model = Annotated[
    str | None, typer.Option(help="Checkpoint to unlearn, if the benchmark ships none.")
]
Reference = Annotated[
    str | None,
    typer.Option(help="Reference model, trained without images of the forgotten people."),
]


@app.command()
def compare(
    context: typer.Context,
    benchmark: Benchmarks = None,
    methods: Annotated[
        str,
        typer.Option(
            help="Methods, separated by commas, or all. Fields follow a name after spaces: "
            "'vkd,vkd robust=true'."
        ),
    ] = "all",
    seeds: Seeds = "0,1,2",
    forget_ratio: ForgetRatios = None,
    forget: OldForgetRatios = None,
    trials: Annotated[
        int, typer.Option(min=0, help="Settings to try for each method; 0 tunes nothing.")
    ] = 9,
    storage: Annotated[
        str | None,
        typer.Option(
            envvar="UNSEE_STORAGE", help="Database URL of the trials, to share between machines."
        ),
    ] = None,
    attack: Attacks = None,
    jobs: Jobs = 1,
    model: Model = None,
    reference: Reference = None,
    set_: Set = None,
    device: DeviceName = "auto",
    out: Annotated[Path, typer.Option(help="Folder to write.")] = Path("runs/compare"),
    table: TableFile = None,
    figures: Figures = None,
    records: Records = None,
    from_records: Annotated[
        list[Path] | None,
        typer.Option(
            help="File that --records wrote: make its pages again in --out. Repeatable: several "
            "on one page, such as one a seed. Nothing is run, and only --out, --table and "
            "--figures may be given with it."
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Tune and run several methods, and compare the results.

    Every method is tuned with the same number of trials on the validation splits.

    Example: unsee compare --benchmark pocket --methods vkd,grad_diff --seeds 0,1,2 --jobs 2
    """
    if from_records:
        _refuse_others(context, ("from_records", "out", "table", "figures", "as_json"))
        from unsee import api

        _print(api.compare_records(from_records, out=out, table=table, figures=figures), as_json)
        return
    ratios = renamed("--forget", forget, "--forget-ratio", forget_ratio)
    files: ComparisonOptions = {"table": table, "figures": figures, "records": records}
    with progress(as_json) as bar:
        from unsee import api

        comparison = api.compare(
            methods,
            benchmark=benchmark or "pocket",
            seeds=_seeds(seeds),
            trials=trials,
            jobs=jobs,
            out=out,
            **_options(bar, ratios, attack, model, reference, set_, device, files, storage),
        )
    _print(comparison, as_json)


@app.command()
def ablate(
    method: Annotated[
        str, typer.Argument(help="A method, such as vkd.", autocompletion=complete("methods"))
    ],
    variants: Annotated[
        Path | None,
        typer.Option(help="YAML file: names of variants, with the fields that each changes."),
    ] = None,
    only: Annotated[
        str | None, typer.Option(help="Names of the variants to run, separated by commas.")
    ] = None,
    benchmark: Benchmarks = None,
    seeds: Seeds = "0,1,2",
    forget_ratio: ForgetRatios = None,
    forget: OldForgetRatios = None,
    attack: Attacks = None,
    jobs: Jobs = 1,
    model: Model = None,
    reference: Reference = None,
    set_: Set = None,
    device: DeviceName = "auto",
    out: Annotated[
        Path | None, typer.Option(help="Folder to write. Default: runs/ablate-METHOD.")
    ] = None,
    table: TableFile = None,
    figures: Figures = None,
    records: Records = None,
    as_json: Json = False,
) -> None:
    """Disable parts of a method one at a time, and compare.

    Example: unsee ablate vkd --only "default,no keep,no erase" --seeds 0
    """
    ratios = renamed("--forget", forget, "--forget-ratio", forget_ratio)
    files: ComparisonOptions = {"table": table, "figures": figures, "records": records}
    with progress(as_json) as bar:
        from unsee import api

        comparison = api.ablate(
            method,
            variants=variants,
            only=split_names(only, "--only"),
            benchmark=benchmark or "pocket",
            seeds=_seeds(seeds),
            jobs=jobs,
            out=out,
            **_options(bar, ratios, attack, model, reference, set_, device, files),
        )
    _print(comparison, as_json)


@app.command()
def meta(
    benchmark: Annotated[str, typer.Option(help="pocket, or pocket@FOLDER.")] = "pocket",
    models: Annotated[
        int,
        typer.Option(
            min=1, help="Number of models trained with the forget images, and of models without."
        ),
    ] = 8,
    methods: Annotated[
        str,
        typer.Option(help="Methods that make the unlearned models: names with commas, or all."),
    ] = "grad_diff,npo,idk,undial,mmunlearner,vkd",
    seeds: Annotated[str, typer.Option(help="Seeds of every method, separated by commas.")] = "0",
    jobs: Jobs = 1,
    set_: Set = None,
    out: Annotated[Path, typer.Option(help="Folder to write.")] = Path("runs/meta"),
    table: Page = None,
    as_json: Json = False,
) -> None:
    """Evaluate the metrics on models whose training is known.

    Trains models with and without the forget images, unlearns others, and measures how well each
    metric tells them apart.

    Example: unsee meta --models 4 --methods npo,vkd --seeds 0 --out runs/meta
    """
    with progress(as_json) as bar:
        from unsee import api
        from unsee.recipes.parsing import parse_overrides

        result = api.meta_evaluate(
            methods,
            benchmark=benchmark,
            models=models,
            seeds=_seeds(seeds),
            jobs=jobs,
            out=out,
            fields=parse_overrides(set_ or []),
            table=table,
            on_done=_printer(bar),
            command=command(),
        )
    if as_json:
        rows = [asdict(rating) for rating in result.ratings]
        echo({"ratings": rows, "failed": result.failed, "table": str(result.table)}, as_json)
    else:
        typer.echo(result.table.read_text("utf-8"))
        for path in (result.table, out / "ratings.json"):
            typer.echo(f"{path.name}: {path}")
    if result.failed:
        raise typer.Exit(1)


def _options(
    bar: Bar,
    forget_ratio: str | None,
    attack: list[str] | None,
    model: str | None,
    reference: str | None,
    set_: list[str] | None,
    device: str,
    files: ComparisonOptions,
    storage: str | None = None,
) -> ComparisonOptions:
    """The options that compare and ablate share."""
    from unsee.recipes.parsing import parse_overrides

    options: ComparisonOptions = {
        "forget_ratio": split_names(forget_ratio, "--forget-ratio") or (),
        "model": model,
        "reference": reference,
        "fields": parse_overrides(set_ or []),
        "device": device,  # type: ignore[typeddict-item]
        "storage": storage,
        "on_done": _printer(bar),
        "command": command(),
    }
    options.update(files)
    if attack is not None:
        options["attacks"] = _attacks(attack)
    return options


def _refuse_others(context: typer.Context, allowed: Sequence[str]) -> None:
    """Refuses options that only a new run has.

    Raises:
        ConfigError: If another option than the allowed ones was typed.
    """
    for parameter in context.command.params:
        source = context.get_parameter_source(parameter.name or "")
        typed = source is not None and source.name == "COMMANDLINE"
        if typed and parameter.name not in allowed:
            raise ConfigError(
                f"{parameter.opts[0]} cannot be given with --from-records, which runs nothing. "
                "Leave one of them out."
            )


def _print(comparison: Comparison, as_json: bool) -> None:
    """Prints the tables and where the files are; exits with 1 if a run failed."""
    from unsee.studies.comparison_page import CSV, markdown_file

    cells, table, page = comparison.cells, comparison.table, comparison.page
    if as_json:
        runs = [
            {
                "entry": cell.entry,
                "forget": cell.forget_ratio,
                "seed": cell.seed,
                "folder": str(cell.folder),
                "error": cell.error,
            }
            for cell in cells
        ]
        echo({"runs": runs, "table": str(table), "report": str(page)}, as_json)
    else:
        markdown = markdown_file(comparison.folder, table)
        pages = dict.fromkeys([markdown, table, comparison.folder / CSV, page])
        typer.echo(markdown.read_text("utf-8"))
        typer.echo(f"{len(cells) - len(comparison.failed)} of {len(cells)} runs are done.")
        for path in pages:
            typer.echo(f"{path.name}: {path}")
    if comparison.failed:
        raise typer.Exit(1)


def _printer(bar: Bar) -> Callable[[str, str | None], None]:
    """Prints a line on standard error after each run."""

    def on_done(name: str, error: str | None) -> None:
        bar.stage("running")
        typer.echo(f"{name}: {error or 'done'}", err=True)

    return on_done


def _seeds(text: str) -> list[int]:
    seeds = split_names(text, "--seeds") or []
    for seed in seeds:
        if not seed.isdecimal():
            raise ConfigError(
                f"--seeds: '{seed}' is no number of 0 or more. Type, for example, 0,1,2."
            )
    return [int(seed) for seed in seeds]


def _attacks(texts: list[str]) -> tuple[dict[str, object], ...]:
    """The attacks of --attack as entries of a recipe."""
    from unsee.recipes.components import attack_entry

    return () if texts == ["none"] else tuple(_old_attack(t) or attack_entry(t) for t in texts)


def _old_attack(text: str) -> dict[str, object] | None:
    """An attack as it was typed before 0.2, '{share: 0.2, modules: all}'; None of any other."""
    if not text.lstrip().startswith("{"):
        return None
    from unsee.recipes import plain_yaml
    from unsee.recipes.parsing import format_value

    advice = "type NAME?field=value&field=value, or none."
    try:
        content = plain_yaml.parse(text, f"--attack {shorten(text)}")
    except ConfigError as error:
        raise ConfigError(f"{str(error).rstrip('.')}: {advice}") from error
    if not isinstance(content, dict):
        raise ConfigError(f"--attack {quoted(text)}: {advice}")
    fields = {key: value for key, value in content.items() if key != "attack"}
    typed = "&".join(f"{key}={format_value(value)}" for key, value in fields.items())
    name = content.get("attack", "relearn")
    warn_renamed("attack", text, f"{name}?{typed}" if typed else str(name))
    return content
