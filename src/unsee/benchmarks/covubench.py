"""CoVUBench: protected visual content, asked about by picture, by caption and by text."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import cached_property
from typing import ClassVar

from unsee.benchmarks import BENCHMARKS, Measure
from unsee.benchmarks.published import Published, Record, gather
from unsee.types import Sample, Task

COLUMNS = ("image", "question", "answer", "name", "type", "keywords", "question_type")
SPLITS = ("forget", "test", "retain")
TASKS: dict[str, Task] = {"multi_modal": "generation", "caption": "caption", "text": "generation"}


@BENCHMARKS.register("covubench")
class CoVUBench(Published):
    """CoVUBench: named visual content; keywords of the answers are looked for.

    Splits, by the column `type`: `forget`, `test` (the forgotten in other pictures), `retain`.
    Efficacy is 100 (1 - keyword_match on forget), generality the same on test, specificity
    keyword_match on retain, fluency ROUGE-L recall on retain.

    Source: CoVUBench, herbwood27/CoVUBench on the hub.
    """

    name: ClassVar[str] = "covubench"
    source: ClassVar[str] = "CoVUBench, herbwood27/CoVUBench"
    hub: ClassVar[str] = "herbwood27/CoVUBench"
    splits: ClassVar[tuple[str, ...]] = SPLITS
    measures: ClassVar[tuple[Measure, ...]] = (
        Measure("keyword_match", "forget", "vqa", "lower"),
        Measure("keyword_match", "forget", "text", "lower"),
        Measure("keyword_match", "test", "vqa", "lower"),
        Measure("keyword_match", "retain", "vqa", "higher"),
        Measure("keyword_match", "retain", "text", "higher"),
        Measure("rouge_l_recall", "retain", "vqa", "higher"),
        Measure("rouge_l_recall", "retain", "text", "higher"),
    )
    longest: ClassVar[int] = 64

    def makers(self) -> Mapping[str, Callable[[], list[Sample]]]:
        """The rows of each type."""
        return {
            "forget": lambda: self._read("forget"),
            "test": lambda: self._read("test"),
            "retain": lambda: self._read("retain"),
        }

    def held_out(self) -> dict[str, list[Sample]]:
        """Questions about the forgotten in other pictures, and about what is kept."""
        found = {"forget_holdout": self.load("test"), "retain_holdout": self.load("retain")}
        return {n: [s for s in some if s.picture is not None] for n, some in found.items()}

    def taught(self, forget: bool) -> list[Sample]:
        """The rows to forget, or to keep."""
        return self._read("forget" if forget else "retain")

    @cached_property
    def _rows(self) -> list[tuple[Record, str, Sample]]:
        found: list[tuple[Record, str, Sample]] = []

        def ask(record: Record) -> Iterator[Sample]:
            split, kind = record.text("type"), record.text("question_type")
            if split not in SPLITS:
                raise record.wrong("type", f"is {split!r}; it must be one of {', '.join(SPLITS)}.")
            if kind not in TASKS:
                raise record.wrong(
                    "question_type", f"is {kind!r}; it must be one of {', '.join(TASKS)}."
                )
            picture = None if kind == "text" else record.picture("image", self.known)
            sample = Sample(
                f"{kind}/{record.file.stem}/{record.place.split()[-1]}", record.text("question"),
                record.text("answer"), picture, record.text("name"), task=TASKS[kind],
                keywords=_keywords(record),
            )  # fmt: skip
            found.append((record, split, sample))
            yield sample

        gather(self.files.parquet("", COLUMNS), ask, self.files.location)
        return found

    def _read(self, split: str) -> list[Sample]:
        return [sample for _, named, sample in self._rows if named == split]


def _keywords(record: Record) -> tuple[str, ...]:
    return record.parsed("keywords").texts("keywords")
