"""SafeEraser: harmful questions that a model should refuse, and harmless ones to answer."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import PurePosixPath
from typing import ClassVar

from unsee.benchmarks import BENCHMARKS, Benchmark, Measure, Scoring
from unsee.benchmarks.published import Published, Record, gather
from unsee.data.archives import path_endings
from unsee.types import Sample, Task

TRAIN, VALIDATION = "all_train.json", "all_val.json"
PAIRS = ("text1", "text2", "image1", "image2")

# The field of the unsafe picture, by its two published names.
PICTURE_FIELDS = ("image_path", "image_id")


@BENCHMARKS.register("safeeraser", source="SafeEraser, arXiv 2502.12520")
class SafeEraser(Published):
    """SafeEraser: unsafe questions about unsafe and safe pictures, and harmless question pairs.

    Splits: `forget` (unsafe questions of the training file), `test` (unsafe questions of the
    validation file), `harmless` (the validation file's questions about the safe pictures at
    `SDImage_path`; refusing them is over-forgetting, SARR), `retain` (the validation file's
    harmless pairs about the unsafe pictures). The concepts are the categories: the field
    `category`, or the picture's folder, from which the published scorer takes it. The unsafe
    picture is in the field `image_path` or `image_id`.

    Source: SafeEraser, arXiv 2502.12520, and its reader of `all_train.json` and `all_val.json`.

    Differs: One greedy answer of 64 tokens, not three sampled ones of 512. The retain samples in
    training are the safe pictures (prompt decoupling), not the harmless pairs, because those show
    the pictures to be forgotten.
    """

    splits: ClassVar[tuple[str, ...]] = ("forget", "test", "harmless", "retain")
    forgetting: ClassVar[tuple[str, ...]] = (*Benchmark.forgetting, "test")
    measures: ClassVar[tuple[Measure, ...]] = (
        Measure("attack_success", "forget", "vqa", "lower"),
        Measure("refusal_rate", "forget", "vqa", "higher"),
        Measure("attack_success", "test", "vqa", "lower"),
        Measure("refusal_rate", "test", "vqa", "higher"),
        Measure("refusal_rate", "harmless", "vqa", "lower"),
        Measure("rouge_l", "retain", "vqa", "higher"),
    )
    max_new_tokens: ClassVar[int] = 64
    rules: ClassVar[Mapping[str, str]] = {"rouge_l": "safeeraser"}
    concept_kind: ClassVar[str] = "categories"
    relearning: ClassVar[Mapping[str, Scoring]] = {
        "forget_holdout": Scoring("attack_success", 64),
        "retain_holdout": Scoring("rouge_l", 64),
    }

    def split_loaders(self) -> Mapping[str, Callable[[], list[Sample]]]:
        """Loaders of both files' unsafe questions and the validation file's harmless ones."""
        return {
            "forget": lambda: self._read(TRAIN, self._unsafe_samples),
            "test": lambda: self._read(VALIDATION, self._unsafe_samples),
            "harmless": lambda: self._read(VALIDATION, self._safe_samples),
            "retain": lambda: self._read(VALIDATION, self._harmless_samples),
        }

    def held_out(self) -> dict[str, list[Sample]]:
        """The unsafe questions of the validation file, and its harmless pairs."""
        return {"forget_holdout": self.load("test"), "retain_holdout": self.load("retain")}

    def train_split(self, forget: bool) -> list[Sample]:
        """The training file's questions about its unsafe pictures, or about its safe ones."""
        return self._read(TRAIN, self._unsafe_samples if forget else self._safe_samples)

    def _read(self, name: str, make: Callable[[Record], Iterator[Sample]]) -> list[Sample]:
        rows = self.files.json_records(name)
        if self.files.on_hub:
            fields = ("SDImage_path", *PICTURE_FIELDS)
            names = [r.text(field) for r in rows for field in fields if field in r.values]
            self.files.folder(["*.zip", *(e for name in names for e in path_endings(name))])
        return gather(rows, make, name)

    def _unsafe_samples(self, record: Record) -> Iterator[Sample]:
        return self._pairs(record, _picture_field(record), "model_response", "", "unsafe")

    def _safe_samples(self, record: Record) -> Iterator[Sample]:
        return self._pairs(record, "SDImage_path", "sd_response", "/safe", "harmless")

    def _pairs(
        self, record: Record, picture_field: str, answer_field: str, suffix: str, task: Task
    ) -> Iterator[Sample]:
        """The record's unsafe questions, about its unsafe or its safe picture."""
        row, category = record.place.split()[-1], _category(record)
        picture = record.picture(picture_field, self.picture_cache)
        for index, item in enumerate(record.items("unsafe_pairs")):
            yield Sample(
                f"{row}/{index}{suffix}",
                item.text("question"),
                item.text(answer_field),
                picture,
                category,
                task=task,
            )

    def _harmless_samples(self, record: Record) -> Iterator[Sample]:
        row, category = record.place.split()[-1], _category(record)
        picture = record.picture(_picture_field(record), self.picture_cache)
        for pair in PAIRS:
            question = record.nested(f"UnharmPair_{pair}")
            yield Sample(
                f"{row}/harmless/{pair}",
                question.text("Question"),
                question.text("Prediction"),
                picture,
                category,
            )


def _picture_field(record: Record) -> str:
    """The field of the unsafe picture; the first name if there is none, for the error message."""
    return next((f for f in PICTURE_FIELDS if record.values.get(f)), PICTURE_FIELDS[0])


def _category(record: Record) -> str:
    """The category of a record, or the folder of its unsafe picture where it has none."""
    if record.values.get("category"):
        return record.text("category")
    folder = PurePosixPath(record.text(_picture_field(record))).parent.name
    if not folder:
        raise record.error(
            "category", "is missing, and the picture is in no folder that names it. Give one."
        )
    return folder
