"""MLLMU-Bench: fictitious people with profiles; questions of three tasks and two modalities."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from functools import cached_property
from random import Random
from typing import ClassVar

from unsee.benchmarks import BENCHMARKS, Benchmark, Measure
from unsee.benchmarks.published import (
    Files,
    Published,
    Record,
    flat_attributes,
    format_options,
    gather,
    read_options,
)
from unsee.errors import ConfigError
from unsee.types import Better, Picture, Sample, Task

ONE_LETTER = "Just give ONE letter representing the answer directly."
FILL_BLANK = "Please **ONLY** provide the correct answer that should replace the [Blank]."
SENTENCE = (
    "Answer the question based on your trained knowledge in one sentence accurately in ENGLISH."
)
SENTENCE_BY_NAME = "Answer the question based on your trained knowledge in one sentence in ENGLISH."
TASKS = ("Classification_Task", "Generation_Task", "Mask_Task")
PERSON_COLUMNS = ("image", "ID", "biography", *TASKS)
TEST_COLUMNS = ("images", "ID", *TASKS)
MODALITIES = {"Image_Textual": True, "Pure_Text": False}


def classification_prompt(question: str, choices: tuple[str, ...]) -> str:
    """The published prompt of a question with four options."""
    return f"{question}\n{format_options(choices)}\n{ONE_LETTER}"


def cloze_prompt(question: str) -> str:
    """The published prompt of a fill-in-the-blank question."""
    return f"{question.replace('__', '[Blank]')}\n{FILL_BLANK}"


def generation_prompt(question: str, pictured: bool = True) -> str:
    """The published prompt of a free answer; its wording differs without a picture."""
    return f"{question}\n{SENTENCE if pictured else SENTENCE_BY_NAME}"


def _measures() -> tuple[Measure, ...]:
    measures = []
    for split in ("forget", "test", "retain", "celebrity"):
        for modality in ("vqa", "text"):
            unlearned = split in ("forget", "test") and modality == "vqa"
            better: Better = "lower" if unlearned else "higher"
            measures += [
                Measure(metric, split, modality, better)
                for metric in ("accuracy", "cloze", "rouge_l", "bleu", "probability")
            ]
    return tuple(measures)


@BENCHMARKS.register("mllmu", source="arXiv 2410.22108")
class MLLMU(Published):
    """MLLMU-Bench: 500 fictitious people and 153 celebrities; classification, cloze, generation.

    Splits: `forget`, `test` (the forgotten people in other pictures), `retain`, `celebrity`.
    Classification and cloze questions of the first three are preceded by few-shot examples, as in
    the published script: all questions of that kind about people drawn from the same split (one for
    classification, two for cloze), who are not asked about. `shots` sets the number of these people
    for both; 0 asks without examples, and about everybody.

    Source: Liu et al., arXiv 2410.22108, and its evaluation script.

    Differs: The test picture and the people of the examples are the same in every run; the script
    draws them again. It uses one person for cloze where the model is Idefics2. The pictures of the
    examples come after the question's own, and everything is one user turn. A split that would have
    nobody left to ask about takes examples about the first retain people. The text-only training
    samples of the visual_retain model are the training questions with the person's name in front.
    """

    hub: ClassVar[str] = "MLLMMU/MLLMU-Bench"
    ratios: ClassVar[tuple[str, ...]] = ("5", "10", "15")
    splits: ClassVar[tuple[str, ...]] = ("forget", "test", "retain", "celebrity")
    forgetting: ClassVar[tuple[str, ...]] = (*Benchmark.forgetting, "test")
    measures: ClassVar[tuple[Measure, ...]] = _measures()
    tasks: ClassVar[Mapping[str, tuple[Task, ...]]] = {"accuracy": ("classification",)}
    max_new_tokens: ClassVar[int] = 50
    rules: ClassVar[Mapping[str, str]] = {"accuracy": "mllmu", "cloze": "mllmu"}
    # The script's numbers for LLaVA.
    published_shots: ClassVar[Mapping[str, int]] = {"classification": 1, "cloze": 2}

    def __init__(self, files: Files, ratio: str | None, shots: int | None) -> None:
        """Sets the names of the ratio's configurations."""
        super().__init__(files, ratio, shots)
        self._plain: dict[str, list[Sample]] = {}
        self.configs = {"forget": f"forget_{self.ratio}", "retain": f"retain_{self._retain_ratio}"}

    def split_loaders(self) -> Mapping[str, Callable[[], list[Sample]]]:
        """Loaders of the four evaluation splits."""
        return {
            "forget": lambda: self._with_examples("forget", self._people_samples("forget")),
            "retain": lambda: self._with_examples("retain", self._people_samples("retain")),
            "test": lambda: self._with_examples("test", self._test_samples()),
            "celebrity": lambda: self._evaluation_samples(
                "Retain_Set", self.files.parquet("Retain_Set", PERSON_COLUMNS)
            ),
        }

    def held_out(self) -> dict[str, list[Sample]]:
        """Classification questions: forget people in other pictures, and retain people."""
        splits = {"forget_holdout": self.load("test"), "retain_holdout": self.load("retain")}
        return {
            name: [s for s in samples if s.picture is not None and s.task == "classification"]
            for name, samples in splits.items()
        }

    def attributes(self) -> dict[str, dict[str, str]]:
        """The fields of each fictitious person's biography but the name, by ID."""
        rows = [record for some in self._people.values() for record in some]
        return {
            record.text("ID"): flat_attributes(record.parsed("biography").values, ("Name", "ID"))
            for record in rows
        }

    def train_split(self, forget: bool) -> list[Sample]:
        """The questions of ft_Data, with pictures, about the forget or the retain people."""
        ids = {r.text("ID") for r in self._people["forget" if forget else "retain"]}
        rows = self.files.parquet("ft_Data", ("image", "ID", "metadata"))
        return gather((r for r in rows if r.values["ID"] in ids), self._training_samples, "ft_Data")

    def text_only(self) -> list[Sample]:
        """The forget training questions with the person's name in front instead of the picture."""
        names = {r.text("ID"): self._person_name(r) for r in self._people["forget"]}
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
    def _retain_ratio(self) -> int:
        return 100 - int(self.ratio or 0)

    @cached_property
    def _people(self) -> dict[str, list[Record]]:
        return {
            side: self.files.parquet(config, PERSON_COLUMNS)
            for side, config in self.configs.items()
        }

    def _person_name(self, record: Record) -> str:
        biography = record.parsed("biography")
        return biography.text("Name") if "Name" in biography.values else record.text("ID")

    def _training_samples(self, record: Record) -> Iterator[Sample]:
        who = record.text("ID")
        picture = record.picture("image", self.picture_cache)
        for index, item in enumerate(record.parsed("metadata").items("metadata")):
            yield Sample(
                f"ft/{who}/{index}", item.text("Question"), item.text("Answer"), picture, who
            )

    def _evaluation_samples(self, config: str, rows: list[Record]) -> list[Sample]:
        def make_samples(record: Record) -> Iterator[Sample]:
            record.parsed("biography")
            yield from self._questions(record, record.picture("image", self.picture_cache))

        return gather(rows, make_samples, config)

    def _people_samples(self, side: str) -> list[Sample]:
        """The questions about one side's people, without examples, in the order of the file."""
        if side not in self._plain:
            rows = self._people[side]
            self._plain[side] = self._evaluation_samples(self.configs[side], rows)
        return self._plain[side]

    def _test_samples(self) -> list[Sample]:
        ids = {r.text("ID") for r in self._people["forget"]}
        rows = [r for r in self.files.parquet("Test_Set", TEST_COLUMNS) if r.values["ID"] in ids]

        def make_samples(record: Record) -> Iterator[Sample]:
            pictures = record.pictures("images", self.picture_cache)
            if not pictures:
                raise record.error("images", "is empty. Give at least one picture.")
            # The same picture in every run, so that runs can be compared.
            chosen = pictures[zlib.crc32(record.text("ID").encode()) % len(pictures)]
            yield from self._questions(record, chosen)

        return gather(rows, make_samples, "Test_Set")

    def _questions(self, record: Record, picture: Picture) -> Iterator[Sample]:
        who = record.text("ID")
        choices = record.nested("Classification_Task")
        for modality, pictured in MODALITIES.items():
            for index, item in enumerate(choices.items(f"{modality}_Questions")):
                options, answer = read_options(item, "Options"), item.text("Correct_Answer")
                if answer not in ("A", "B", "C", "D"):
                    raise item.error("Correct_Answer", f"is {answer!r}; it must be A, B, C or D.")
                yield Sample(
                    f"{who}/classification/{modality}/{index}",
                    classification_prompt(item.text("Question"), options),
                    answer,
                    picture if pictured else None,
                    who,
                    options,
                    "classification",
                )
        open_tasks: tuple[tuple[str, Task], ...] = (
            ("Generation_Task", "generation"),
            ("Mask_Task", "cloze"),
        )
        for field, task in open_tasks:
            for index, item in enumerate(record.items(field)):
                modality = item.text("Type")
                if modality not in MODALITIES:
                    raise item.error(
                        "Type", f"is {modality!r}; it must be one of {', '.join(MODALITIES)}."
                    )
                question = item.text("Question")
                yield Sample(
                    f"{who}/{task}/{modality}/{index}",
                    cloze_prompt(question)
                    if task == "cloze"
                    else generation_prompt(question, MODALITIES[modality]),
                    item.text("Ground_Truth"),
                    picture if MODALITIES[modality] else None,
                    who,
                    task=task,
                )

    def _with_examples(self, split: str, samples: list[Sample]) -> list[Sample]:
        """The samples with their examples; those that ask what an example says are left out."""
        asked: list[Sample] = samples
        for task, number in self.example_people.items():
            if number:
                examples = self._examples(split, task, number)
                shown = {s.concept for s in examples}
                asked = [
                    _with_prefix(s, examples) if s.task == task else s
                    for s in asked
                    if s.task != task or s.concept not in shown
                ]
        return asked

    def _examples(self, split: str, task: str, number: int) -> list[Sample]:
        """All questions of a task about the people who are drawn as examples for a split.

        Raises:
            ConfigError: If there are too few people.
        """
        # The examples for the test split show the training pictures, as in the published script.
        side = "retain" if split == "retain" else "forget"
        people = list(dict.fromkeys(s.concept for s in self._people_samples(side)))
        if number < len(people):
            drawn = sorted(Random(f"{split}/{task}").sample(range(len(people)), number))
            chosen = [people[i] for i in drawn]
        else:
            side = "retain"
            people = list(dict.fromkeys(s.concept for s in self._people_samples(side)))
            chosen = people[:number]
            if split == "retain" or number > len(people):
                raise ConfigError(
                    f"mllmu: shots={number} examples about other people are asked for, and "
                    f"{self.configs[side]} has {len(people)} other people. Type "
                    f"shots={len(people) - (split == 'retain')} or fewer."
                )
        return [s for s in self._people_samples(side) if s.task == task and s.concept in chosen]


def _with_prefix(sample: Sample, examples: list[Sample]) -> Sample:
    """The sample with the examples of its modality before its question."""
    shown = [example for example in examples if example.modality == sample.modality]
    prefix = "".join(f"{_example_question(s)}\nCorrect Answer: {s.answer}\n" for s in shown)
    pictures = tuple(s.picture for s in shown if s.picture is not None)
    return replace(sample, question=prefix + sample.question, further=pictures)


def _example_question(sample: Sample) -> str:
    """An example's question as published: classification without its instruction, cloze with it."""
    if sample.task == "classification":
        return "Question: " + sample.question.removesuffix(f"\n{ONE_LETTER}")
    return sample.question
