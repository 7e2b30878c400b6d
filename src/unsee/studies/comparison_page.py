"""What a comparison writes: a table in markdown, a CSV of every run, and one offline page."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path

from markupsafe import Markup

from unsee.files import write_atomically
from unsee.records.markdown import Table
from unsee.report.charts import Point, scatter
from unsee.report.page import template
from unsee.studies.comparison import Cell
from unsee.studies.results import COLUMNS, Row, collect, pareto_front, shown

TABLE, CSV, PAGE = "table.md", "table.csv", "report.html"


MEANING = (
    "`distance` is the mean absolute difference to the visual-retain reference over every measure "
    "of the test splits, `largest gap` the largest of them; 0 cannot be told from a model that "
    "never saw the forgotten people, and a broken model is far from it. `rank` goes by it, within "
    "each seed. `distance under attack` is the same of what attacks bring back; a damaged model "
    "can be near there, so read it beside `distance`. FQ, MU, robustness and overall are "
    "Open-MMUnlearning's (arXiv 2610.10358), which a broken model can win."
)


def write(
    cells: Sequence[Cell], out: Path, title: str, command: str, table: Path | None = None
) -> dict[str, list[Row]]:
    """Writes the table, table.csv and report.html from the records, and returns the rows.

    Args:
        cells: The runs.
        out: The comparison's folder.
        title: What the page is called.
        command: What made it.
        table: The markdown page; None is table.md in the folder.
    """
    found = collect(cells, out)
    origin = f"`{command}`{_machines(found)}"
    parts = [(share, tables(rows), notes(rows)) for share, rows in found.items()]
    text = f"# {title}\n\nWritten by {origin}. {_seeds(cells)}\n\n{MEANING}\n"
    for share, some, remarks in parts:
        text += f"\n## {_share(share)}\n\n" + "\n".join(table.markdown() for table in some)
        text += "".join(f"\n{remark}\n" for remark in remarks)
    table = table or out / TABLE
    table.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(table, text)
    write_atomically(out / CSV, _csv(found))
    page = template("comparison.html.j2").render(
        title=title,
        origin=origin,
        seeds=_seeds(cells),
        meaning=MEANING,
        parts=[
            {
                "share": _share(share),
                "tables": some,
                "notes": remarks,
                "plot": _plot(found[share], f"p{number}"),
            }
            for number, (share, some, remarks) in enumerate(parts)
        ],
    )
    write_atomically(out / PAGE, page)
    return found


def tables(rows: Sequence[Row]) -> list[Table]:
    """Scores and cost, accuracies by split, and what each attack brought back."""
    columns = [name for name in COLUMNS if any(row.values(name) for row in rows)]
    scores = [
        [
            row.name,
            *(shown(row.values(name), COLUMNS[name]) for name in columns),
            row.settings,
            "; ".join(_once(row.errors)),
        ]
        for row in rows
    ]
    splits = list(dict.fromkeys(k for row in rows for r in row.results for k in r.accuracies))
    asked = [[row.name, *(shown(row.accuracies(key)) for key in splits)] for row in rows]
    found = [Table(["", *columns, "settings", "failed"], scores, "Scores and cost")]
    if splits:
        found.append(Table(["", *splits], asked, "Accuracy"))
    names = list(dict.fromkeys(a.name for row in rows for r in row.results for a in r.profile))
    if names:
        found.append(Table(["", *names], _profile(rows, names), "Under attack"))
    return found


def _profile(rows: Sequence[Row], names: Sequence[str]) -> list[list[str]]:
    """What came back after each attack, and for curves the area to the reference's."""
    lines, reference = [], dict.fromkeys(names, "")
    for row in rows:
        line = []
        for name in names:
            some = [a for r in row.results for a in r.profile if a.name == name]
            after = shown([a.unlearned for a in some if a.unlearned is not None])
            areas = [a.area for a in some if a.area is not None]
            mean = sum(areas) / len(areas) if areas else 0.0
            line.append(f"{after}, area {mean:+.3f}" if areas else after)
            beside = shown([a.reference for a in some if a.reference is not None])
            reference[name] = reference[name] or beside
        if not row.beside:
            lines.append([row.name, *line])
    return [*lines, ["visual-retain", *reference.values()]]


def notes(rows: Sequence[Row]) -> list[str]:
    """What the tables leave out, and the settings that were chosen."""
    results = [r for row in rows if not row.beside for r in row.results]
    lacking = list(dict.fromkeys(text for r in results for text in r.lacking))
    found = [f"Left out of the published scores: {'; '.join(lacking)}."] if lacking else []
    given = [row.name for row in rows if not row.beside and row.settings == "as given"]
    if given:
        found.append(f"Not tuned: {', '.join(given)}.")
    for row in rows:
        chosen = next((r.chosen for r in row.results if r.chosen), None)
        if chosen and not row.beside:
            found.append(f"Chosen for {row.name}: {_settings(chosen)}.")
    far = {row.name: _once([r.farthest for r in row.results if r.farthest]) for row in rows}
    some = [f"{name} at {' and '.join(keys)}" for name, keys in far.items() if keys]
    if some:
        found.append(f"Farthest from the reference: {'; '.join(some)}.")
    return found


def _settings(chosen: Mapping[str, object]) -> str:
    return ", ".join(f"{key}={value}" for key, value in chosen.items())


def _once(texts: Sequence[str]) -> list[str]:
    return list(dict.fromkeys(texts))


def _share(share: str) -> str:
    return f"{share} % forgotten" if share else "Forgotten"


def _seeds(cells: Sequence[Cell]) -> str:
    seeds = sorted({cell.seed for cell in cells})
    if len(seeds) == 1:
        return f"One seed, {seeds[0]}: no interval."
    return f"Mean over seeds {', '.join(map(str, seeds))}, range in brackets where they differ."


def _machines(found: Mapping[str, Sequence[Row]]) -> str:
    some = [r.made_on for rows in found.values() for row in rows for r in row.results if r.made_on]
    return f" on {' and '.join(_once(some))}" if some else ""


def _csv(found: Mapping[str, Sequence[Row]]) -> str:
    """One line a run, every number as it is; the models beside them once a share."""
    every = [row for rows in found.values() for row in rows]
    splits = list(dict.fromkeys(k for row in every for r in row.results for k in r.accuracies))
    names = list(dict.fromkeys(a.name for row in every for r in row.results for a in r.profile))
    numbers = [*COLUMNS, "forgetting"]
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    head = ["name", "forget", "seed", "trials", *numbers, *(f"accuracy {s}" for s in splits)]
    writer.writerow([*head, *(f"after {name}" for name in names), "error"])
    for share, rows in found.items():
        for row in rows:
            for r in row.results:
                after = {a.name: a.unlearned for a in r.profile}
                line: list[str | float] = [row.name, share, "" if row.beside else r.cell.seed]
                line += ["" if row.beside else r.cell.tuned]
                line += ["" if (v := r.numbers.get(n)) is None else v for n in numbers]
                line += [r.accuracies.get(split, "") for split in splits]
                line += ["" if (v := after.get(name)) is None else v for name in names]
                writer.writerow([*line, "" if row.beside else r.cell.error or ""])
    return buffer.getvalue()


def _plot(rows: Sequence[Row], uid: str) -> Markup | None:
    """Forgetting against utility, the Pareto front of the entries joined."""
    places: dict[str, tuple[float, float]] = {}
    for row in rows:
        x, y = row.values("MU"), row.values("forgetting")
        if x and y:
            places[row.name] = (sum(x) / len(x), sum(y) / len(y))
    if not places:
        return None
    beside = {row.name: row.name for row in rows if row.beside}
    styles = {"target": "target", "visual-retain": "reference", "retain-only": "retain-only"}
    ours = {name: place for name, place in places.items() if name not in beside}
    best = pareto_front(ours)
    points = [
        Point(name, styles.get(beside.get(name, ""), "unlearned"), x, y, name in best)
        for name, (x, y) in places.items()
    ]
    return scatter(
        points,
        uid=uid,
        title="Forgetting against utility",
        desc=f"On the Pareto front: {', '.join(best) or 'none'}.",
        x_label="utility (MU)",
        y_label="forgetting",
    )
