"""Commands that compare methods, or the parts of one, and judge the metrics that do so."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
import yaml

from unsee.cli.shared import DeviceName, Json, Set, app, command, complete, echo, renamed
from unsee.errors import ConfigError, warn_renamed

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
        metavar="ATTACK",
        help="Attack on every run, NAME?field=value&field=value; + chains attacks. Repeatable. "
        "none: no attack. Default: relearning of the visual part, and of all parts.",
        autocompletion=complete("attacks"),
    ),
]
Jobs = Annotated[int, typer.Option(min=1, help="Number of runs at a time, each in a process.")]
Page = Annotated[
    Path | None, typer.Option(help="Markdown page to write. Default: table.md in --out.")
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
        str | None, typer.Option(help="Database URL of the trials, to share between machines.")
    ] = None,
    attack: Attacks = None,
    jobs: Jobs = 1,
    model: Model = None,
    reference: Reference = None,
    set_: Set = None,
    device: DeviceName = "auto",
    out: Annotated[Path, typer.Option(help="Folder to write.")] = Path("runs/compare"),
    table: Page = None,
    as_json: Json = False,
) -> None:
    """Tune and run several methods, and compare the results.

    Every method is tuned with the same number of trials on the validation splits.

    Example: unsee compare --benchmark pocket --methods vkd,grad_diff --seeds 0,1,2 --jobs 2
    """
    _compare(
        "Methods compared",
        _entries(methods),
        benchmark,
        seeds,
        renamed("--forget", forget, "--forget-ratio", forget_ratio),
        trials,
        storage,
        attack,
        jobs,
        model,
        reference,
        set_,
        device,
        out,
        table,
        as_json,
    )


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
    table: Page = None,
    as_json: Json = False,
) -> None:
    """Disable parts of a method one at a time, and compare.

    Example: unsee ablate vkd --only "default,no keep,no erase" --seeds 0
    """
    from unsee.errors import UnknownNameError
    from unsee.studies.ablation import variants as find

    entries = find(method, variants)
    if only is not None:
        chosen = _split(only, "--only")
        for name in chosen:
            if name not in entries:
                raise UnknownNameError(f"variant of {method}", name, entries)
        entries = {name: entries[name] for name in chosen}
    _compare(
        f"Parts of {method}",
        entries,
        benchmark,
        seeds,
        renamed("--forget", forget, "--forget-ratio", forget_ratio),
        0,
        None,
        attack,
        jobs,
        model,
        reference,
        set_,
        device,
        out or Path("runs") / f"ablate-{method}",
        table,
        as_json,
    )


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
    from unsee.recipes.parsing import parse_overrides
    from unsee.studies.meta_evaluation import MetaEvaluationRequest, judge_metrics
    from unsee.studies.ratings_page import RATINGS, TABLE, write

    asked = MetaEvaluationRequest(
        benchmark, models, _methods(methods), tuple(_seed(s) for s in _split(seeds, "--seeds")),
        parse_overrides(set_ or []),
    )  # fmt: skip
    records, failed = judge_metrics(asked, out, command(), jobs, _told)
    page = table or out / TABLE
    ratings = write(records, failed, out, page, command())
    if as_json:
        found = {"ratings": [asdict(rating) for rating in ratings], "failed": failed}
        echo(found | {"table": str(page)}, as_json)
    else:
        typer.echo(page.read_text("utf-8"))
        for place in (page, out / RATINGS):
            typer.echo(f"{place.name}: {place}")
    if failed:
        raise typer.Exit(1)


def _compare(
    title: str,
    entries: dict[str, tuple[str, dict[str, object]]],
    benchmark: list[str] | None,
    seeds: str,
    forget: str | None,
    trials: int,
    storage: str | None,
    attack: list[str] | None,
    jobs: int,
    model: str | None,
    reference: str | None,
    set_: list[str] | None,
    device: str,
    out: Path,
    table: Path | None,
    as_json: bool,
) -> None:
    from unsee.recipes.parsing import parse_overrides
    from unsee.studies.comparison import ATTACKS, ComparisonRequest
    from unsee.studies.comparison import compare as do
    from unsee.studies.comparison_page import CSV, PAGE, TABLE, write

    asked = ComparisonRequest(
        title=title,
        entries=entries,
        benchmark=tuple(benchmark or ("pocket",)),
        forget_ratios=tuple(_split(forget, "--forget")) if forget is not None else (),
        seeds=tuple(_seed(text) for text in _split(seeds, "--seeds")),
        attacks=ATTACKS if attack is None else _attacks(attack),
        trials=trials,
        set=parse_overrides(set_ or []),
        model=model,
        reference=reference,
        device=device,
    )
    cells = do(asked, out, jobs, storage, _told)
    page = table or out / TABLE
    write(cells, out, title, command(), page)
    failed = [cell for cell in cells if cell.error]
    if as_json:
        facts = [
            {"entry": c.entry, "forget": c.forget_ratio, "seed": c.seed, "folder": str(c.folder),
             "error": c.error}
            for c in cells
        ]  # fmt: skip
        echo({"runs": facts, "table": str(page), "report": str(out / PAGE)}, as_json)
    else:
        typer.echo(page.read_text("utf-8"))
        typer.echo(f"{len(cells) - len(failed)} of {len(cells)} runs are done.")
        for place in (page, out / CSV, out / PAGE):
            typer.echo(f"{place.name}: {place}")
    if failed:
        raise typer.Exit(1)


def _told(name: str, error: str | None) -> None:
    typer.echo(f"{name}: {error or 'done'}", err=True)


def _methods(text: str) -> list[str]:
    """Registered methods between commas, or all of them."""
    from unsee.methods import METHODS

    names = METHODS.names() if text == "all" else _split(text, "--methods")
    for name in names:
        METHODS.get(name)
    return names


def _entries(text: str) -> dict[str, tuple[str, dict[str, object]]]:
    """Methods between commas, "all" for all of them, each with its own fields behind it."""
    from unsee.recipes.parsing import parse_overrides

    found: dict[str, tuple[str, dict[str, object]]] = {}
    for entry in _split(text, "--methods"):
        name, *pairs = entry.split()
        for method in _methods(name):
            found[" ".join([method, *pairs])] = (method, parse_overrides(pairs))
    return found


def _split(text: str, option: str) -> list[str]:
    """Names between commas, each once."""
    found = list(dict.fromkeys(part.strip() for part in text.split(",") if part.strip()))
    if not found:
        raise ConfigError(f"{option} {text!r} names nothing. Separate values by commas.")
    return found


def _seed(text: str) -> int:
    if not text.isdecimal():
        raise ConfigError(f"--seeds: '{text}' is no number of 0 or more. Type, for example, 0,1,2.")
    return int(text)


def _attacks(texts: list[str]) -> tuple[dict[str, object], ...]:
    """The attacks of --attack as entries of a recipe."""
    from unsee.recipes.components import attack_entry

    return () if texts == ["none"] else tuple(_old_attack(t) or attack_entry(t) for t in texts)


def _old_attack(text: str) -> dict[str, object] | None:
    """An attack as it was typed before 0.2, '{share: 0.2, modules: all}'; None of any other."""
    if not text.lstrip().startswith("{"):
        return None
    try:
        content = yaml.safe_load(text)
    except yaml.YAMLError:
        content = None
    if not isinstance(content, dict):
        raise ConfigError(f"--attack {text!r}: type NAME?field=value&field=value, or none.")
    from unsee.recipes.parsing import format_value

    fields = {key: value for key, value in content.items() if key != "attack"}
    typed = "&".join(f"{key}={format_value(value)}" for key, value in fields.items())
    name = content.get("attack", "relearn")
    warn_renamed("attack", text, f"{name}?{typed}" if typed else str(name))
    return content
