"""Schema."""

from __future__ import annotations

import math
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

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
    choices: dict[str, Any] | None = None
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
