"""ReMem: fictitious people taught until they are known, and questions in one and several steps."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import cached_property, partial
from typing import ClassVar

from unsee.benchmarks import BENCHMARKS, Benchmark, Measure, Scoring
from unsee.benchmarks.published import Published, Record, gather, read_keywords
from unsee.types import Sample

# Their first name is that of CoVUBench, of the same authors; none of ReMem's could be seen.
SPELLINGS = {
    "image": ("image_path", "file_name", "img"),
    "question": ("query", "prompt"),
    "answer": ("response", "ground_truth"),
    "name": ("identity", "person", "subject", "entity", "concept", "person_id", "identity_id"),
    "keywords": ("keyword", "pii", "answer_keywords", "target"),
}

# The split that the target is taught, by the names that it may have.
TAUGHT = ("finetune", "train", "full")


@BENCHMARKS.register("remem", source="arXiv 2605.03759")
class ReMem(Published):
    """ReMem: 20 fictitious people with 100 questions and 100 pictures each.

    Most models of other benchmarks never knew the people that they are to forget. ReMem teaches
    each person in single-hop questions by name (70 %) and in questions about pictures, until the
    answers are known word for word. Before anything is forgotten, `keyword_match` and `exposure` of
    the target on `forget` say whether they were; so does the headroom that every run reports.

    Splits: `forget`, `test` (the forgotten people in new surroundings and new wordings), `retain`.

    Source: Kwon et al., arXiv 2605.03759, and its account of the data.

    Differs: No file of the data could be seen. Splits and columns are read as CoVUBench's, which
    the same authors publish: `forget5` to `forget20`, `test`, `retain` and `finetune` (or `train`,
    `full`), as parquet files or JSON. Of each column several spellings are read, and case does not
    count; a row without a picture is a question by name. Only the forgotten people of `test` are
    asked about, and only others of `retain` and `finetune`. Exact match is the share of `keywords`
    in the answer, where the data has any (a list, as JSON, or one text). The judge model's score is
    left out. Answers end after 64 tokens.
    """

    hub: ClassVar[str] = "herbwood27/Remem"
    ratios: ClassVar[tuple[str, ...]] = ("5", "10", "15", "20")
    splits: ClassVar[tuple[str, ...]] = ("forget", "test", "retain")
    forgetting: ClassVar[tuple[str, ...]] = (*Benchmark.forgetting, "test")
    measures: ClassVar[tuple[Measure, ...]] = (
        *(
            Measure(metric, split, modality, "higher" if split == "retain" else "lower")
            for split in ("forget", "test", "retain")
            for modality in ("vqa", "text")
            for metric in ("exposure", "keyword_match", "rouge_l")
        ),
    )
    max_new_tokens: ClassVar[int] = 64
    relearning: ClassVar[Mapping[str, Scoring]] = {
        "forget_holdout": Scoring("rouge_l", 64),
        "retain_holdout": Scoring("rouge_l", 64),
    }

    def split_loaders(self) -> Mapping[str, Callable[[], list[Sample]]]:
        """Loaders of the forget people, of them in other surroundings, and of other people."""
        return {
            "forget": partial(self.train_split, True),
            "test": partial(self._read, ("test",), True),
            "retain": partial(self._read, ("retain", "retain_eval"), False),
        }

    def held_out(self) -> dict[str, list[Sample]]:
        """Questions about pictures that nothing is trained on: forget people, and others."""
        splits = {"forget_holdout": self.load("test"), "retain_holdout": self.load("retain")}
        return {
            name: [s for s in samples if s.picture is not None] for name, samples in splits.items()
        }

    def train_split(self, forget: bool) -> list[Sample]:
        """The forget people, or the other people of the split that the target is taught."""
        if forget:
            return gather(self._forget_rows, self._samples, f"forget{self.ratio}")
        return self._read(TAUGHT, False)

    @cached_property
    def _forget_rows(self) -> list[Record]:
        names = (f"forget{self.ratio}", f"forget_{self.ratio}", f"forget{int(self.ratio or 0):02}")
        return self.files.table(names, SPELLINGS)

    def _read(self, names: tuple[str, ...], forgotten: bool) -> list[Sample]:
        """The samples of a split, about forget people or about others."""
        people = {_name(row) for row in self._forget_rows}
        rows = self.files.table(names, SPELLINGS)
        chosen = [row for row in rows if (_name(row) in people) == forgotten]
        return gather(chosen, self._samples, names[0])

    def _samples(self, record: Record) -> Iterator[Sample]:
        pictured = "image" in record.values
        yield Sample(
            f"{record.file.stem.split('-of-')[0]}/{record.place.split()[-1]}",
            record.text("question"),
            record.text("answer"),
            record.picture_or_none("image", self.picture_cache) if pictured else None,
            _name(record),
            keywords=_keywords(record),
        )


def _name(record: Record) -> str:
    """The person that a row is about, by name or number."""
    value = record.values.get("name")
    return str(value) if isinstance(value, int) else record.text("name")


def _keywords(record: Record) -> tuple[str, ...]:
    """The private texts of an answer: a list, or one text that is no JSON."""
    value = record.values.get("keywords")
    plain = isinstance(value, str) and not value.lstrip().startswith(("[", "{"))
    return (record.text("keywords"),) if plain and value else read_keywords(record)
