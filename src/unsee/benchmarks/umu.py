"""UMU-Bench: every fact asked with a picture and without, and scored over both."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import ClassVar

from unsee.benchmarks import BENCHMARKS, Measure
from unsee.benchmarks.mllmu import classification, cloze, generation
from unsee.benchmarks.published import LETTERS, Files, Published, Record, gather, letters
from unsee.types import Better, Sample, Task

COLUMNS = ("ID", "image", "Biography", "MM_QA", "UM_QA", "Classify", "Cloze", "Generation")
# The data spells the second one like this.
MODALITIES = {"unimodal": False, "muitimodal": True}
TASKS: dict[str, Task] = {"Cloze": "cloze", "Generation": "generation"}


def _measures() -> tuple[Measure, ...]:
    found = []
    for split in ("forget", "retain", "real"):
        for modality in ("vqa", "text"):
            better: Better = "lower" if split == "forget" else "higher"
            found += [
                Measure(metric, split, modality, better)
                for metric in ("accuracy", "cloze", "rouge_l", "probability")
            ]
        right: Better = "lower" if split == "forget" else "higher"
        wrong: Better = "higher" if split == "forget" else "lower"
        found.append(Measure("joint_right", split, "vqa", right))
        found.append(Measure("joint_wrong", split, "vqa", wrong))
        found.append(Measure("joint_rouge", split, "vqa", right))
    return tuple(found)


@BENCHMARKS.register("umu", source="UMU-Bench, linbojunzi/UMU-bench")
class UMU(Published):
    """UMU-Bench: 500 invented and some real people; each question with and without the picture.

    Splits: `forget`, `retain`, `real`. The two forms of a fact have one `group`. To unlearn on it
    means to lose a fact in both modalities, so lower is better in both.

    Source: UMU-Bench, linbojunzi/UMU-bench on the hub.

    Differs: The prompts around the questions are MLLMU-Bench's, without few-shot examples.
    """

    hub: ClassVar[str] = "linbojunzi/UMU-bench"
    ratios: ClassVar[tuple[str, ...]] = ("5", "10", "15")
    splits: ClassVar[tuple[str, ...]] = ("forget", "retain", "real")
    measures: ClassVar[tuple[Measure, ...]] = _measures()
    tasks: ClassVar[Mapping[str, tuple[Task, ...]]] = {"accuracy": ("classification",)}
    max_new_tokens: ClassVar[int] = 50

    def __init__(self, files: Files, ratio: str | None, shots: int | None) -> None:
        """Names the configurations of the ratio."""
        super().__init__(files, ratio, shots)
        self.configs = {
            "forget": f"forget_{ratio}",
            "retain": f"retain_{100 - int(ratio or 0)}",
            "real": "Real_Person_Set",
        }

    def makers(self) -> Mapping[str, Callable[[], list[Sample]]]:
        """The three evaluation sets."""
        return {
            "forget": lambda: self._read("forget", self._asked),
            "retain": lambda: self._read("retain", self._asked),
            "real": lambda: self._read("real", self._asked),
        }

    def held_out(self) -> dict[str, list[Sample]]:
        """Choices about the pictures: questions that were not taught, on pictures that were."""
        return {
            f"{split}_holdout": [
                s for s in self.load(split) if s.picture is not None and s.task == "classification"
            ]
            for split in ("forget", "retain")
        }

    def taught(self, forget: bool) -> list[Sample]:
        """MM_QA with the picture, UM_QA without."""
        return self._read("forget" if forget else "retain", self._trained)

    def _read(self, side: str, make: Callable[[Record], Iterator[Sample]]) -> list[Sample]:
        config = self.configs[side]
        return gather(self.files.parquet(config, COLUMNS), make, config)

    def _trained(self, record: Record) -> Iterator[Sample]:
        who, picture = record.text("ID"), record.picture("image", self.known)
        for field, pictured in (("MM_QA", True), ("UM_QA", False)):
            held = record.parsed(field, literal=True)
            questions, answers = held.inside("question"), held.inside("answer")
            for key in questions.values:
                yield Sample(
                    f"{who}/{field}/{key}",
                    questions.text(key),
                    answers.text(key),
                    picture if pictured else None,
                    who,
                    group=f"{who}/qa/{key}",
                )

    def _asked(self, record: Record) -> Iterator[Sample]:
        who, picture = record.text("ID"), record.picture("image", self.known)
        for field in ("Classify", "Cloze", "Generation"):
            held = record.parsed(field, literal=True)
            for name, pictured in MODALITIES.items():
                items = held.inside(name)
                for key in items.values:
                    item = items.inside(key)
                    question, answer = item.text("question"), item.text("answer")
                    choices: tuple[str, ...] = ()
                    task: Task
                    if field == "Classify":
                        task, choices = "classification", letters(item, "options")
                        if answer[:1] not in LETTERS or answer[1:2] not in ("", ".", ":", " "):
                            raise item.wrong(
                                "answer", f"is {answer!r}; it must begin with A., B., C. or D."
                            )
                        question, answer = classification(question, choices), answer[:1]
                    else:
                        task = TASKS[field]
                        free = task == "generation"
                        question = generation(question, pictured) if free else cloze(question)
                    yield Sample(
                        f"{who}/{field}/{name}/{key}",
                        question,
                        answer,
                        picture if pictured else None,
                        who,
                        choices,
                        task,
                        group=f"{who}/{field}/{key}",
                    )
