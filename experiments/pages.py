"""What the experiments share: records, figures, tables and pages.

An experiment runs what is missing, keeps every result in a file, and writes its page from these
files alone. So each command can be stopped and repeated.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from unsee.recipes.parsing import format_value
from unsee.records.folder import SUMMARY
from unsee.records.markdown import Table
from unsee.records.reader import read_run
from unsee.records.schema import Measure, Summary

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"

# Rows that were measured before rows recorded their machine.
UNRECORDED_MACHINE = "Linux x86_64, 2 cores, no GPU"

# What pocket's results are reported on: a row title and the measure.
POCKET_MEASURES = {
    "forgotten people, held-out pictures": "forget_holdout/vqa/accuracy",
    "forgotten people, pictures trained on": "forget/vqa/accuracy",
    "forgotten people, by name": "forget/text/accuracy",
    "others, held-out pictures": "retain_holdout/vqa/accuracy",
    "others, by name": "retain/text/accuracy",
    "what a stranger's picture shows": "general/vqa/accuracy",
    "what a forgotten person's picture shows": "general_forget/vqa/accuracy",
}


# Records


def read_rows(path: Path) -> list[dict[str, Any]]:
    """Returns the rows of a JSONL file; none if there is no file."""
    text = path.read_text("utf-8") if path.exists() else ""
    return [json.loads(line) for line in text.splitlines()]


def append_row(path: Path, rows: list[dict[str, Any]], row: dict[str, Any]) -> None:
    """Adds a row to the rows that were read and to their file, and prints it."""
    rows.append(row)
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(row) + "\n")
    print(json.dumps(row), flush=True)


def load_or_make(path: Path, make: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """Returns the content of a JSON file, which `make` computes if there is none yet."""
    if not path.exists():
        content = make()
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(content) + "\n", "utf-8")
    loaded: dict[str, Any] = json.loads(path.read_text("utf-8"))
    return loaded


# Commands


def run_unsee(words: Sequence[str], threads: int | None = None) -> None:
    """Runs an `unsee` command in a process of its own.

    Args:
        words: The command and its options.
        threads: Number of threads; None uses all cores.
    """
    print("unsee", *words, flush=True)
    environment = os.environ | ({"OMP_NUM_THREADS": str(threads)} if threads else {})
    subprocess.run([sys.executable, "-m", "unsee", *words], cwd=ROOT, check=True, env=environment)


def run_module(module: str, words: Sequence[str], threads: int | None = None) -> dict[str, Any]:
    """Runs a Python module in a process of its own, and returns the JSON of its last line.

    Args:
        module: The module, such as "experiments.speed.until_forgotten".
        words: Its arguments.
        threads: Number of threads; None uses all cores.
    """
    done = subprocess.run(
        [sys.executable, "-m", module, *words],
        cwd=ROOT,
        env=os.environ | ({"OMP_NUM_THREADS": str(threads)} if threads else {}),
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


def run_once(folder: Path, words: Sequence[str], threads: int | None = None) -> Summary:
    """Runs an `unsee` command with `--out folder` unless it is finished; returns its record."""
    if not (folder / SUMMARY).exists():
        run_unsee([*words, "--out", str(folder)], threads)
    return read_run(folder).summary


def set_options(fields: Mapping[str, Any]) -> str:
    """Returns fields of a method as options: "--set steps=400 --set lr=0.001"."""
    return " ".join(f"--set {name}={format_value(value)}" for name, value in fields.items())


# Figures


def mean_and_range(values: Sequence[float], shape: str = ".3f") -> str:
    """Returns the mean, and the range of more than one value in brackets; "" of no values."""
    if not values:
        return ""
    mean = f"{statistics.mean(values):{shape}}"
    return mean if len(values) == 1 else f"{mean} ({min(values):{shape}} to {max(values):{shape}})"


def shown_value(measures: Mapping[str, Measure] | None, key: str) -> str:
    """Returns one measure's value with three decimals; "" if it was not measured."""
    measure = (measures or {}).get(key)
    return "" if measure is None or measure.value is None else f"{measure.value:.3f}"


def titles(rows: Iterable[Mapping[str, Any]], key: str, names: Sequence[str]) -> dict[str, str]:
    """Returns the names that rows are of, each with its title in a table.

    Those of today come first, in their order. Rows that were measured with fields that a method has
    no more are kept, and their titles end with a dagger.

    Args:
        rows: The rows.
        key: The key of a row that holds the name.
        names: The names of today.
    """
    measured = list(dict.fromkeys(row[key] for row in rows))
    known = {name: name for name in names if name in measured}
    return known | {name: f"{name} †" for name in measured if name not in known}


def machines(rows: Iterable[Mapping[str, Any]]) -> str:
    """Names the machines that rows were measured on."""
    return " and ".join(dict.fromkeys(row.get("machine", UNRECORDED_MACHINE) for row in rows))


# Pages


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Returns a markdown table without a newline at its end."""
    return Table(head, rows).markdown().rstrip("\n")


def rows_that_begin(text: str, beginnings: tuple[str, ...]) -> str:
    """Returns a table in markdown with only some of its rows.

    Args:
        text: The table; what stands around it is left out.
        beginnings: How the rows begin.
    """
    lines = text[text.index("| ") :].splitlines()
    return "\n".join([*lines[:2], *(line for line in lines[2:] if line.startswith(beginnings))])


def replace_section(page: Path, mark: str, body: str) -> None:
    """Replaces what stands between `<!-- mark:begin -->` and `<!-- mark:end -->` in a page."""
    text = page.read_text("utf-8")
    begin, end = f"<!-- {mark}:begin -->", f"<!-- {mark}:end -->"
    before, after = text[: text.index(begin)], text[text.index(end) :]
    page.write_text(f"{before}{begin}\n{body}\n{after}", "utf-8")


def replace_above_mark(page: Path, body: str, mark: str = "<!-- by hand -->") -> None:
    """Replaces a page above its mark; what was written by hand below the mark stays."""
    text = page.read_text("utf-8") if page.exists() else ""
    rest = text[text.index(mark) :] if mark in text else f"{mark}\n"
    page.write_text(f"{body}\n{rest}", "utf-8")
