"""The records of a comparison in one compressed file, from which its tables can be made.

The file is JSON lines, compressed with xz: a head with the title and the command, then one line a
run with its record and the scores of its samples, without their texts. See `write_records`.
"""

from __future__ import annotations

import json
import lzma
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from unsee.errors import RunError
from unsee.files import atomic_file, write_atomically
from unsee.records.folder import SCORES, SUMMARY
from unsee.records.reader import read_run
from unsee.studies.comparison import Cell, finished
from unsee.studies.tuning import read_tuned

SCHEMA = 1

# What the tables need of a sample's score; questions and answers are left out.
SAMPLE_KEYS = ("model", "split", "modality", "task", "id", "concept", "fault", "scores")


@dataclass(frozen=True)
class KeptRecords:
    """The runs of a comparison that was kept in a file.

    Attributes:
        title: The title of the page.
        command: The command that made the runs.
        cells: The runs, in folders made from the file.
        folder: The comparison's folder made from the file.
    """

    title: str
    command: str
    cells: Sequence[Cell]
    folder: Path


def write_records(
    cells: Sequence[Cell], out: Path, path: Path, title: str = "", command: str = ""
) -> None:
    """Writes the records of a comparison's runs to one file.

    Args:
        cells: The runs, failed ones included.
        out: The comparison's folder.
        path: The file to write, such as compare.jsonl.xz.
        title: The title of the page.
        command: The command that made the runs.

    Raises:
        RunError: If the file cannot be written, or a record is damaged.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_file(path) as partial, lzma.open(partial, "wt", encoding="utf-8") as file:
        head = {"unsee_comparison": SCHEMA, "title": title, "command": command}
        file.write(json.dumps(head) + "\n")
        for cell in cells:
            file.write(json.dumps(_line(cell, out)) + "\n")


def _line(cell: Cell, out: Path) -> dict[str, Any]:
    """A run's line: what it stands for, its record and its samples' scores."""
    line: dict[str, Any] = {
        "entry": cell.entry,
        "forget_ratio": cell.forget_ratio,
        "seed": cell.seed,
        "folder": cell.folder.name,
        "error": cell.error,
        "tuned": cell.tuned,
    }
    if cell.error is None and finished(cell.folder):
        run = read_run(cell.folder)
        line["summary"] = json.loads((cell.folder / SUMMARY).read_text("utf-8"))
        # Its pictures are named by paths of this machine, and no table shows them.
        line["summary"].pop("gallery", None)
        line["scores"] = [
            {key: value for key in SAMPLE_KEYS if (value := getattr(sample, key)) is not None}
            for sample in run.scores()
        ]
    chosen = _tuned_file(out, cell.folder.name)
    if chosen.exists():
        line["chosen"] = read_tuned(chosen)
    return line


def read_records(paths: Sequence[Path], folder: Path) -> KeptRecords:
    """Makes the folders of a comparison's runs from files of `write_records`.

    Args:
        paths: The files, such as one a seed; the title is that of the first.
        folder: An empty folder to write.

    Returns:
        The runs, for `unsee.studies.comparison_page.write`.

    Raises:
        RunError: If a file is missing, is not one of `write_records`, or has a run that an earlier
            file has too.
    """
    kept: list[KeptRecords] = []
    origins: dict[str, Path] = {}
    for path in paths:
        kept.append(_read_file(path, folder))
        for cell in kept[-1].cells:
            if cell.folder.name in origins:
                raise RunError(
                    f"{path}: has {cell.entry} with seed {cell.seed}, which is in "
                    f"{origins[cell.folder.name]} too. Give files whose runs differ in method, "
                    "settings or seed."
                )
            origins[cell.folder.name] = path
    commands = dict.fromkeys(own.command for own in kept)
    cells = [cell for own in kept for cell in own.cells]
    return KeptRecords(kept[0].title, "` and `".join(commands), cells, folder)


def _read_file(path: Path, folder: Path) -> KeptRecords:
    lines = _lines(path)
    head = next(lines, {})
    if head.get("unsee_comparison") != SCHEMA:
        raise RunError(
            f"{path}: is not the kept records of a comparison. Give a file that `unsee compare "
            "--records FILE` wrote with this version."
        )
    cells = [_unpack(line, folder, path) for line in lines]
    return KeptRecords(str(head.get("title", "")), str(head.get("command", "")), cells, folder)


def _lines(path: Path) -> Iterator[dict[str, Any]]:
    try:
        with lzma.open(path, "rt", encoding="utf-8") as file:
            for text in file:
                line = json.loads(text)
                if not isinstance(line, dict):
                    raise RunError(f"{path}: a line is not an object. Restore the file.")
                yield line
    except (OSError, EOFError, ValueError, RecursionError, lzma.LZMAError) as error:
        raise RunError(
            f"{path}: cannot be read ({error}). Restore the file, or write it again with `unsee "
            "compare --records FILE`."
        ) from error


def _unpack(line: dict[str, Any], folder: Path, path: Path) -> Cell:
    """Writes a run's folder; its name is checked, since the file may come from anyone."""
    name, summary, scores = line.get("folder"), line.get("summary"), line.get("scores", [])
    valid = isinstance(name, str) and name not in ("", ".", "..") and name == Path(name).name
    if not valid or not isinstance(scores, list):
        raise RunError(f"{path}: the line of '{line.get('entry')}' is damaged. Restore the file.")
    run = folder / "runs" / str(name)
    run.mkdir(parents=True, exist_ok=True)
    if summary is not None:
        write_atomically(run / SUMMARY, json.dumps(summary))
        write_atomically(run / SCORES, "".join(f"{json.dumps(sample)}\n" for sample in scores))
    if "chosen" in line:
        chosen = _tuned_file(folder, str(name))
        chosen.parent.mkdir(exist_ok=True)
        write_atomically(chosen, json.dumps(line["chosen"]))
    try:
        error = line["error"]
        return Cell(
            str(line["entry"]),
            str(line["forget_ratio"]),
            int(line["seed"]),
            run,
            None if error is None else str(error),
            int(line["tuned"]),
        )
    except (KeyError, TypeError, ValueError) as problem:
        raise RunError(
            f"{path}: the line of '{name}' lacks {problem}. Restore the file."
        ) from problem


def _tuned_file(out: Path, run: str) -> Path:
    return out / "tuned" / f"{run.rsplit('-seed', 1)[0]}.json"
