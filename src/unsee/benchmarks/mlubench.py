"""MLUBench: four requests one after another to forget real entities of nine classes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path, PurePosixPath
from typing import ClassVar

from unsee.benchmarks import BENCHMARKS, Benchmark, Measure, Scoring
from unsee.benchmarks.published import Files, Published, Record, gather
from unsee.data.conversations import questions
from unsee.errors import DataError
from unsee.types import Sample

# In the order of the requests.
TASKS = ("A", "B", "C", "D")

# The folder in the published zip file, where it was unpacked as it is.
UNPACKED = "MLUBench"


@BENCHMARKS.register("mlubench", source="arXiv 2606.12809")
class MLUBench(Published):
    """MLUBench: 127 real entities of nine classes, forgotten in four requests, A to D.

    `ratio` (or `task`) is the request that is answered now; those before it count as answered.
    Splits: `forget` and `retain` are the request's own sets; `forget_a` and `retain_a` to
    `forget_c` and `retain_c` are those of an earlier request, reported once it is one. The target
    of a request is the model as the earlier ones left it: their patches are on it. Models know the
    entities without being taught them. `unsee.metrics.aggregates.lifelong_drift` combines the
    scores of a sequence.

    An entity has the name of its pictures' folder, such as `downloaded_images/Animals/Dog/1.jpg`.
    The pictures are published apart from the questions: put `downloaded_images` beside `Tasks`.

    Source: Li et al., arXiv 2606.12809; the released `Tasks/TaskA/taskA_forget.json` and so on, and
    the readers beside them.

    Differs: The order of the requests is A, B, C, D; the released results also have others. One
    greedy answer, where the script draws at temperature 0.2. Phrases decide what is a refusal, and
    ROUGE-L how right an answer is, where the paper asks a judge model for both. The files of single
    entities (`Entities`), which are in no request as such, are not read.
    """

    ratios: ClassVar[tuple[str, ...]] = TASKS
    ratio_alias: ClassVar[str] = "task"
    splits: ClassVar[tuple[str, ...]] = (
        "forget",
        "retain",
        *(f"{side}_{task.lower()}" for task in TASKS[:-1] for side in ("forget", "retain")),
    )
    forgetting: ClassVar[tuple[str, ...]] = (
        *Benchmark.forgetting,
        *(f"forget_{task.lower()}" for task in TASKS[:-1]),
    )
    measures: ClassVar[tuple[Measure, ...]] = (
        Measure("clean_refusal", "forget", "vqa", "higher"),
        Measure("rouge_l", "forget", "vqa", "lower"),
        Measure("probability", "forget", "vqa", "lower"),
        Measure("clean_refusal", "retain", "vqa", "lower"),
        Measure("rouge_l", "retain", "vqa", "higher"),
        Measure("probability", "retain", "vqa", "higher"),
    )
    max_new_tokens: ClassVar[int] = 250
    concept_kind: ClassVar[str] = "entities"
    relearning: ClassVar[Mapping[str, Scoring]] = {"forget_holdout": Scoring("rouge_l", 250)}

    def __init__(self, files: Files, ratio: str | None, shots: int | None) -> None:
        """Sets the reported splits: the request's own, and those of the requests before it."""
        super().__init__(files, ratio, shots)
        earlier = TASKS[: TASKS.index(ratio or TASKS[0])]
        self.splits = self.splits[: 2 + 2 * len(earlier)]  # type: ignore[misc]

    def split_loaders(self) -> Mapping[str, Callable[[], list[Sample]]]:
        """Loaders of the request's own sets, and of those of every request by its letter."""
        sets = {"": str(self.ratio), **{f"_{task.lower()}": task for task in TASKS}}
        return {
            f"{side}{end}": partial(self._read, task, side)
            for side in ("forget", "retain")
            for end, task in sets.items()
        }

    def train_split(self, forget: bool) -> list[Sample]:
        """The request's set to forget, or its set to keep."""
        return self.load("forget" if forget else "retain")

    def _read(self, task: str, side: str) -> list[Sample]:
        """The samples of one file, such as `Tasks/TaskA/taskA_forget.json`."""
        name = f"Tasks/Task{task}/task{task}_{side}.json"
        folder = self.files.folder(["*.zip", name, f"{UNPACKED}/{name}", "downloaded_images/**"])
        inner = UNPACKED if (folder / UNPACKED / name).is_file() else ""
        rows = self.files.json_records(str(PurePosixPath(inner, name)))
        return gather((_at(row, folder / inner) for row in rows), self._samples, name)

    def _samples(self, record: Record) -> Iterator[Sample]:
        path = record.text("image")
        parts = PurePosixPath(path).parts
        if len(parts) < 3:
            raise record.error("image", f"is {path!r}; it must be .../CLASS/ENTITY/FILE.")
        record.items("conversations")
        try:
            asked, _ = questions(record.values)
        except DataError as error:
            raise record.error("conversations", f"cannot be read: {error}") from error
        picture = record.picture("image", self.picture_cache)
        # The released ids are not unique in a file.
        row = f"{record.file.stem}/{record.place.split()[-1]}"
        for number, item in enumerate(asked):
            yield Sample(
                f"{row}/{number}" if len(asked) > 1 else row,
                item["question"],
                item["answer"],
                picture,
                parts[-2].replace("_", " "),
            )


def _at(record: Record, folder: Path) -> Record:
    """The record with its pictures sought beside `Tasks`, and beside the folder of that."""
    return replace(record, file=folder / record.file.name)
