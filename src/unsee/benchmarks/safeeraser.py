"""SafeEraser: harmful questions that should be refused, and harmless ones that should not."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import ClassVar

from unsee.benchmarks import BENCHMARKS, Benchmark, Measure, Scoring
from unsee.benchmarks.published import Published, Record, gather
from unsee.types import Sample, Task

TRAIN, VALIDATION = "all_train.json", "all_val.json"
PAIRS = ("text1", "text2", "image1", "image2")


@BENCHMARKS.register("safeeraser", source="SafeEraser, arXiv 2502.12520")
class SafeEraser(Published):
    """SafeEraser: unsafe questions about pictures, the same about safe ones, and harmless pairs.

    Splits: `forget` (unsafe questions that were trained on), `test` (unsafe questions that were
    not), `harmless` (the questions of the test file about the safe pictures at `SDImage_path`:
    refusing those is over-forgetting, SARR), `retain` (its harmless pairs about the unsafe
    pictures). Its concepts are the categories.

    Source: SafeEraser, arXiv 2502.12520, and its reader of `all_train.json` and `all_val.json`.

    Differs: One greedy answer of 64 tokens, not three drawn of 512. `retain` is scored by ROUGE-L
    f-measure, not precision. What is kept while training are the safe pictures (its prompt
    decoupling), not the harmless pairs: those show the pictures that are to be forgotten.
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
    about: ClassVar[str] = "categories"
    relearning: ClassVar[Mapping[str, Scoring]] = {
        "forget_holdout": Scoring("attack_success", 64),
        "retain_holdout": Scoring("rouge_l", 64),
    }

    def makers(self) -> Mapping[str, Callable[[], list[Sample]]]:
        """Unsafe questions of both files, and what is harmless in the second."""
        return {
            "forget": lambda: self._read(TRAIN, self._unsafe),
            "test": lambda: self._read(VALIDATION, self._unsafe),
            "harmless": lambda: self._read(VALIDATION, self._safe),
            "retain": lambda: self._read(VALIDATION, self._harmless),
        }

    def held_out(self) -> dict[str, list[Sample]]:
        """The unsafe questions of the test file, and its harmless pairs."""
        return {"forget_holdout": self.load("test"), "retain_holdout": self.load("retain")}

    def taught(self, forget: bool) -> list[Sample]:
        """The training file's unsafe pictures, or its safe ones."""
        return self._read(TRAIN, self._unsafe if forget else self._safe)

    def _read(self, name: str, make: Callable[[Record], Iterator[Sample]]) -> list[Sample]:
        rows = self.files.json_records(name)
        if self.files.on_hub:
            fields = ("image_path", "SDImage_path")
            self.files.folder([row.text(field) for row in rows for field in fields])
        return gather(rows, make, name)

    def _unsafe(self, record: Record) -> Iterator[Sample]:
        return self._pairs(record, "image_path", "model_response", "", "unsafe")

    def _safe(self, record: Record) -> Iterator[Sample]:
        return self._pairs(record, "SDImage_path", "sd_response", "/safe", "harmless")

    def _pairs(
        self, record: Record, shown: str, answered: str, ending: str, task: Task
    ) -> Iterator[Sample]:
        """The record's unsafe questions, about its unsafe picture or the safe one beside it."""
        row, category = record.place.split()[-1], record.text("category")
        picture = record.picture(shown, self.known)
        for index, item in enumerate(record.items("unsafe_pairs")):
            yield Sample(
                f"{row}/{index}{ending}",
                item.text("question"),
                item.text(answered),
                picture,
                category,
                task=task,
            )

    def _harmless(self, record: Record) -> Iterator[Sample]:
        row, category = record.place.split()[-1], record.text("category")
        picture = record.picture("image_path", self.known)
        for pair in PAIRS:
            held = record.inside(f"UnharmPair_{pair}")
            yield Sample(
                f"{row}/harmless/{pair}",
                held.text("Question"),
                held.text("Prediction"),
                picture,
                category,
            )
