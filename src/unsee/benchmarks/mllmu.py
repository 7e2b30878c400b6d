"""MLLMU-Bench: invented people with profiles, asked about in three tasks and two modalities."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from functools import cached_property
from typing import ClassVar

from unsee.benchmarks import BENCHMARKS, Benchmark, Measure
from unsee.benchmarks.published import Files, Published, Record, gather, lettered, letters
from unsee.errors import ConfigError
from unsee.types import Better, Picture, Sample, Task

LETTER = "Just give ONE letter representing the answer directly."
FILL = "Please **ONLY** provide the correct answer that should replace the [Blank]."
SENTENCE = (
    "Answer the question based on your trained knowledge in one sentence accurately in ENGLISH."
)
SENTENCE_BY_NAME = "Answer the question based on your trained knowledge in one sentence in ENGLISH."
TASKS = ("Classification_Task", "Generation_Task", "Mask_Task")
PERSON = ("image", "ID", "biography", *TASKS)
TEST = ("images", "ID", *TASKS)
KINDS = {"Image_Textual": True, "Pure_Text": False}


def classification(question: str, choices: tuple[str, ...]) -> str:
    """The published prompt of a choice among four."""
    return f"{question}\n{lettered(choices)}\n{LETTER}"


def cloze(question: str) -> str:
    """The published prompt of a gap to fill."""
    return f"{question.replace('__', '[Blank]')}\n{FILL}"


def generation(question: str, pictured: bool = True) -> str:
    """The published prompt of a free answer, which differs a little without a picture."""
    return f"{question}\n{SENTENCE if pictured else SENTENCE_BY_NAME}"


def _measures() -> tuple[Measure, ...]:
    found = []
    for split in ("forget", "test", "retain", "celebrity"):
        for modality in ("vqa", "text"):
            away = split in ("forget", "test") and modality == "vqa"
            better: Better = "lower" if away else "higher"
            found += [
                Measure(metric, split, modality, better)
                for metric in ("accuracy", "cloze", "rouge_l", "bleu", "probability")
            ]
    return tuple(found)


@BENCHMARKS.register("mllmu", source="arXiv 2410.22108")
class MLLMU(Published):
    """MLLMU-Bench: 500 invented people and 153 celebrities; classification, cloze, generation.

    Splits: `forget`, `test` (the forgotten people in other pictures), `retain`, `celebrity`. One
    example stands before every classification and cloze question of the first three, unless
    `shots` says otherwise.

    Source: Liu et al., arXiv 2410.22108.

    Differs: One of a person's test pictures is drawn by the person's ID, not anew in every run.
    Examples are the first people of the retain set, not drawn, and as many for every model (the
    scripts give LLaVA two for a choice). Their pictures come after the picture asked about, and
    all is one user turn. A model that is to know the forgotten by name is taught the training
    questions with the name before them.
    """

    hub: ClassVar[str] = "MLLMMU/MLLMU-Bench"
    ratios: ClassVar[tuple[str, ...]] = ("5", "10", "15")
    splits: ClassVar[tuple[str, ...]] = ("forget", "test", "retain", "celebrity")
    forgetting: ClassVar[tuple[str, ...]] = (*Benchmark.forgetting, "test")
    measures: ClassVar[tuple[Measure, ...]] = _measures()
    tasks: ClassVar[Mapping[str, tuple[Task, ...]]] = {"accuracy": ("classification",)}
    max_new_tokens: ClassVar[int] = 50
    published_shots: ClassVar[int | None] = 1

    def __init__(self, files: Files, ratio: str | None, shots: int | None) -> None:
        """Names the configurations of the ratio."""
        super().__init__(files, ratio, shots)
        self.configs = {"forget": f"forget_{self.ratio}", "retain": f"retain_{self._kept}"}

    def makers(self) -> Mapping[str, Callable[[], list[Sample]]]:
        """The four evaluation sets."""
        return {
            "forget": lambda: self._asked(self.configs["forget"], self._people["forget"], True),
            "retain": lambda: self._asked(self.configs["retain"], self._people["retain"], True),
            "test": self._tested,
            "celebrity": lambda: self._asked(
                "Retain_Set", self.files.parquet("Retain_Set", PERSON), False
            ),
        }

    def held_out(self) -> dict[str, list[Sample]]:
        """Choices about the forgotten people in other pictures, and about the others."""
        found = {"forget_holdout": self.load("test"), "retain_holdout": self.load("retain")}
        return {
            name: [s for s in some if s.picture is not None and s.task == "classification"]
            for name, some in found.items()
        }

    def taught(self, forget: bool) -> list[Sample]:
        """The questions of ft_Data about one side of the partition, with the picture."""
        mine = {r.text("ID") for r in self._people["forget" if forget else "retain"]}
        rows = self.files.parquet("ft_Data", ("image", "ID", "metadata"))
        return gather((r for r in rows if r.values["ID"] in mine), self._trained, "ft_Data")

    def text_only(self) -> list[Sample]:
        """The training questions with the person's name before them, in place of the picture."""
        names = {r.text("ID"): self._name(r) for r in self._people["forget"]}
        return [
            replace(
                s,
                id=f"{s.id}/by-name",
                question=f"{names[str(s.concept)]}: {s.question}",
                picture=None,
            )
            for s in self.load("train_forget")
        ]

    @property
    def _kept(self) -> int:
        return 100 - int(self.ratio or 0)

    @cached_property
    def _people(self) -> dict[str, list[Record]]:
        return {side: self.files.parquet(config, PERSON) for side, config in self.configs.items()}

    def _name(self, record: Record) -> str:
        biography = record.parsed("biography")
        return biography.text("Name") if "Name" in biography.values else record.text("ID")

    def _trained(self, record: Record) -> Iterator[Sample]:
        who = record.text("ID")
        picture = record.picture("image", self.known)
        for index, item in enumerate(record.parsed("metadata").items("metadata")):
            yield Sample(
                f"ft/{who}/{index}", item.text("Question"), item.text("Answer"), picture, who
            )

    def _asked(self, config: str, rows: list[Record], shots: bool) -> list[Sample]:
        def ask(record: Record) -> Iterator[Sample]:
            record.parsed("biography")
            picture = record.picture("image", self.known)
            yield from self._questions(record, picture, shots)

        return gather(rows, ask, config)

    def _tested(self) -> list[Sample]:
        mine = {r.text("ID") for r in self._people["forget"]}
        rows = [r for r in self.files.parquet("Test_Set", TEST) if r.values["ID"] in mine]

        def ask(record: Record) -> Iterator[Sample]:
            pictures = record.pictures("images", self.known)
            if not pictures:
                raise record.wrong("images", "is empty. Give at least one picture.")
            # The same one in every run: two runs are then asked the same.
            drawn = pictures[zlib.crc32(record.text("ID").encode()) % len(pictures)]
            yield from self._questions(record, drawn, True)

        return gather(rows, ask, "Test_Set")

    def _questions(self, record: Record, picture: Picture, shots: bool) -> Iterator[Sample]:
        for sample in self._plain(record, picture):
            yield self._with_examples(sample) if shots and self.shots else sample

    def _plain(self, record: Record, picture: Picture) -> Iterator[Sample]:
        who = record.text("ID")
        choices = record.inside("Classification_Task")
        for kind, pictured in KINDS.items():
            for index, item in enumerate(choices.items(f"{kind}_Questions")):
                options, answer = letters(item, "Options"), item.text("Correct_Answer")
                if answer not in ("A", "B", "C", "D"):
                    raise item.wrong("Correct_Answer", f"is {answer!r}; it must be A, B, C or D.")
                yield Sample(
                    f"{who}/classification/{kind}/{index}",
                    classification(item.text("Question"), options),
                    answer,
                    picture if pictured else None,
                    who,
                    options,
                    "classification",
                )
        open_: tuple[tuple[str, Task], ...] = (
            ("Generation_Task", "generation"),
            ("Mask_Task", "cloze"),
        )
        for field, task in open_:
            for index, item in enumerate(record.items(field)):
                kind = item.text("Type")
                if kind not in KINDS:
                    raise item.wrong("Type", f"is {kind!r}; it must be one of {', '.join(KINDS)}.")
                question = item.text("Question")
                yield Sample(
                    f"{who}/{task}/{kind}/{index}",
                    cloze(question) if task == "cloze" else generation(question, KINDS[kind]),
                    item.text("Ground_Truth"),
                    picture if KINDS[kind] else None,
                    who,
                    task=task,
                )

    @cached_property
    def _examples(self) -> list[Sample]:
        """Questions about the first retained people, to stand before others as examples."""
        rows = self._people["retain"][: (self.shots or 0) + 1]

        def ask(record: Record) -> Iterator[Sample]:
            yield from self._plain(record, record.picture("image", self.known))

        return gather(rows, ask, self.configs["retain"])

    def _with_examples(self, sample: Sample) -> Sample:
        if sample.task == "generation":
            return sample
        firsts: dict[str | None, Sample] = {}
        for other in self._examples:
            alike = other.task == sample.task and other.modality == sample.modality
            if alike and other.concept != sample.concept:
                firsts.setdefault(other.concept, other)
        some = list(firsts.values())[: self.shots]
        if len(some) < (self.shots or 0):
            raise ConfigError(
                f"mllmu: shots={self.shots} examples stand before a question, and "
                f"{self.configs['retain']} has {len(some)} other people with one. Type "
                f"shots={len(some)} or fewer."
            )
        before = "".join(f"{_example(s)}\nCorrect Answer: {s.answer}\n" for s in some)
        shown = tuple(s.picture for s in some if s.picture is not None)
        return replace(sample, question=before + sample.question, further=shown)


def _example(sample: Sample) -> str:
    """An example's question as published: a choice without its instruction, a cloze with it."""
    if sample.task == "classification":
        return "Question: " + sample.question.removesuffix(f"\n{LETTER}")
    return sample.question
