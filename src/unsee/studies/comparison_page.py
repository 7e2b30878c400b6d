"""The files that a comparison writes: a markdown table, a CSV of every run, and an offline page."""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from markupsafe import Markup

from unsee.files import write_atomically
from unsee.records.markdown import Table, escape_tags
from unsee.records.schema import EquivalenceTest, LearnedCheck
from unsee.report.charts import Dot, Line, Point, line_chart, scatter
from unsee.report.equivalence import LABELS, outcome_of, words
from unsee.report.page import template
from unsee.studies.comparison import Cell
from unsee.studies.paired_tests import MIN_PAIRS, paired_table
from unsee.studies.results import (
    COLUMNS,
    CurveOverSeeds,
    Row,
    collect,
    curves_by_attack,
    mean_and_range,
    pareto_front,
    places_of,
)

TABLE, CSV, PAGE = "table.md", "table.csv", "report.html"

MEANING = (
    "`distance` is the mean absolute difference to the visual-retain reference over all measures "
    "of the test splits, and `largest gap` the largest of these differences. 0 cannot be told from "
    "a model that never saw the forgotten people; a broken model is far from it. `rank` orders by "
    "`distance` within each seed. `distance under attack` is the same for what attacks bring back; "
    "a damaged model can be close there, so read it together with `distance`. FQ, MU, robustness "
    "and overall are scores of Open-MMUnlearning (arXiv 2610.10358), which a broken model can win."
)

PAIRED = (
    "Paired differences are means over people, each the mean over seeds; of `distance`, over "
    "seeds. p-values: the signs of people's differences flipped, two-sided, adjusted over the "
    f"methods of a column (Holm); none below {MIN_PAIRS} people, who cannot reach 0.05."
)

# The references in the order of drawing, with their styles.
REFERENCE_STYLES = {
    "visual-refit": "visual-refit",
    "retain-only": "retain-only",
    "visual-retain": "reference",
}


def write(
    cells: Sequence[Cell], out: Path, title: str, command: str, table: Path | None = None
) -> dict[str, list[Row]]:
    """Writes the table, table.csv and report.html from the records.

    Args:
        cells: The runs.
        out: The comparison's folder.
        title: The title of the page.
        command: The command that the page says it was written by.
        table: The markdown page, in place of table.md in the folder. LaTeX is written beside it if
            the file ends in .tex, and every run as CSV if it ends in .csv.

    Returns:
        The rows by forget ratio.
    """
    results = collect(cells, out)
    origin = f"`{command}`{_machines(results)}"
    sections = [(ratio, tables(rows), notes(rows)) for ratio, rows in results.items()]
    text = f"# {escape_tags(title)}\n\nWritten by {origin}. {_seeds(cells)}\n\n{MEANING}\n"
    for ratio, section_tables, remarks in sections:
        text += f"\n## {_heading(ratio)}\n\n"
        text += "\n".join(table.markdown() for table in section_tables)
        text += "".join(f"\n{escape_tags(remark)}\n" for remark in remarks)
    files = {out / CSV: csv_text(results), markdown_file(out, table): text}
    if table is not None and table.suffix.lower() == ".csv":
        files[table] = csv_text(results)
    elif table is not None and table.suffix.lower() == ".tex":
        files[table] = latex_text(title, command, [(ratio, own) for ratio, own, _ in sections])
    for path, content in files.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, content)
    page = template("comparison.html.j2").render(
        title=title,
        origin=origin,
        seeds=_seeds(cells),
        meaning=MEANING,
        parts=[
            {
                "share": _heading(ratio),
                "tables": section_tables,
                "notes": remarks,
                "plot": _plot(results[ratio], f"p{number}"),
                "curves": _recovery(results[ratio], f"c{number}"),
            }
            for number, (ratio, section_tables, remarks) in enumerate(sections)
        ],
    )
    write_atomically(out / PAGE, page)
    return results


def markdown_file(out: Path, table: Path | None) -> Path:
    """Returns where the markdown page of a comparison is, with `table` as in `write`."""
    other = table is None or table.suffix.lower() in (".tex", ".csv")
    return out / TABLE if table is None or other else table


def latex_text(title: str, command: str, sections: Sequence[tuple[str, Sequence[Table]]]) -> str:
    r"""Returns the tables as LaTeX, each a `table` to \\input in a paper that uses booktabs.

    Args:
        title: The title, in a comment.
        command: The command that made the runs, in a comment.
        sections: The tables by forget ratio.
    """
    lines = [f"% {' '.join(text.split())}" for text in (title, f"Written by {command}")]
    lines.append("% Needs \\usepackage{booktabs}.")
    text = "\n".join(lines) + "\n"
    for ratio, section_tables in sections:
        for table in section_tables:
            caption = f"{table.title}, {ratio} % forgotten" if ratio else table.title
            text += "\n" + replace(table, title=caption).latex()
    return text


def tables(rows: Sequence[Row]) -> list[Table]:
    """Returns scores and cost, accuracies by split, and what each attack brought back."""
    columns = [name for name in COLUMNS if any(row.values(name) for row in rows)]
    scores = [
        [
            row.name,
            *(mean_and_range(row.values(name), COLUMNS[name]) for name in columns),
            row.settings,
            "; ".join(_unique(row.errors)),
        ]
        for row in rows
    ]
    result = [Table(["", *columns, "settings", "failed"], scores, "Scores and cost")]
    splits = _unique(split for row in rows for r in row.results for split in r.accuracies)
    if splits:
        accuracies = [
            [row.name, *(mean_and_range(row.accuracies(key)) for key in splits)] for row in rows
        ]
        result.append(Table(["", *splits], accuracies, "Accuracy"))
    attacks = _attack_names(rows)
    if attacks:
        result.append(Table(["", *attacks], _profile(rows, attacks), "Under attack"))
    tested = [row for row in rows if any(r.equivalence for r in row.results)]
    if tested:
        head = ["", "before attack", "under attack", "largest difference"]
        head += ["unsigned area", "worst gap"]
        lines = [_equivalence_line(row) for row in tested]
        result.append(Table(head, lines, "Against the visual-retain reference"))
    paired = paired_table(rows)
    return result if paired is None else [*result, paired]


def _equivalence_line(row: Row) -> list[str]:
    """A row of the table of tests: their outcome over seeds, and how far the curves are apart."""
    before, under = ([outcome_of(some) for some in sides] for sides in _tests(row))
    largest = max(
        (test for r in row.results for test in r.equivalence),
        key=lambda test: abs(test.difference or 0.0),
    )
    curves = [attack for r in row.results for attack in r.relearning]
    areas = [a.unsigned_area_to_reference for a in curves]
    gaps = [a.worst_gap for a in curves if a.worst_gap is not None]
    return [
        row.name,
        _over_seeds(before),
        _over_seeds(under),
        words(largest),
        mean_and_range([area for area in areas if area is not None]),
        f"{max(gaps, key=abs):+.3f}" if gaps else "",
    ]


def _tests(row: Row) -> tuple[list[list[EquivalenceTest]], list[list[EquivalenceTest]]]:
    """The tests of each seed before any attack, and those under attack."""
    seeds = [r.equivalence for r in row.results]
    before = [[test for test in tests if not test.attack] for tests in seeds]
    return before, [[test for test in tests if test.attack] for tests in seeds]


def _over_seeds(outcomes: Sequence[str]) -> str:
    """The outcomes of the seeds: "indistinguishable", or how many of them are what."""
    counts = Counter(LABELS[outcome].lower() for outcome in outcomes if outcome)
    if len(counts) < 2:
        return next(iter(counts), "")
    return ", ".join(f"{number}: {label}" for label, number in counts.most_common())


def _headroom(check: LearnedCheck) -> str:
    """A sentence on whether the target model knew enough for the scores to mean something."""
    floor = "chance" if check.floor_of == "chance" else "a model that never saw them"
    known = (
        f"Before unlearning, the target scores {check.target or 0.0:.3f} on {check.measure}, "
        f"{check.headroom or 0.0:.3f} above {floor}"
    )
    if check.enough:
        return f"{known}: that much can be forgotten."
    return f"{known}, of {check.required:g} that are needed: scores of forgetting mean nothing."


def _attack_names(rows: Sequence[Row]) -> list[str]:
    return _unique(attack.name for row in rows for r in row.results for attack in r.profile)


def _profile(rows: Sequence[Row], attacks: Sequence[str]) -> list[list[str]]:
    """The rows of the attack table: accuracy after each attack, and the areas of curves."""
    lines, reference = [], dict.fromkeys(attacks, "")
    for row in rows:
        line = [row.name]
        for attack in attacks:
            scores = [a for r in row.results for a in r.profile if a.name == attack]
            after = mean_and_range([a.unlearned for a in scores if a.unlearned is not None])
            areas = [a.area for a in scores if a.area is not None]
            line.append(f"{after}, area {sum(areas) / len(areas):+.3f}" if areas else after)
            others = [a.reference for a in scores if a.reference is not None]
            reference[attack] = reference[attack] or mean_and_range(others)
        if not row.is_model:
            lines.append(line)
    return [*lines, ["visual-retain", *reference.values()]]


def notes(rows: Sequence[Row]) -> list[str]:
    """Returns sentences on what the tables leave out, and on the settings that were chosen."""
    entries = [row for row in rows if not row.is_model]
    sentences = []
    lacking = _unique(text for row in entries for r in row.results for text in r.lacking)
    if lacking:
        sentences.append(f"Left out of the published scores: {'; '.join(lacking)}.")
    checks = [r.learned for row in entries for r in row.results if r.learned is not None]
    if checks:
        sentences.append(_headroom(checks[0]))
    if paired_table(rows) is not None:
        sentences.append(PAIRED)
    untuned = [row.name for row in entries if row.settings == "as given"]
    if untuned:
        sentences.append(f"Not tuned: {', '.join(untuned)}.")
    for row in entries:
        chosen = next((r.chosen for r in row.results if r.chosen), None)
        if chosen:
            settings = ", ".join(f"{key}={value}" for key, value in chosen.items())
            sentences.append(f"Chosen for {row.name}: {settings}.")
    farthest = {row.name: _unique(r.farthest for r in row.results if r.farthest) for row in rows}
    listed = [f"{name} at {' and '.join(keys)}" for name, keys in farthest.items() if keys]
    if listed:
        sentences.append(f"Farthest from the reference: {'; '.join(listed)}.")
    return sentences


def _unique(texts: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(texts))


def _heading(ratio: str) -> str:
    return f"{ratio} % forgotten" if ratio else "Forgotten"


def _seeds(cells: Sequence[Cell]) -> str:
    seeds = sorted({cell.seed for cell in cells})
    if len(seeds) == 1:
        return f"One seed, {seeds[0]}: no interval."
    return f"Mean over seeds {', '.join(map(str, seeds))}, range in brackets where they differ."


def _machines(results: Mapping[str, Sequence[Row]]) -> str:
    machines = _unique(
        r.machine for rows in results.values() for row in rows for r in row.results if r.machine
    )
    return f" on {' and '.join(machines)}" if machines else ""


def csv_text(results: Mapping[str, Sequence[Row]]) -> str:
    """Returns every number of every run as CSV, one line a run.

    The target and the references have one line for each forget ratio.

    Args:
        results: The rows by forget ratio.
    """
    all_rows = [row for rows in results.values() for row in rows]
    splits = _unique(split for row in all_rows for r in row.results for split in r.accuracies)
    attacks = _attack_names(all_rows)
    numbers = [*COLUMNS, "forgetting"]
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    head = ["name", "forget", "seed", "trials", *numbers, *(f"accuracy {s}" for s in splits)]
    writer.writerow([*head, *(f"after {name}" for name in attacks), "error"])
    for ratio, rows in results.items():
        for row in rows:
            for r in row.results:
                after = {a.name: a.unlearned for a in r.profile}
                own = (r.cell.seed, r.cell.tuned, r.cell.error)
                seed, trials, error = (None, None, None) if row.is_model else own
                line: list[str | float | None] = [row.name, ratio, seed, trials]
                line += [r.numbers.get(name) for name in numbers]
                line += [r.accuracies.get(split) for split in splits]
                line += [after.get(name) for name in attacks]
                writer.writerow([_csv_cell(value) for value in [*line, error]])
    return buffer.getvalue()


def _csv_cell(value: str | float | None) -> str | float:
    """A value as it may stand in a CSV: spreadsheets run text that begins like a formula."""
    if isinstance(value, str) and value.startswith(("=", "+", "-", "@", "\t", "\r")):
        return f"'{value}"
    return "" if value is None else value


def _plot(rows: Sequence[Row], uid: str) -> Markup | None:
    """Forgetting against utility, with the Pareto front of the entries; None without points."""
    places = places_of(rows)
    if not places:
        return None
    models = {row.name for row in rows if row.is_model}
    styles = {"target": "target", **REFERENCE_STYLES}
    front = pareto_front({name: place for name, place in places.items() if name not in models})
    points = [
        Point(name, styles[name] if name in models else "unlearned", x, y, name in front)
        for name, (x, y) in places.items()
    ]
    return scatter(
        points,
        uid=uid,
        title="Forgetting against utility",
        desc=f"On the Pareto front: {', '.join(front) or 'none'}.",
        x_label="utility (MU)",
        y_label="forgetting",
    )


def _recovery(rows: Sequence[Row], uid: str) -> list[tuple[str, Markup]]:
    """For each relearning attack, the recovery curves of all entries and of the references."""
    drawings = []
    for number, (attack, curves) in enumerate(curves_by_attack(rows).items()):
        named = {name: own for name, own in curves.items() if name not in REFERENCE_STYLES}
        best = next(iter(named), "")
        lines = [
            _line(name, "other", points, markers=False)
            for name, points in reversed(named.items())
            if name != best
        ]
        lines += [
            _line(name, style, curves[name])
            for name, style in REFERENCE_STYLES.items()
            if name in curves
        ]
        if best:
            lines.append(_line(best, "unlearned", named[best]))
        drawing = line_chart(
            lines,
            uid=f"{uid}-{number}",
            title=f"Recovery under {attack}",
            desc="; ".join(f"{line.name} ends at {line.dots[-1].y:.2f}" for line in lines),
            x_label="attack steps",
            share=True,
        )
        caption = f"{attack}. Bold: {best}, of rank 1; thin: the other methods"
        drawings.append((f"{caption}; dashed and dotted: the references.", drawing))
    return drawings


def _line(name: str, style: str, points: CurveOverSeeds, markers: bool = True) -> Line:
    """A mean curve, with its range over seeds if they differ and it is not in the background."""
    banded = markers and any(low != high for *_, low, high in points)
    dots = [Dot(s, mean, *((low, high) if banded else ())) for s, mean, low, high in points]
    return Line(name, style, dots, markers)
