"""CoVUBench: protected visual content, asked about by picture, by caption and by text."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, ClassVar

from unsee.benchmarks import BENCHMARKS, Benchmark, Measure, Scoring
from unsee.benchmarks.published import Published, Record, gather
from unsee.types import Sample, Task

COLUMNS = ("image", "question", "answer", "name", "keywords", "question_type")
TASKS: dict[str, Task] = {"multi_modal": "generation", "caption": "caption", "text": "generation"}


@BENCHMARKS.register("covubench", source="CoVUBench, arXiv 2605.03547")
class CoVUBench(Published):
    """CoVUBench: named visual content; keywords of the answers are looked for.

    Splits: `forget` (the concepts to be forgotten, of the published `forget5` to `forget20`),
    `test` (the same concepts in other pictures), `retain` (other concepts). Efficacy is
    100 (1 - keyword_match on forget), generality the same on test, specificity keyword_match on
    retain, fluency ROUGE-L recall on retain.

    Source: CoVUBench, arXiv 2605.03547; the splits' files and their restriction to concepts as
    Open-MMUnlearning, arXiv 2610.10358, reads them.

    Differs: Answers end after 64 tokens. The divergence, which needs a model of sentences, is left
    out.
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
    about: ClassVar[str] = "concepts"
    relearning: ClassVar[Mapping[str, Scoring]] = {
        "forget_holdout": Scoring("keyword_match", 64),
        "retain_holdout": Scoring("keyword_match", 64),
    }

    def makers(self) -> Mapping[str, Callable[[], list[Sample]]]:
        """The forgotten concepts, the same in other pictures, and other concepts."""
        return {
            "forget": lambda: self.taught(True),
            "test": lambda: self._read("test", True),
            "retain": lambda: self._read("retain", False),
        }

    def held_out(self) -> dict[str, list[Sample]]:
        """Questions about the forgotten in other pictures, and about what is kept."""
        found = {"forget_holdout": self.load("test"), "retain_holdout": self.load("retain")}
        return {n: [s for s in some if s.picture is not None] for n, some in found.items()}

    def taught(self, forget: bool) -> list[Sample]:
        """The concepts to forget, or the others of the published `finetune` split."""
        return self._read(f"forget{self.ratio}") if forget else self._read("finetune", False)

    def _read(self, split: str, forgotten: bool | None = None) -> list[Sample]:
        """A published split: all of it, or its forgotten or other concepts."""
        rows = self.files.parquet("", COLUMNS, split)
        if forgotten is not None:
            names = {s.concept for s in self.load("forget")}
            rows = [row for row in rows if (row.values["name"] in names) == forgotten]
        return gather(rows, self._asked, split)

    def _asked(self, record: Record) -> Iterator[Sample]:
        kind = record.text("question_type")
        if kind not in TASKS:
            raise record.wrong(
                "question_type", f"is {kind!r}; it must be one of {', '.join(TASKS)}."
            )
        picture = None if kind == "text" else record.picture("image", self.known)
        yield Sample(
            f"{kind}/{record.file.stem.split('-of-')[0]}/{record.place.split()[-1]}",
            record.text("question"),
            record.text("answer"),
            picture,
            record.text("name"),
            task=TASKS[kind],
            keywords=_keywords(record),
        )


def _keywords(record: Record) -> tuple[str, ...]:
    """The phrases in JSON text: in a list, or in an object's values, however deep; or none."""
    if not record.values.get("keywords"):
        return ()
    return tuple(_phrases(record, record.parsed("keywords").values))


def _phrases(record: Record, value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, (Mapping, list)):
        for inner in value.values() if isinstance(value, Mapping) else value:
            yield from _phrases(record, inner)
    elif value is not None:
        raise record.wrong("keywords", f"holds {value!r}; it must hold texts.")
