"""CoVUBench: protected visual content with picture questions, captions and text questions."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import ClassVar

from unsee.benchmarks import BENCHMARKS, Benchmark, Measure, Scoring
from unsee.benchmarks.published import Published, Record, gather, read_keywords
from unsee.types import Sample, Task

COLUMNS = ("image", "question", "answer", "name", "keywords", "question_type")
TASKS: dict[str, Task] = {"multi_modal": "generation", "caption": "caption", "text": "generation"}


@BENCHMARKS.register("covubench", source="CoVUBench, arXiv 2605.03547")
class CoVUBench(Published):
    """CoVUBench: named visual content; answers are scored by their keywords.

    Splits: `forget` (the concepts to be forgotten, of the published `forget5` to `forget20`),
    `test` (the same concepts in other pictures), `retain` (other concepts). Efficacy is
    100 (1 - keyword_match) on forget, generality the same on test, specificity keyword_match on
    retain, fluency ROUGE-L recall on retain.

    Source: CoVUBench, arXiv 2605.03547; the splits' files and their restriction to concepts as
    Open-MMUnlearning, arXiv 2610.10358, reads them.

    Differs: Answers end after 64 tokens. The divergence is left out: it needs a sentence embedding
    model.
    """

    hub: ClassVar[str] = "herbwood27/CoVUBench"
    ratios: ClassVar[tuple[str, ...]] = ("5", "10", "15", "20")
    splits: ClassVar[tuple[str, ...]] = ("forget", "test", "retain")
    forgetting: ClassVar[tuple[str, ...]] = (*Benchmark.forgetting, "test")
    measures: ClassVar[tuple[Measure, ...]] = (
        Measure("keyword_match", "forget", "vqa", "lower"),
        Measure("keyword_match", "forget", "text", "lower"),
        Measure("keyword_match", "test", "vqa", "lower"),
        Measure("keyword_match", "retain", "vqa", "higher"),
        Measure("keyword_match", "retain", "text", "higher"),
        Measure("rouge_l_recall", "retain", "vqa", "higher"),
        Measure("rouge_l_recall", "retain", "text", "higher"),
    )
    max_new_tokens: ClassVar[int] = 64
    concept_kind: ClassVar[str] = "concepts"
    relearning: ClassVar[Mapping[str, Scoring]] = {
        "forget_holdout": Scoring("keyword_match", 64),
        "retain_holdout": Scoring("keyword_match", 64),
    }

    def split_loaders(self) -> Mapping[str, Callable[[], list[Sample]]]:
        """Loaders of the forget concepts, the same in other pictures, and other concepts."""
        return {
            "forget": lambda: self.train_split(True),
            "test": lambda: self._read("test", True),
            "retain": lambda: self._read("retain", False),
        }

    def held_out(self) -> dict[str, list[Sample]]:
        """Picture questions: forget concepts in other pictures, and retain concepts."""
        splits = {"forget_holdout": self.load("test"), "retain_holdout": self.load("retain")}
        return {
            name: [s for s in samples if s.picture is not None] for name, samples in splits.items()
        }

    def train_split(self, forget: bool) -> list[Sample]:
        """The forget concepts, or the other concepts of the published `finetune` split."""
        return self._read(f"forget{self.ratio}") if forget else self._read("finetune", False)

    def _read(self, split: str, forgotten: bool | None = None) -> list[Sample]:
        """The samples of a published split; `forgotten` selects forget or other concepts."""
        rows = self.files.parquet("", COLUMNS, split)
        if forgotten is not None:
            names = {s.concept for s in self.load("forget")}
            rows = [row for row in rows if (row.values["name"] in names) == forgotten]
        return gather(rows, self._evaluation_samples, split)

    def _evaluation_samples(self, record: Record) -> Iterator[Sample]:
        question_type = record.text("question_type")
        if question_type not in TASKS:
            raise record.error(
                "question_type", f"is {question_type!r}; it must be one of {', '.join(TASKS)}."
            )
        picture = None if question_type == "text" else record.picture("image", self.picture_cache)
        yield Sample(
            f"{question_type}/{record.file.stem.split('-of-')[0]}/{record.place.split()[-1]}",
            record.text("question"),
            record.text("answer"),
            picture,
            record.text("name"),
            task=TASKS[question_type],
            keywords=read_keywords(record),
        )
