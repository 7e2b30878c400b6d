"""CLEAR: the invented authors of TOFU with pictures, asked about by caption and by question."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator, Mapping
from functools import cached_property
from typing import ClassVar

import numpy as np

from unsee.benchmarks import BENCHMARKS, Measure
from unsee.benchmarks.published import LETTERS, Files, Published, Record, gather, lettered
from unsee.types import Sample, Task

CAPTION = "What can you see in this picture?"
FACE = "The name of the person on the image is "
WHO = "What is the name of the person in the image?"
PLAIN = ("image", "caption", "name")
TOFU = ("image", "caption", "question", "answer")
PERTURBED = (
    "image",
    "caption",
    "name",
    "perturbed_captions",
    "paraphrased_caption",
    "perturbed_names",
)


def _measures() -> tuple[Measure, ...]:
    found = [
        Measure(metric, "forget", "vqa", "lower")
        for metric in ("accuracy", "rouge_l_recall", "probability")
    ]
    found += [
        Measure("truth_ratio", "forget", "vqa", "reference"),
        Measure("forget_quality", "forget", "vqa", "higher"),
        Measure("rouge_l_recall", "forget", "text", "higher"),
        Measure("probability", "forget", "text", "higher"),
    ]
    found += [
        Measure(metric, "retain", "vqa", "higher")
        for metric in ("accuracy", "rouge_l_recall", "probability", "truth_ratio")
    ]
    found += [Measure(m, "retain", "text", "higher") for m in ("rouge_l_recall", "probability")]
    for split in ("real_faces", "real_world"):
        found += [Measure(m, split, "vqa", "higher") for m in ("accuracy", "probability")]
    return (*found, Measure("model_utility", "retain", "vqa", "higher"))


@BENCHMARKS.register("clear", source="arXiv 2410.18057")
class CLEAR(Published):
    """CLEAR: 200 invented authors with pictures; captions, names among others, text questions.

    Splits: `forget` and `retain` (captions with paraphrases and false ones, names among
    `perturbed_names`, and TOFU's questions without a picture), `real_faces`, `real_world`.

    Source: Dontsov et al., arXiv 2410.18057.

    Differs: Every caption is asked for with one question, not one drawn of several. Whom a text
    question is about is found by the name in it; the data does not say.
    """

    hub: ClassVar[str] = "therem/CLEAR"
    ratios: ClassVar[tuple[str, ...]] = ("10", "5", "1")
    splits: ClassVar[tuple[str, ...]] = ("forget", "retain", "real_faces", "real_world")
    measures: ClassVar[tuple[Measure, ...]] = _measures()
    tasks: ClassVar[Mapping[str, tuple[Task, ...]]] = {"accuracy": ("classification", "ranking")}
    max_new_tokens: ClassVar[int] = 64

    def __init__(self, files: Files, ratio: str | None, shots: int | None) -> None:
        """Names the configurations of the ratio."""
        super().__init__(files, ratio, shots)
        share = int(ratio or 0)
        self.configs = {"forget": f"forget{share:02}", "retain": f"retain{100 - share}"}

    def makers(self) -> Mapping[str, Callable[[], list[Sample]]]:
        """The four evaluation sets."""
        forget = f"{self.configs['forget']}_perturbed"
        return {
            "forget": lambda: self._asked(forget) + self._texts("forget"),
            "retain": lambda: self._asked("retain_perturbed") + self._texts("retain"),
            "real_faces": lambda: gather(
                self.files.parquet("real_faces", ("image", "answer", "options")),
                self._face,
                "real_faces",
            ),
            "real_world": lambda: gather(
                self.files.parquet("real_world", ("question", "answer", "image", "options")),
                self._world,
                "real_world",
            ),
        }

    def taught(self, forget: bool) -> list[Sample]:
        """Captions and text questions of one side."""
        side = "forget" if forget else "retain"
        names = self._names[side]

        def caption(record: Record) -> Iterator[Sample]:
            yield Sample(
                f"caption/{_row(record)}",
                CAPTION,
                record.text("caption"),
                record.picture("image", self.known),
                record.text("name"),
                task="caption",
            )

        config = self.configs[side]
        return gather(names, caption, config) + self._texts(side)

    @cached_property
    def _names(self) -> dict[str, list[Record]]:
        return {side: self.files.parquet(config, PLAIN) for side, config in self.configs.items()}

    def _texts(self, side: str) -> list[Sample]:
        """TOFU's questions: the rows without a picture."""
        config = f"{self.configs[side]}+tofu"
        names = {record.text("name") for record in self._names[side]}

        def ask(record: Record) -> Iterator[Sample]:
            if record.picture_or_none("image", self.known) is not None:
                return
            question, answer = record.text("question"), record.text("answer")
            named = [name for name in names if name in question or name in answer]
            who = max(named, key=lambda name: (len(name), name)) if named else None
            yield Sample(f"text/{_row(record)}", question, answer, None, who)

        return gather(self.files.parquet(config, TOFU), ask, config)

    def _asked(self, config: str) -> list[Sample]:
        def ask(record: Record) -> Iterator[Sample]:
            row, who = _row(record), record.text("name")
            picture = record.picture("image", self.known)
            yield Sample(
                f"caption/{row}",
                CAPTION,
                record.text("caption"),
                picture,
                who,
                task="caption",
                paraphrases=record.texts("paraphrased_caption"),
                perturbed=record.texts("perturbed_captions"),
                group=f"{who}/{row}",
            )
            others = tuple(n for n in record.texts("perturbed_names") if n != who)[:3]
            if not others:
                raise record.wrong("perturbed_names", "has no other name. Give at least one.")
            order = np.random.default_rng(zlib.crc32(f"{config}/{row}".encode()))
            choices = tuple(str(n) for n in order.permutation([who, *others]))
            yield Sample(
                f"name/{row}",
                f"{WHO}\n{lettered(choices)}",
                LETTERS[choices.index(who)],
                picture,
                who,
                choices,
                "classification",
            )

        return gather(self.files.parquet(config, PERTURBED), ask, config)

    def _face(self, record: Record) -> Iterator[Sample]:
        yield self._ranked(record, "face", FACE)

    def _world(self, record: Record) -> Iterator[Sample]:
        yield self._ranked(record, "world", record.text("question"))

    def _ranked(self, record: Record, kind: str, question: str) -> Sample:
        answer, options = record.text("answer"), record.texts("options")
        if answer not in options:
            raise record.wrong("answer", f"is {answer!r}, which is none of the options.")
        picture = record.picture("image", self.known)
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


def _row(record: Record) -> str:
    return f"{record.file.stem.split('-of-')[0].removeprefix('train-')}/{record.place.split()[-1]}"
