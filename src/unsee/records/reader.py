"""Reads run folders into the models of `unsee.records.schema`.

Every key is documented in docs/records.md. Keys that this version does not know are ignored, and
missing parts read as None or empty, so that older and partial records stay readable.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from unsee.errors import RunError
from unsee.records.schema import SCHEMA, SampleScore, Summary, TrainingStep


@dataclass(frozen=True)
class Run:
    """A run folder.

    Attributes:
        folder: Where it lies.
        summary: Its `summary.json`.
        train: Its training steps in order, one a step; empty where nothing was trained.
        unreadable: Lines of `train.jsonl` that are no whole record, as after a kill.
    """

    folder: Path
    summary: Summary
    train: tuple[TrainingStep, ...] = ()
    unreadable: int = 0

    def scores(self) -> Iterator[SampleScore]:
        """The lines of `scores.jsonl`, one by one: the file may be large.

        Raises:
            RunError: At a line that is not a score.
        """
        path = self.folder / "scores.jsonl"
        for number, score in _lines(path, SampleScore):
            if score is None:
                raise RunError(f"{path}: line {number} is not a score. {_AGAIN}")
            yield score


def parse_summary(summary: Mapping[str, Any], source: str = "summary") -> Summary:
    """The typed form of a summary.

    Args:
        summary: The decoded content of `summary.json`.
        source: What messages call it.

    Raises:
        RunError: If a part has another type than documented, or the schema is a later one.
    """
    if not isinstance(summary, Mapping):
        raise RunError(f"{source}: holds {type(summary).__name__}, not a JSON object. {_AGAIN}")
    if summary.get("schema", SCHEMA) != SCHEMA:
        raise RunError(
            f"{source}: schema {summary['schema']!r}; this version reads schema {SCHEMA}. "
            "Type `pip install --upgrade unsee`, or run again with this version."
        )
    try:
        return Summary.model_validate(summary)
    except ValidationError as error:
        first = error.errors()[0]
        key = "/".join(str(part) for part in first["loc"])
        raise RunError(
            f"{source}: '{key}' is not as documented in docs/records.md: {first['msg']} "
            f"(given: {str(first['input'])[:80]!r}). {_AGAIN}"
        ) from error


def read_run(folder: Path | str) -> Run:
    """Reads a run folder.

    Raises:
        RunError: If it is missing, unfinished or damaged.
    """
    folder = Path(folder)
    if folder.name == "summary.json" and folder.is_file():
        folder = folder.parent
    if not folder.is_dir():
        raise RunError(
            f"run folder {folder}: there is no such folder. "
            "Give the folder that --out named, such as `unsee report runs/demo -o report.html`."
        )
    path = folder / "summary.json"
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise RunError(
            f"run folder {folder}: has no summary.json, so it is not a run or the run was not "
            f"finished. {_unfinished(folder)}"
        ) from error
    except (ValueError, OSError) as error:
        raise RunError(f"{path}: cannot be read ({error}). {_AGAIN}") from error
    summary = parse_summary(content, str(path))
    steps: dict[int, TrainingStep] = {}
    unreadable = 0
    for _, step in _lines(folder / "train.jsonl", TrainingStep):
        if step is None:
            unreadable += 1
        else:
            # A resumed run writes some steps twice; the later line is the one that counted.
            steps[step.step] = step
    ordered = tuple(steps[number] for number in sorted(steps))
    return Run(folder=folder, summary=summary, train=ordered, unreadable=unreadable)


_AGAIN = "Restore the file, or run the command of the run again with a new --out."


def _unfinished(folder: Path) -> str:
    if (folder / "recipe.yaml").is_file():
        return f"Finish it first: type `unsee run {folder / 'recipe.yaml'}`."
    return "Give the folder that --out named, such as `unsee report runs/demo -o report.html`."


def _lines(path: Path, kind: type[Any]) -> Iterator[tuple[int, Any]]:
    """The lines of a JSONL file as `kind`, or None for a line that was cut or is not one."""
    if not path.is_file():
        return
    try:
        with path.open(encoding="utf-8", errors="replace") as handle:
            for number, line in enumerate(handle, start=1):
                if not line.strip():
                    continue
                try:
                    yield number, kind.model_validate_json(line)
                except ValidationError:
                    yield number, None
    except OSError as error:
        raise RunError(f"{path}: cannot be read ({error}). {_AGAIN}") from error
