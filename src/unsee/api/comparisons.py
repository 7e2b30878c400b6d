"""Comparisons of methods, ablations of one method, and the evaluation of metrics."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict, Unpack

from unsee.api.inputs import (
    Location,
    attack_list,
    command_line,
    folder_of,
    listed,
    location_text,
    mapping,
    one,
    source_of,
)
from unsee.attacks import Attack, Chain
from unsee.errors import ConfigError, UnknownNameError, quoted, require_extra
from unsee.files import atomic_folder, require_empty
from unsee.methods import METHODS
from unsee.models.devices import Device
from unsee.recipes.components import attack_entry
from unsee.recipes.parsing import format_value, parse_overrides

if TYPE_CHECKING:
    import pandas

    from unsee.studies.comparison import Cell, ComparisonRequest
    from unsee.studies.ratings import Rating

# A method with the fields that differ from its defaults, by the name of the row.
Entries = Mapping[str, tuple[str, Mapping[str, Any]]]

# Called after each run with its name, and with the error if it failed.
OnDone = Callable[[str, "str | None"], None]


@dataclass(frozen=True, repr=False)
class Comparison:
    """A comparison of several methods, or of variants of one.

    Attributes:
        folder: Where it lies. `folder / "runs"` holds the run folders.
        cells: One for each run, failed ones included.
        table: The page of tables, in markdown.
        page: The comparison as one HTML file.
    """

    folder: Path
    cells: tuple[Cell, ...]
    table: Path
    page: Path

    @property
    def failed(self) -> tuple[Cell, ...]:
        """The runs that failed; each has its `error`."""
        return tuple(cell for cell in self.cells if cell.error)

    def frame(self) -> pandas.DataFrame:
        """One row for each run with its scores and settings, as table.csv holds them.

        Raises:
            ConfigError: If pandas is not installed.
        """
        require_extra("pandas", "pandas", "Comparison.frame")
        import pandas

        return pandas.read_csv(self.folder / "table.csv")

    def __repr__(self) -> str:
        return (
            f"Comparison({str(self.folder)!r}, {len(self.cells)} runs, {len(self.failed)} failed)"
        )


@dataclass(frozen=True, repr=False)
class MetaEvaluation:
    """An evaluation of metrics on models whose training is known.

    Attributes:
        folder: Where it lies.
        ratings: One for each metric, best first.
        failed: Why models could not be made or scored, by name.
        table: The page of tables, in markdown.
    """

    folder: Path
    ratings: tuple[Rating, ...]
    failed: Mapping[str, str] = field(default_factory=dict)
    table: Path = Path()

    def __repr__(self) -> str:
        return f"MetaEvaluation({str(self.folder)!r}, {len(self.ratings)} metrics)"


class ComparisonOptions(TypedDict, total=False):
    """Further arguments of `compare` and `ablate`.

    Attributes:
        forget_ratio: Percentages of the people to forget; default: the benchmark's own.
        attacks: Attacks on every run, as for `unsee.audit`; () for none. Default: relearning of the
            visual part, and of all parts, with a fifth of the forget samples.
        model: Checkpoint to unlearn, if the benchmark ships none.
        reference: Reference model, trained without images of the forgotten people.
        fields: Fields of the methods or of the training, for every method that has them.
        storage: Database URL of the trials, to share between machines.
        table: File of the tables to write: LaTeX if it ends in .tex, CSV if in .csv, and otherwise
            the markdown page; default: table.md in `out`.
        figures: Folder of figures to write, as PDF and PNG.
        records: File of the records to write, such as compare.jsonl.xz; `compare_records` makes the
            tables from it.
        device: "auto" (a GPU if there is one), "cpu" or "cuda".
        on_done: Called after each run with its name, and with the error if it failed.
        command: How to repeat it, for the page; default: a command line that does the same.
    """

    forget_ratio: Sequence[str | int]
    attacks: Sequence[str | Attack | Chain | Mapping[str, Any]]
    model: Location | None
    reference: Location | None
    fields: Mapping[str, Any]
    storage: str | None
    table: Location | None
    figures: Location | None
    records: Location | None
    device: Device
    on_done: OnDone
    command: str | None


def compare(
    methods: str | Sequence[str] | Entries = "all",
    *,
    benchmark: str | Sequence[str] = "pocket",
    seeds: Sequence[int] = (0, 1, 2),
    trials: int = 9,
    jobs: int = 1,
    out: Location = Path("runs/compare"),
    **options: Unpack[ComparisonOptions],
) -> Comparison:
    """Tunes and runs several methods with the same budget, and compares the results.

    Runs are made in processes of their own: in a script, call this under
    `if __name__ == "__main__":`. What is done already in `out` is kept.

    Args:
        methods: "all", or names separated by commas, or a sequence of them; fields follow a name
            after spaces ("vkd robust=true"). Or a mapping of names of rows to (method, fields).
        benchmark: NAME or NAME@FOLDER, one or more: builds of one benchmark that forget different
            percentages.
        seeds: Seeds of every run; settings are tuned with the first.
        trials: Settings to try for each method; 0 tunes nothing.
        jobs: Number of runs at a time.
        out: Folder to write.
        **options: See `ComparisonOptions`.

    Returns:
        The comparison, failed runs included.

    Raises:
        UnseeError: If the comparison itself is not possible; nothing has run then.

    Example:
        comparison = unsee.compare("vkd,npo", seeds=[0], trials=0, attacks=())
        comparison.frame().sort_values("distance")
    """
    entries = _entries("methods", methods) if isinstance(methods, Mapping) else None
    entries = entries or parse_methods(methods)  # type: ignore[arg-type]
    request = _request("Methods compared", entries, benchmark, seeds, trials, options)
    names = ",".join(" ".join((name, *_pairs(fields))) for name, fields in entries.values())
    command = options.get("command") or command_line(
        "compare", {"methods": names, "trials": str(trials), **_words(request, out)}
    )
    return _compare(request, folder_of(out), one("jobs", jobs, int, 1), command, options)


def ablate(
    method: str,
    *,
    variants: Location | Entries | None = None,
    only: Sequence[str] | None = None,
    benchmark: str | Sequence[str] = "pocket",
    seeds: Sequence[int] = (0, 1, 2),
    jobs: int = 1,
    out: Location | None = None,
    **options: Unpack[ComparisonOptions],
) -> Comparison:
    """Disables parts of a method one at a time, and compares the results.

    Args:
        method: A registered method.
        variants: YAML file of names of variants with the fields that each changes, or a mapping of
            names to (method, fields); default: those that ship for the method.
        only: Names of the variants to run; default: all.
        benchmark: As for `compare`.
        seeds: Seeds of every run.
        jobs: Number of runs at a time.
        out: Folder to write; default: runs/ablate-METHOD.
        **options: See `ComparisonOptions`.

    Returns:
        The comparison, failed runs included.

    Raises:
        UnseeError: If the comparison itself is not possible; nothing has run then.

    Example:
        unsee.ablate("vkd", only=["default", "no keep"], seeds=[0], attacks=())
    """
    from unsee.studies.ablation import variants as read_variants

    one("method", method, str)
    only = listed("only", only, str) if only is not None else None
    if isinstance(variants, Mapping):
        entries = _entries("variants", variants)
    else:
        path = Path(location_text("variants", variants)) if variants is not None else None
        entries = dict(read_variants(method, path))
    for name in only or ():
        if name not in entries:
            raise UnknownNameError(f"variant of {method}", name, entries)
    chosen = {name: entries[name] for name in only} if only else entries
    folder = folder_of(out) if out is not None else Path("runs") / f"ablate-{method}"
    request = _request(f"Parts of {method}", chosen, benchmark, seeds, 0, options)
    words = {
        "variants": None if isinstance(variants, Mapping) else variants,
        "only": ",".join(only or ()),
        **_words(request, folder),
    }
    command = options.get("command") or command_line("ablate", words, [method])
    return _compare(request, folder, one("jobs", jobs, int, 1), command, options)


def meta_evaluate(
    methods: str | Sequence[str] = ("grad_diff", "npo", "idk", "undial", "mmunlearner", "vkd"),
    *,
    benchmark: str = "pocket",
    models: int = 8,
    seeds: Sequence[int] = (0,),
    jobs: int = 1,
    out: Location = Path("runs/meta"),
    **options: Unpack[ComparisonOptions],
) -> MetaEvaluation:
    """Evaluates the metrics: trains models with and without the forget images, and unlearns others.

    A good metric tells the models with the forget images from those without, and does not change
    when an unlearned model is quantized or fine-tuned.

    Args:
        methods: Methods that make the unlearned models: names, or "all".
        benchmark: "pocket", or "pocket@FOLDER".
        models: Number of models with the forget images, and of models without.
        seeds: Seeds of every method.
        jobs: Number of models at a time.
        out: Folder to write.
        **options: fields, table, on_done and command of `ComparisonOptions`.

    Returns:
        The ratings, and why models failed.

    Raises:
        UnseeError: If it is not possible, or every model of one kind fails.

    Example:
        unsee.meta_evaluate(["npo", "vkd"], models=4, out="runs/meta").ratings[0].metric
    """
    from unsee.studies.meta_evaluation import MetaEvaluationRequest, judge_metrics
    from unsee.studies.ratings_page import TABLE, write

    names = [method for method, _ in parse_methods(methods).values()]
    one("benchmark", benchmark, str)
    one("models", models, int, 1)
    one("jobs", jobs, int, 1)
    seeds = listed("seeds", seeds, int, 0)
    fields = mapping("fields", options.get("fields", {}))
    request = MetaEvaluationRequest(benchmark, models, names, tuple(seeds), fields)
    folder = folder_of(out)
    table = Path(path) if (path := options.get("table")) is not None else folder / TABLE
    command = options.get("command") or command_line(
        "meta",
        {
            "benchmark": benchmark,
            "models": str(models),
            "methods": ",".join(names),
            "seeds": ",".join(map(str, seeds)),
            "set": _pairs(fields),
            "out": out,
        },
    )
    on_done = options.get("on_done", _ignore)
    records, failed = judge_metrics(request, folder, command, jobs, on_done)
    ratings = write(records, failed, folder, table, command)
    return MetaEvaluation(folder, tuple(ratings), failed, table)


def parse_methods(methods: str | Sequence[str]) -> dict[str, tuple[str, dict[str, Any]]]:
    """Methods with their fields, by the name of the row.

    Args:
        methods: Names separated by commas, or a sequence of names; "all" for every method. Fields
            follow a name after spaces.

    Example:
        >>> parse_methods("npo,vkd robust=true")
        {'npo': ('npo', {}), 'vkd robust=true': ('vkd', {'robust': True})}

    Raises:
        ConfigError: If no method is named, or one is unknown.
    """
    texts = methods.split(",") if isinstance(methods, str) else listed("methods", methods, str)
    entries: dict[str, tuple[str, dict[str, Any]]] = {}
    for text in texts:
        name, *pairs = text.split() or [""]
        for method in METHODS.names() if name == "all" else [name] if name else []:
            METHODS.get(method)
            entries[" ".join([method, *pairs])] = (method, parse_overrides(pairs))
    if not entries:
        raise ConfigError(f"--methods {quoted(methods)} names nothing. Separate values by commas.")
    return entries


def _request(
    title: str,
    entries: Entries,
    benchmark: str | Sequence[str],
    seeds: Sequence[int],
    trials: int,
    options: ComparisonOptions,
) -> ComparisonRequest:
    from unsee.studies import comparison as studies

    attacks = options.get("attacks")
    model, reference = options.get("model"), options.get("reference")
    return studies.ComparisonRequest(
        title=title,
        entries=entries,
        benchmark=tuple(listed("benchmark", benchmark, str)),
        forget_ratios=tuple(str(ratio) for ratio in _ratios(options.get("forget_ratio", ()))),
        seeds=tuple(listed("seeds", seeds, int, 0)),
        attacks=studies.ATTACKS
        if attacks is None
        else tuple(attack_entry(attack) for attack in attack_list(attacks)),
        trials=one("trials", trials, int, 0),
        set=mapping("fields", options.get("fields", {})),
        model=source_of(model) if model is not None else None,
        reference=source_of(reference) if reference is not None else None,
        device=options.get("device", "auto"),
    )


def _entries(argument: str, entries: object) -> dict[str, tuple[str, dict[str, Any]]]:
    """Methods with their fields, by the name of the row, as a caller gives them.

    Raises:
        ConfigError: If they are anything else.
    """
    checked = {}
    for name, entry in mapping(argument, entries).items():
        if not isinstance(entry, list | tuple) or len(entry) != 2:
            raise ConfigError(
                f"{argument}: '{name}' stands for {quoted(entry)}. Give (METHOD, FIELDS), such as "
                "('vkd', {'robust': True})."
            )
        checked[name] = (one(argument, entry[0], str), mapping(argument, entry[1]))
    if not checked:
        raise ConfigError(f"{argument}: names nothing. Give at least one row.")
    return checked


def _ratios(ratios: object) -> list[str | int]:
    items = ratios if isinstance(ratios, list | tuple) else [ratios]
    return [item if isinstance(item, str) else one("forget_ratio", item, int) for item in items]


def _words(request: ComparisonRequest, out: Location) -> dict[str, Any]:
    """The options of the command line that do the same."""
    return {
        "benchmark": request.benchmark,
        "seeds": ",".join(map(str, request.seeds)),
        "forget_ratio": ",".join(request.forget_ratios),
        "model": request.model,
        "reference": request.reference,
        "set": _pairs(request.set),
        "out": out,
    }


def _compare(
    request: ComparisonRequest, folder: Path, jobs: int, command: str, options: ComparisonOptions
) -> Comparison:
    """Makes the runs that are missing, and writes the tables."""
    from unsee.studies import comparison as studies
    from unsee.studies.kept_records import write_records

    _require_figures(options.get("figures"))
    on_done = options.get("on_done", _ignore)
    cells = studies.compare(request, folder, jobs, options.get("storage"), on_done)
    if (records := options.get("records")) is not None:
        write_records(cells, folder, Path(records), request.title, command)
    return _write_pages(cells, folder, request.title, command, options)


def compare_records(
    records: Location | Sequence[Location],
    *,
    out: Location,
    table: Location | None = None,
    figures: Location | None = None,
) -> Comparison:
    """Makes the pages of a comparison again from files of its records; nothing is run.

    Args:
        records: A file that `compare` wrote with `records`, or several, such as one a seed.
        out: Folder to write: table.md, table.csv, report.html, and the run folders.
        table: As for `compare`.
        figures: As for `compare`.

    Returns:
        The comparison.

    Raises:
        UnseeError: If a file cannot be read, two have the same run, or the folder is not empty.

    Example:
        unsee.compare_records("compare.jsonl.xz", out="again", table="compare.tex")
    """
    from unsee.studies.kept_records import read_records

    _require_figures(figures)
    require_empty(Path(out))
    files = [records] if isinstance(records, str | Path) else records
    if not files:
        raise ConfigError("records: is empty. Give at least one file that `compare` wrote.")
    with atomic_folder(Path(out)) as partial:
        kept = read_records([Path(file) for file in files], partial)
        folder = Path(out)
        moved = [replace(c, folder=folder / c.folder.relative_to(partial)) for c in kept.cells]
    return _write_pages(
        moved, folder, kept.title, kept.command, {"table": table, "figures": figures}
    )


def _require_figures(folder: Location | None) -> None:
    if folder is not None:
        require_extra("matplotlib", "figures", "--figures")


def _write_pages(
    cells: Sequence[Cell], folder: Path, title: str, command: str, options: ComparisonOptions
) -> Comparison:
    from unsee.studies.comparison_page import PAGE, TABLE, write
    from unsee.studies.figures import draw_figures

    table = Path(path) if (path := options.get("table")) is not None else None
    results = write(cells, folder, title, command, table)
    if (figures := options.get("figures")) is not None:
        draw_figures(results, Path(figures))
    return Comparison(folder, tuple(cells), table or folder / TABLE, folder / PAGE)


def _pairs(fields: Mapping[str, Any]) -> list[str]:
    return [f"{key}={format_value(value)}" for key, value in fields.items()]


def _ignore(name: str, error: str | None) -> None:
    """Does nothing after a run."""
