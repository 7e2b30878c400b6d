"""CLEAR: the fictitious authors of TOFU with pictures, captions and questions."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator, Mapping
from functools import cached_property
from typing import ClassVar

from unsee.benchmarks import BENCHMARKS, Measure
from unsee.benchmarks.published import LETTERS, Files, Published, Record, format_options, gather
from unsee.types import Sample, Task

CAPTION_QUESTION = "What can you see in this picture?"
FACE_PROMPT = "The name of the person on the image is "
NAME_QUESTION = "What is the name of the person in the image?"
CAPTION_COLUMNS = ("image", "caption", "name")
TOFU_COLUMNS = ("image", "caption", "question", "answer")
PERTURBED_COLUMNS = (
    "image",
    "caption",
    "name",
    "perturbed_captions",
    "paraphrased_caption",
    "perturbed_names",
)


def _measures() -> tuple[Measure, ...]:
    measures = [
        Measure(metric, "forget", "vqa", "lower")
        for metric in ("accuracy", "rouge_l_recall", "probability")
    ]
    measures += [
        Measure("truth_ratio", "forget", "vqa", "reference"),
        Measure("forget_quality", "forget", "vqa", "higher"),
        Measure("rouge_l_recall", "forget", "text", "higher"),
        Measure("probability", "forget", "text", "higher"),
    ]
    measures += [
        Measure(metric, "retain", "vqa", "higher")
        for metric in ("accuracy", "rouge_l_recall", "probability", "truth_ratio")
    ]
    measures += [Measure(m, "retain", "text", "higher") for m in ("rouge_l_recall", "probability")]
    for split in ("real_faces", "real_world"):
        measures += [Measure(m, split, "vqa", "higher") for m in ("accuracy", "probability")]
    return (*measures, Measure("model_utility", "retain", "vqa", "higher"))


@BENCHMARKS.register("clear", source="arXiv 2410.18057")
class CLEAR(Published):
    """CLEAR: 200 fictitious authors with pictures; captioning, name choice and text questions.

    Splits: `forget` and `retain` (captions with paraphrased and false variants, the name as a
    choice among `perturbed_names`, and TOFU's questions without a picture), `real_faces`,
    `real_world`.

    Source: Dontsov et al., arXiv 2410.18057.

    Differs: One fixed question asks for every caption; the paper draws one of several. Answers end
    after 64 tokens (300 in the published script, 50 in MMUnlearner's). `truth_ratio` averages the
    false answers of each sample; the script averages over all samples. The place of the true name
    among the options is drawn by the row. The author that a text question is about is identified by
    the name in it, because the data does not say.
    """

    hub: ClassVar[str] = "therem/CLEAR"
    ratios: ClassVar[tuple[str, ...]] = ("10", "5", "1")
    splits: ClassVar[tuple[str, ...]] = ("forget", "retain", "real_faces", "real_world")
    measures: ClassVar[tuple[Measure, ...]] = _measures()
    tasks: ClassVar[Mapping[str, tuple[Task, ...]]] = {"accuracy": ("classification", "ranking")}
    max_new_tokens: ClassVar[int] = 64
    rules: ClassVar[Mapping[str, str]] = {
        "accuracy": "mmunlearner",
        "truth_ratio": "logarithms",
    }

    def __init__(self, files: Files, ratio: str | None, shots: int | None) -> None:
        """Sets the names of the ratio's configurations."""
        super().__init__(files, ratio, shots)
        ratio_percent = int(ratio or 0)
        self.configs = {
            "forget": f"forget{ratio_percent:02}",
            "retain": f"retain{100 - ratio_percent}",
        }

    def split_loaders(self) -> Mapping[str, Callable[[], list[Sample]]]:
        """Loaders of the four evaluation splits."""
        forget = f"{self.configs['forget']}_perturbed"
        return {
            "forget": lambda: self._evaluation_samples(forget) + self._texts("forget"),
            "retain": lambda: self._evaluation_samples("retain_perturbed") + self._texts("retain"),
            "real_faces": lambda: gather(
                self.files.parquet("real_faces", ("image", "answer", "options")),
                self._face_samples,
                "real_faces",
            ),
            "real_world": lambda: gather(
                self.files.parquet("real_world", ("question", "answer", "image", "options")),
                self._world_samples,
                "real_world",
            ),
        }

    def train_split(self, forget: bool) -> list[Sample]:
        """Captions and text questions about the forget or the retain authors."""
        side = "forget" if forget else "retain"

        def caption_samples(record: Record) -> Iterator[Sample]:
            yield Sample(
                f"caption/{_row(record)}",
                CAPTION_QUESTION,
                record.text("caption"),
                record.picture("image", self.picture_cache),
                record.text("name"),
                task="caption",
            )

        config = self.configs[side]
        return gather(self._records[side], caption_samples, config) + self._texts(side)

    @cached_property
    def _records(self) -> dict[str, list[Record]]:
        return {
            side: self.files.parquet(config, CAPTION_COLUMNS)
            for side, config in self.configs.items()
        }

    def _texts(self, side: str) -> list[Sample]:
        """TOFU's questions about one side's authors: the rows without a picture."""
        config = f"{self.configs[side]}+tofu"
        names = {record.text("name") for record in self._records[side]}

        def text_samples(record: Record) -> Iterator[Sample]:
            if record.picture_or_none("image", self.picture_cache) is not None:
                return
            question, answer = record.text("question"), record.text("answer")
            mentioned = [name for name in names if name in question or name in answer]
            who = max(mentioned, key=lambda name: (len(name), name)) if mentioned else None
            yield Sample(f"text/{_row(record)}", question, answer, None, who)

        return gather(self.files.parquet(config, TOFU_COLUMNS), text_samples, config)

    def _evaluation_samples(self, config: str) -> list[Sample]:
        def picture_samples(record: Record) -> Iterator[Sample]:
            row, who = _row(record), record.text("name")
            picture = record.picture("image", self.picture_cache)
            yield Sample(
                f"caption/{row}",
                CAPTION_QUESTION,
                record.text("caption"),
                picture,
                who,
                task="caption",
                paraphrases=record.texts("paraphrased_caption"),
                perturbed=record.texts("perturbed_captions"),
                group=f"{who}/{row}",
            )
            choices = _with_truth(record, "perturbed_names", who, f"{config}/{row}")
            if len(choices) > len(LETTERS):
                raise record.error(
                    "perturbed_names",
                    f"has {len(choices) - 1} names; with the true one, at most {len(LETTERS)} "
                    "options have a letter. Remove some.",
                )
            yield Sample(
                f"name/{row}",
                f"{NAME_QUESTION}\n{format_options(choices)}",
                LETTERS[choices.index(who)],
                picture,
                who,
                choices,
                "classification",
            )

        return gather(self.files.parquet(config, PERTURBED_COLUMNS), picture_samples, config)

    def _face_samples(self, record: Record) -> Iterator[Sample]:
        yield self._ranked(record, "face", FACE_PROMPT)

    def _world_samples(self, record: Record) -> Iterator[Sample]:
        yield self._ranked(record, "world", record.text("question"))

    def _ranked(self, record: Record, kind: str, question: str) -> Sample:
        answer = record.text("answer")
        options = _with_truth(record, "options", answer, f"{kind}/{_row(record)}")
        picture = record.picture("image", self.picture_cache)
        who = answer if kind == "face" else None
        wrong = tuple(o for o in options if o != answer)
        return Sample(
            f"{kind}/{_row(record)}",
            question,
            answer,
            picture,
            who,
            options,
            "ranking",
            perturbed=wrong,
        )


def _with_truth(record: Record, field: str, truth: str, draw: str) -> tuple[str, ...]:
    """The false answers in a field, with the true one inserted at a place drawn for the row.

    A list that holds the true answer already is returned as it is.

    Args:
        record: The row.
        field: Its list of false answers.
        truth: The true answer.
        draw: Seed of the draw.
    """
    texts = record.texts(field)
    if not set(texts) - {truth}:
        raise record.error(field, f"has no other answer than {truth!r}. Give at least one.")
    if truth in texts:
        return texts
    place = zlib.crc32(draw.encode()) % (len(texts) + 1)
    return (*texts[:place], truth, *texts[place:])


def _row(record: Record) -> str:
    """A row's identifier, from the number of its file and of the row, such as "00000/1"."""
    return f"{record.file.stem.split('-of-')[0].removeprefix('train-')}/{record.place.split()[-1]}"
