"""Benchmarks: one file or folder each, with splits of samples and what is measured on them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal

from unsee.registry import Registry
from unsee.types import AnswerLimit, Better, Data, Picture, Sample, Task

HELD_OUT = ("forget_holdout", "retain_holdout")

# The benchmark that is used where none is named; it ships with the package.
DEFAULT_BENCHMARK = "pocket"

# The models that a benchmark's measures compare: see `Benchmark.training_samples`.
ModelRole = Literal["target", "visual_retain", "retain_only"]

# The models that a benchmark can ship: those, and "base", from which they were trained.
CheckpointRole = Literal["target", "visual_retain", "retain_only", "base"]

# Whose rules score a benchmark's answers: those of its published scripts, or the metrics' defaults.
Rules = Literal["published", "own"]

BENCHMARKS: Registry[type[Benchmark]] = Registry("benchmark", "unsee.benchmarks")


@dataclass(frozen=True)
class Measure:
    """A metric on a split, and which direction is good.

    Attributes:
        metric: A registered metric's name.
        split: A split's name.
        modality: "vqa" or "text".
        better: Which direction is good.
    """

    metric: str
    split: str
    modality: str
    better: Better


@dataclass(frozen=True)
class Scoring:
    """How held-out questions are scored while an attacker relearns.

    Attributes:
        metric: A registered metric's name; one that compares with no reference model.
        max_new_tokens: Longest answer that is generated, in tokens.
        rules: As in `Benchmark`; a run takes its benchmark's.
    """

    metric: str = "accuracy"
    max_new_tokens: int = 24
    rules: Mapping[str, str] = field(default_factory=dict)


class Benchmark:
    """A data set: its splits, the measures on them, and the data that a method may use.

    Attributes:
        name: Its registered name.
        source: Where it comes from.
        hub: The hub id it is published under; "" if it is not.
        ratios: The published shares to forget (%), the first the default; () if there is one only.
            Where something else picks what is forgotten, such as a request of several, its names.
        ratio_alias: Another name of the option `ratio` that says what its values are.
        splits: The names of its reported splits.
        forgetting: The splits about what is to be forgotten, on which some metrics are computed
            differently.
        measures: What is measured.
        tasks: The only tasks that a metric is reported on, where it would apply to more.
        max_new_tokens: Longest answer that is generated, in tokens, or that by task; None leaves
            room for the longest true answer.
        rules: How its published scripts score, where that is not the metrics' default: names of
            `Metric.rules` by metric, or by "split/metric".
        attacked: The split that a relearning attacker trains on, if `held_out` scores the attack.
        relearning: How the attack is scored on "forget_holdout" (high if it is known) and
            "retain_holdout"; by default, exact answers of up to 24 tokens.
        rate_scale: Factor on the learning rates in a method's `search`.
        field_defaults: Values that its models need, by field, of every method that has the field.
        checkpoints: The models that ship with it; see `checkpoint`.
        scored_as_table: Whether `unsee evaluate` scores its splits as it does a user's own table,
            and not by `measures`, `tasks` and `max_new_tokens`.
        record_counts: Whether a record states how many samples each split has.
        holds_out_pictures: Whether `held_out` asks about pictures that no model was trained on.
    """

    name: ClassVar[str]
    source: ClassVar[str] = ""
    hub: ClassVar[str] = ""
    ratios: ClassVar[tuple[str, ...]] = ()
    ratio_alias: ClassVar[str] = "ratio"
    splits: ClassVar[tuple[str, ...]]
    forgetting: ClassVar[tuple[str, ...]] = ("forget", "forget_holdout", "train_forget")
    measures: ClassVar[tuple[Measure, ...]] = ()
    tasks: ClassVar[Mapping[str, tuple[Task, ...]]] = {}
    max_new_tokens: ClassVar[AnswerLimit | None] = None
    rules: ClassVar[Mapping[str, str]] = {}
    attacked: ClassVar[str] = ""
    relearning: ClassVar[Mapping[str, Scoring]] = {}
    rate_scale: ClassVar[float] = 1.0
    field_defaults: ClassVar[Mapping[str, Any]] = {}
    checkpoints: ClassVar[tuple[CheckpointRole, ...]] = ()
    scored_as_table: ClassVar[bool] = False
    record_counts: ClassVar[bool] = True
    holds_out_pictures: ClassVar[bool] = False

    @classmethod
    def open(
        cls, location: str | Path | None = None, ratio: str | None = None, shots: int | None = None
    ) -> Benchmark:
        """The data set at a place, every file of it checked when it is read.

        Args:
            location: A local folder of the published files, or a hub id; None is `hub`.
            ratio: One of `ratios`.
            shots: People whose questions are few-shot examples, where the published prompts have
                some; None is the published number.
        """
        raise NotImplementedError

    def data(self) -> Data:
        """The data that a method may use. The target model was trained on all of it."""
        raise NotImplementedError

    def strangers(self) -> Sequence[Picture]:
        """The pictures of people without a name in `data`."""
        return self.data().strangers

    def training_samples(self, who: ModelRole) -> list[Sample]:
        """The training samples of a model.

        Args:
            who: "target" is trained on everything, "visual_retain" on all texts but no picture of
                what is to be forgotten, "retain_only" on nothing about it.
        """
        raise NotImplementedError

    def load(self, split: str) -> Sequence[Sample]:
        """The samples of a split.

        Raises:
            UnknownNameError: If there is no such split.
        """
        raise NotImplementedError

    def held_out(self) -> Mapping[str, Sequence[Sample]]:
        """The splits that score a relearning attack, "forget_holdout" and "retain_holdout".

        Neither the method nor the attacker trains on them. {} if there are none.
        """
        return {}

    def non_members(self) -> Sequence[Sample]:
        """Samples like those to forget, about people that no model was trained on; () if none."""
        return ()

    def validation(self) -> Mapping[str, Sequence[Sample]]:
        """Splits for choosing settings, neither trained on nor reported; {} if there are none."""
        return {}

    def attributes(self) -> Mapping[str, Mapping[str, str]]:
        """Known facts about each person, by concept: a gender, a job, ...; {} if there are none.

        Requests can be drawn by them; see `unsee.benchmarks.skew`.
        """
        return {}

    def checkpoint(self, role: CheckpointRole) -> Path | None:
        """The folder of a model that ships with the benchmark; None if none of that role does.

        Args:
            role: "target", "visual_retain" and "retain_only" as in `training_samples`; "base" is
                the model before it was trained on any of the people.
        """
        return None

    @property
    def forget_ratio(self) -> str:
        """The percentage that is forgotten, if it is fixed when the data is made; else ""."""
        return ""

    def metadata(self) -> dict[str, Any]:
        """Facts for a record: name, location, settings and counts."""
        return {"name": self.name}
