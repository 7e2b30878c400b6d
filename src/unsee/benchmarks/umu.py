"""UMU-Bench: every fact asked with and without a picture, and scored jointly over both."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import ClassVar

from unsee.benchmarks import BENCHMARKS, Measure, Scoring
from unsee.benchmarks.mllmu import generation_prompt
from unsee.benchmarks.published import (
    FOUR,
    Files,
    Published,
    Record,
    flat_attributes,
    gather,
    read_options,
)
from unsee.types import Better, Sample, Task

COLUMNS = ("ID", "image", "Biography", "MM_QA", "UM_QA", "Classify", "Cloze", "Generation")
# The second name is misspelt in the data.
MODALITIES = {"unimodal": False, "muitimodal": True}
TASKS: dict[str, Task] = {
    "Classify": "classification",
    "Cloze": "cloze",
    "Generation": "generation",
}
ONLY_ANSWER = "Please **ONLY** provide the correct answer without any explanation"


def _measures() -> tuple[Measure, ...]:
    measures = []
    for split in ("forget", "retain", "real"):
        for modality in ("vqa", "text"):
            better: Better = "lower" if split == "forget" else "higher"
            measures += [
                Measure(metric, split, modality, better)
                for metric in ("accuracy", "cloze", "rouge_l", "probability")
            ]
        right_better: Better = "lower" if split == "forget" else "higher"
        wrong_better: Better = "higher" if split == "forget" else "lower"
        measures.append(Measure("joint_right", split, "vqa", right_better))
        measures.append(Measure("joint_wrong", split, "vqa", wrong_better))
        measures.append(Measure("joint_rouge", split, "vqa", right_better))
    return tuple(measures)


@BENCHMARKS.register("umu", source="UMU-Bench, linbojunzi/UMU-bench")
class UMU(Published):
    """UMU-Bench: 500 fictitious and some real people; each question with and without picture.

    Splits: `forget`, `retain`, `real`. The two forms of a fact share one `group`. A fact counts as
    unlearned if it is lost in both modalities, so lower is better in both.

    The prompts and the lengths of the answers are those of the published script: a choice lists its
    options as a Python list and is answered by the text of one, and the true filling of a cloze
    question ends at its first full stop.

    Source: UMU-Bench, linbojunzi/UMU-bench on the hub, and its evaluation script.

    Differs: The joint scores are over choices and cloze questions together; the script reports them
    apart.
    """

    hub: ClassVar[str] = "linbojunzi/UMU-bench"
    ratios: ClassVar[tuple[str, ...]] = ("5", "10", "15")
    splits: ClassVar[tuple[str, ...]] = ("forget", "retain", "real")
    measures: ClassVar[tuple[Measure, ...]] = _measures()
    tasks: ClassVar[Mapping[str, tuple[Task, ...]]] = {"accuracy": ("classification",)}
    max_new_tokens: ClassVar[Mapping[str, int]] = {
        "classification": 50,
        "cloze": 50,
        "generation": 200,
    }
    rules: ClassVar[Mapping[str, str]] = {
        "accuracy": "umu",
        "real/accuracy": "umu_closest",
        "cloze": "mllmu",
    }
    relearning: ClassVar[Mapping[str, Scoring]] = {
        "forget_holdout": Scoring("accuracy", 50),
        "retain_holdout": Scoring("accuracy", 50),
    }

    def __init__(self, files: Files, ratio: str | None, shots: int | None) -> None:
        """Sets the names of the ratio's configurations."""
        super().__init__(files, ratio, shots)
        self.configs = {
            "forget": f"forget_{ratio}",
            "retain": f"retain_{100 - int(ratio or 0)}",
            "real": "Real_Person_Set",
        }

    def split_loaders(self) -> Mapping[str, Callable[[], list[Sample]]]:
        """Loaders of the three evaluation splits."""
        return {
            "forget": lambda: self._read("forget", self._evaluation_samples),
            "retain": lambda: self._read("retain", self._evaluation_samples),
            "real": lambda: self._read("real", self._evaluation_samples),
        }

    def held_out(self) -> dict[str, list[Sample]]:
        """Classification questions: pictures of the training data, questions that are not in it."""
        return {
            f"{split}_holdout": [
                s for s in self.load(split) if s.picture is not None and s.task == "classification"
            ]
            for split in ("forget", "retain")
        }

    def attributes(self) -> dict[str, dict[str, str]]:
        """The fields of each fictitious person's biography but the name, by ID."""
        rows = [
            r for s in ("forget", "retain") for r in self.files.parquet(self.configs[s], COLUMNS)
        ]
        return {
            record.text("ID"): flat_attributes(
                record.parsed("Biography", literal=True).values, ("Name", "ID")
            )
            for record in rows
        }

    def train_split(self, forget: bool) -> list[Sample]:
        """The questions of MM_QA with the picture, and of UM_QA without."""
        return self._read("forget" if forget else "retain", self._training_samples)

    def _read(self, side: str, make: Callable[[Record], Iterator[Sample]]) -> list[Sample]:
        config = self.configs[side]
        return gather(self.files.parquet(config, COLUMNS), make, config)

    def _training_samples(self, record: Record) -> Iterator[Sample]:
        who, picture = record.text("ID"), record.picture("image", self.picture_cache)
        for field, pictured in (("MM_QA", True), ("UM_QA", False)):
            content = record.parsed(field, literal=True)
            questions, answers = content.nested("question"), content.nested("answer")
            for key in questions.values:
                yield Sample(
                    f"{who}/{field}/{key}",
                    questions.text(key),
                    answers.text(key),
                    picture if pictured else None,
                    who,
                    group=f"{who}/qa/{key}",
                )

    def _evaluation_samples(self, record: Record) -> Iterator[Sample]:
        who, picture = record.text("ID"), record.picture("image", self.picture_cache)
        for field in ("Classify", "Cloze", "Generation"):
            content = record.parsed(field, literal=True)
            for name, pictured in MODALITIES.items():
                items = content.nested(name)
                for key in items.values:
                    item = items.nested(key)
                    question, answer, choices = _asked(item, field, pictured)
                    yield Sample(
                        f"{who}/{field}/{name}/{key}",
                        question,
                        answer,
                        picture if pictured else None,
                        who,
                        choices,
                        TASKS[field],
                        group=f"{who}/{field}/{key}",
                    )


def _asked(item: Record, field: str, pictured: bool) -> tuple[str, str, tuple[str, ...]]:
    """The published prompt of a question, its true answer, and its options."""
    question, answer = item.text("question"), item.text("answer")
    if field == "Cloze":
        return f"{question}\n{ONLY_ANSWER}", answer.split(".")[0], ()
    if field == "Generation":
        return generation_prompt(question, pictured), answer, ()
    choices = read_options(item, "options")
    letter = answer[:1]
    if letter not in FOUR or answer[1:2] not in ("", ".", ":", " "):
        raise item.error("answer", f"is {answer!r}; it must begin with A., B., C. or D.")
    return f"{question}\nSelect answer in {list(choices)}", choices[FOUR.index(letter)], choices
