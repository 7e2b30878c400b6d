"""Metrics: one file each; they score a sample's output, or a split's rows together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from unsee.errors import ConfigError
from unsee.registry import Registry
from unsee.types import Better, Sample

if TYPE_CHECKING:
    import numpy as np
    from jaxtyping import Float

METRICS: Registry[type[Metric]] = Registry("metric", "unsee.metrics")

Reads = Literal["text", "logprobs", "alternatives", "rows"]
Row = Mapping[str, Any]


@dataclass(frozen=True)
class Output:
    """What a model gave for a sample. Likelihoods are mean negative, in nats a token.

    Attributes:
        text: Its greedy answer.
        nll: Of the true answer; NaN if not computed.
        paraphrases: Of each of the sample's paraphrases; empty if not computed, as below.
        perturbed: Of each of its false answers.
        choices: Of each of its choices.
    """

    text: str = ""
    nll: float = float("nan")
    paraphrases: tuple[float, ...] = ()
    perturbed: tuple[float, ...] = ()
    choices: tuple[float, ...] = ()


class Metric:
    """What all metrics have in common.

    Attributes:
        name: Its registered name.
        source: Where its definition comes from.
        reads: "text" scores the greedy answer, "logprobs" the true answer's likelihood,
            "alternatives" those of other answers too, "rows" what other metrics scored.
        unit: Of the measure.
        better: Which direction is good of a model that should know; a benchmark decides otherwise
            where something is to be forgotten.
    """

    name: ClassVar[str]
    source: ClassVar[str] = ""
    reads: ClassVar[Reads] = "text"
    unit: ClassVar[str] = "0..1"
    better: ClassVar[Better] = "higher"

    def applies(self, sample: Sample) -> bool:
        """Whether samples of this task are scored by it."""
        return True

    def compares(self, sample: Sample) -> bool:
        """Whether it needs the likelihoods of this sample's alternatives."""
        return self.reads == "alternatives" and self.applies(sample)

    def score(self, sample: Sample, output: Output) -> float:
        """The sample's score; NaN where it cannot be scored, such as without a true answer."""
        raise NotImplementedError

    def reported(self, score: float, forgetting: bool) -> float:
        """What a measure averages: the score, unless forget and retain splits read it differently.

        Args:
            score: A sample's score.
            forgetting: Whether the split is of what is to be forgotten.
        """
        return score


@dataclass(frozen=True)
class Unit:
    """What a set metric counts as one: a row, a pair of rows, or a group.

    Attributes:
        concept: Whom it is about; what bootstrap intervals resample.
        values: The numbers that the metric combines; NaN where unscored.
    """

    concept: str
    values: tuple[float, ...]


class SetMetric(Metric):
    """A metric of a whole split, computed from what sample metrics scored on its rows.

    Attributes:
        rests_on: The sample metrics whose scores it reads.
        against: "reference" reads the same rows of the reference model too.
        over: "modality" keeps pictured and text rows apart; "both" joins them under "vqa".
    """

    reads: ClassVar[Reads] = "rows"
    rests_on: ClassVar[tuple[str, ...]]
    against: ClassVar[Literal["nothing", "reference"]] = "nothing"
    over: ClassVar[Literal["modality", "both"]] = "modality"

    def units(self, rows: Sequence[Row], reference: Sequence[Row], forgetting: bool) -> list[Unit]:
        """What the split's rows, and the reference's, amount to; empty if it does not apply."""
        raise NotImplementedError

    def combine(self, values: Float[np.ndarray, "units parts"], forgetting: bool) -> float:
        """The measure, from the scored units' values."""
        raise NotImplementedError


def compares(name: str) -> bool:
    """Whether a metric compares with the reference model.

    Raises:
        UnknownNameError: If it is not registered.
    """
    kind = METRICS.get(name)
    return issubclass(kind, SetMetric) and kind.against == "reference"


def chosen_metrics(names: Sequence[str], has_reference: bool) -> tuple[list[Metric], list[str]]:
    """The metrics to compute, what they rest on included, and the names of those to report.

    Raises:
        UnknownNameError: If a name is not registered.
        ConfigError: If one compares with a reference model and there is none.
    """
    wanted = list(dict.fromkeys(names))
    for name in wanted:
        if compares(name) and not has_reference:
            raise ConfigError(
                f"metric '{name}' compares with the reference model, and there is none. Give one "
                "with --reference DIR; `unsee finetune` with who=visual_retain (or retain_only) "
                "makes it."
            )
    every = [
        *wanted,
        *(n for w in wanted for n in getattr(METRICS.get(w), "rests_on", ())),
    ]
    return [METRICS.get(name)() for name in dict.fromkeys(every)], wanted


def for_reference(names: Sequence[str]) -> list[str]:
    """What to ask of the reference model itself: for a comparison with it, what that rests on."""
    found: list[str] = []
    for name in names:
        found += METRICS.get(name).rests_on if compares(name) else (name,)  # type: ignore[attr-defined]
    return list(dict.fromkeys(found))


def number(row: Row, name: str) -> float:
    """A row's score; NaN where it is unscored or the metric does not apply."""
    value = row["scores"].get(name)
    return float("nan") if value is None else float(value)


def about(row: Row) -> str:
    """Whom a row is about."""
    return str(row["concept"] or row["id"])


def plain(text: str) -> str:
    """A text without outer space, final punctuation, doubled space, and case."""
    return " ".join(text.split()).rstrip(".!?,;: ").casefold()
