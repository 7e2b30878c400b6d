"""Reads run folders into the models of `unsee.records.schema`.

Every key is documented in docs/records.md. Keys that this version does not know are ignored, and
missing parts read as None or empty, so that older and partial records stay readable.
"""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from pydantic import ValidationError

from unsee.errors import RunError, first_line, quoted, require_extra, shorten
from unsee.files import MOST_BYTES, path_text, read_text, refuse_odd_file
from unsee.records.folder import RECIPE, SCORES, SUMMARY, TRAIN
from unsee.records.part import RecordPart
from unsee.records.schema import REFERENCES, SCHEMA, SampleScore, Summary, TrainingStep

if TYPE_CHECKING:
    import pandas

T = TypeVar("T", bound=RecordPart)

MODELS = ("unlearned", "target", *REFERENCES)


@dataclass(frozen=True, repr=False)
class Run:
    """A finished run, as read from its folder by `read_run`.

    Attributes:
        folder: The run folder.
        summary: The content of `summary.json`.
        train: The training steps in order; empty if nothing was trained.
        unreadable: Number of lines of `train.jsonl` that are cut off, as after a kill.
    """

    folder: Path
    summary: Summary
    train: tuple[TrainingStep, ...] = ()
    unreadable: int = 0

    def __repr__(self) -> str:
        """The run in a line, such as "Run('runs/demo', kind='demo', method='vkd', 'Forgotten')"."""
        method = self.summary.method.name if self.summary.method is not None else None
        headline = (self.summary.verdict or "").partition(":")[0]
        return f"Run({str(self.folder)!r}, kind={self.summary.kind!r}, {method=}, {headline!r})"

    def measures_frame(self) -> pandas.DataFrame:
        """Returns every measure of every model as a data frame.

        Returns:
            One row a measure: model, split, modality, metric, value, low, high (0..1; NaN if
            unscored), n, n_unscored (questions), and better.

        Raises:
            ConfigError: If pandas is not installed.
        """
        columns = ("value", "low", "high", "n", "n_unscored", "better")
        rows = [
            (model, *key.split("/", 2), *(getattr(measure, name) for name in columns))
            for model in MODELS
            for key, measure in self.summary.measures_of(model).items()
        ]
        return _frame(rows, ("model", "split", "modality", "metric", *columns))

    def curves_frame(self) -> pandas.DataFrame:
        """Returns the recovery curves of all relearning attacks as a data frame.

        Returns:
            One row a point: attack (its number, from 0), share (0..1), modules, seed, measure,
            data, worst_case, model, step, value, low, high, retain (0..1; NaN if unscored).

        Raises:
            ConfigError: If pandas is not installed.
        """
        budget = ("share", "modules", "seed", "measure", "data", "worst_case")
        columns = ("step", "value", "low", "high", "retain")
        rows = [
            (
                number,
                *(getattr(attack, name) for name in budget),
                model,
                *(getattr(point, name) for name in columns),
            )
            for number, attack in enumerate(self.summary.relearn)
            for model in attack.curves
            for point in attack.curve(model)
        ]
        return _frame(rows, ("attack", *budget, "model", *columns))

    def scores_frame(self) -> pandas.DataFrame:
        """Returns the lines of `scores.jsonl` as a data frame; the file may be large.

        Returns:
            One row a model and sample: model, split, modality, task, id, concept, picture,
            question, truth, output, and one column a metric (NaN if unscored).

        Raises:
            ConfigError: If pandas is not installed.
            RunError: At a line that is not a score.
        """
        columns = (
            *("model", "split", "modality", "task", "id"),
            *("concept", "picture", "question", "truth", "output"),
        )
        scores = list(self.scores())
        metrics = tuple(dict.fromkeys(name for score in scores for name in score.scores))
        rows = [
            (
                *(getattr(score, name) for name in columns),
                *(score.scores.get(name) for name in metrics),
            )
            for score in scores
        ]
        return _frame(rows, (*columns, *metrics))

    def scores(self) -> Iterator[SampleScore]:
        """Yields the lines of `scores.jsonl` one by one: the file may be large.

        Raises:
            RunError: At a line that is not a score.
        """
        path = self.folder / SCORES
        for number, score in _lines(path, SampleScore):
            if score is None:
                raise RunError(f"{path}: line {number} is not a score. {_AGAIN}")
            yield score


def parse_summary(summary: Mapping[str, Any], source: str = "summary") -> Summary:
    """Returns the decoded content of a `summary.json` as a `Summary`.

    Args:
        summary: The decoded JSON.
        source: Name for error messages, such as the file's path.

    Raises:
        RunError: If a key has another type than documented, or the schema is a later one.
    """
    if not isinstance(summary, Mapping):
        raise RunError(f"{source}: holds {type(summary).__name__}, not a JSON object. {_AGAIN}")
    if summary.get("schema", SCHEMA) != SCHEMA:
        raise RunError(
            f"{source}: schema {quoted(summary['schema'])}; this version reads schema {SCHEMA}. "
            "Type `pip install --upgrade unsee`, or run again with this version."
        )
    try:
        return Summary.model_validate(summary)
    except ValidationError as error:
        first = error.errors()[0]
        key = shorten("/".join(str(part) for part in first["loc"]), 200)
        raise RunError(
            f"{source}: '{key}' is not as documented in docs/records.md: {first['msg']} "
            f"(given: {quoted(first['input'])}). {_AGAIN}"
        ) from error


def read_run(folder: Path | str) -> Run:
    """Reads a run folder.

    Args:
        folder: The folder, or the `summary.json` in it.

    Raises:
        RunError: If the folder is missing or no path, or the run is unfinished or damaged.
    """
    folder = Path(path_text("run folder ", folder, f"give {_FOLDER}.", RunError))
    if folder.name == SUMMARY and folder.is_file():
        folder = folder.parent
    if not folder.is_dir():
        raise RunError(f"run folder {folder}: there is no such folder. Give {_FOLDER}.")
    path = folder / SUMMARY
    try:
        content = json.loads(read_text(path))
    except FileNotFoundError as error:
        raise RunError(
            f"run folder {folder}: has no summary.json, so it is not a run or the run was not "
            f"finished. {_unfinished(folder)}"
        ) from error
    except ValueError as error:
        raise RunError(f"{path}: cannot be read ({first_line(error)}). {_AGAIN}") from error
    except RecursionError as error:
        raise RunError(f"{path}: is nested too deep. {_AGAIN}") from error
    summary = parse_summary(content, str(path))
    steps: dict[int, TrainingStep] = {}
    unreadable = 0
    for _, step in _lines(folder / TRAIN, TrainingStep):
        if step is None:
            unreadable += 1
        else:
            # A resumed run writes some steps twice; the later line is the one that counted.
            steps[step.step] = step
    ordered = tuple(steps[number] for number in sorted(steps))
    return Run(folder=folder, summary=summary, train=ordered, unreadable=unreadable)


_FOLDER = "the folder that --out named, such as `unsee report runs/demo -o report.html`"
_AGAIN = "Restore the file, or run the command of the run again with a new --out."


def _unfinished(folder: Path) -> str:
    recipe = folder / RECIPE
    with suppress(FileNotFoundError, RunError):
        text = read_text(recipe)
        command = text.partition("\n")[0].removeprefix("#").strip()
        # What a folder of somebody else advises to type must be a command of this package.
        if re.fullmatch(r"(python -m )?unsee [^`;&|<>$]*", command) and len(command) < 2000:
            return f"Finish it first: type `{command}`."
        if re.search(r"^method:", text, re.MULTILINE):
            return f"Finish it first: type `unsee run {recipe} --out {folder}`."
    return f"Give {_FOLDER}."


def _frame(rows: list[tuple[Any, ...]], columns: tuple[str, ...]) -> pandas.DataFrame:
    require_extra("pandas", "pandas", "a data frame of a run")
    import pandas

    return pandas.DataFrame(rows, columns=list(columns))


def _lines(path: Path, kind: type[T]) -> Iterator[tuple[int, T | None]]:
    """Yields number and content of each line of a JSONL file; None for a line that is no `kind`."""
    refuse_odd_file(path)
    try:
        with path.open("rb") as handle:
            for number in itertools.count(1):
                line = handle.readline(MOST_BYTES)
                if not line:
                    return
                if line.strip():
                    yield number, _line(line, kind)
    except FileNotFoundError:
        return
    except OSError as error:
        raise RunError(f"{path}: cannot be read ({first_line(error)}). {_AGAIN}") from error


def _line(line: bytes, kind: type[T]) -> T | None:
    try:
        return kind.model_validate_json(line.decode("utf-8", "replace"))
    except ValidationError:
        return None
