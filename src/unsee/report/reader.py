"""Run folders, read and typed: what `summary.json`, `train.jsonl` and `scores.jsonl` hold.

Every key is documented in docs/records.md. Keys that this version does not know are ignored, and
missing parts read as None or empty, so that older and partial records stay readable.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from unsee.errors import RunError
from unsee.types import Better

SCHEMA = 1


def _scored(value: object) -> object:
    # JSON written by Python may hold NaN; a record means "unscored" by it.
    return None if isinstance(value, float) and not math.isfinite(value) else value


Number = Annotated[float | None, BeforeValidator(_scored)]


class _Part(BaseModel):
    """A frozen part of a record; unknown keys are ignored."""

    model_config = ConfigDict(frozen=True, extra="ignore", protected_namespaces=())


class Measured(_Part):
    """An `unsee.types.Estimate` as it stands in a record."""

    value: Number = None
    low: Number = None
    high: Number = None
    n: int = 0
    n_unscored: int = 0
    better: Better = "higher"


Measures = dict[str, Measured]


class Point(_Part):
    """One evaluation during an attack: the score after `step` steps, and on the retain split."""

    step: int
    value: Number = None
    low: Number = None
    high: Number = None
    retain: Number = None


class Relearning(_Part):
    """A relearning attack with one budget, on the unlearned model and on the references."""

    share: float
    steps: int
    lr: float | None = None
    modules: str = "all"
    measure: str = ""
    retain_measure: str | None = None
    curves: dict[str, tuple[Point, ...]] = {}
    area_to_reference: Number = None
    steps_to_half_recovery: Number = None

    def curve(self, model: str) -> tuple[Point, ...]:
        """The points of "unlearned", "reference" or "retain_only", in order of steps."""
        return tuple(sorted(self.curves.get(model) or (), key=lambda point: point.step))


class Answered(_Part):
    """A gallery entry: one question about one picture, and what each model said."""

    concept: str | None = None
    split: str
    picture: str | None = None
    question: str
    truth: str = ""
    before: str | None = None
    after: str | None = None
    reference: str | None = None


class Method(_Part):
    """The method that unlearned, with its hyperparameters."""

    name: str
    parameters: dict[str, Any] = {}
    source: str | None = None


class Summary(_Part):
    """The content of `summary.json`."""

    schema_: Literal[1] = Field(default=1, alias="schema")
    name: str = "run"
    kind: str = "run"
    created: str | None = None
    command: str | None = None
    verdict: str | None = None
    method: Method | None = None
    benchmark: dict[str, Any] | None = None
    forgetting: Annotated[tuple[str, ...], BeforeValidator(lambda found: found or ())] = ()
    measures: Measures | None = None
    target: Measures | None = None
    reference: Measures | None = None
    retain_only: Measures | None = None
    guarantees: dict[str, Any] | None = None
    attacks: dict[str, Any] | None = None
    cost: dict[str, Any] | None = None
    representation: dict[str, Number] | None = None
    gallery: tuple[Answered, ...] | None = None
    harness: dict[str, Any] | None = None
    provenance: dict[str, Any] | None = None
    artifacts: dict[str, Any] | None = None
    relearn: tuple[Relearning, ...] = ()


class Step(_Part):
    """A line of `train.jsonl`: the loss and its named terms after one step."""

    step: int
    loss: Number = None
    terms: dict[str, Number] = {}
    lr: Number = None
    seconds: Number = None


class Score(_Part):
    """A line of `scores.jsonl`: one model's answer to one sample."""

    model: str
    split: str
    modality: str = "vqa"
    task: str | None = None
    id: str
    concept: str | None = None
    picture: str | None = None
    question: str = ""
    truth: str = ""
    output: str | None = None
    scores: dict[str, Number] = {}


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
    train: tuple[Step, ...] = ()
    unreadable: int = 0

    def scores(self) -> Iterator[Score]:
        """The lines of `scores.jsonl`, one by one: the file may be large.

        Raises:
            RunError: At a line that is not a score.
        """
        path = self.folder / "scores.jsonl"
        for number, score in _lines(path, Score):
            if score is None:
                raise RunError(f"{path}: line {number} is not a score. {_AGAIN}")
            yield score


def parse(summary: Mapping[str, Any], source: str = "summary") -> Summary:
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
        attacks = summary.get("attacks")
        relearn = (attacks.get("relearn") or ()) if isinstance(attacks, Mapping) else ()
        return Summary.model_validate({**summary, "relearn": relearn})
    except ValidationError as error:
        first = error.errors()[0]
        key = "/".join(str(part) for part in first["loc"])
        raise RunError(
            f"{source}: '{key}' is not as documented in docs/records.md: {first['msg']} "
            f"(given: {str(first['input'])[:80]!r}). {_AGAIN}"
        ) from error


def read(folder: Path | str) -> Run:
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
    summary = parse(content, str(path))
    steps: dict[int, Step] = {}
    unreadable = 0
    for _, step in _lines(folder / "train.jsonl", Step):
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
