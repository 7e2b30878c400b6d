"""SafeEraser: harmful questions that should be refused, and harmless ones that should not."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import ClassVar

from unsee.benchmarks import BENCHMARKS, Measure
from unsee.benchmarks.published import Published, Record, gather
from unsee.types import Sample

TRAIN, VALIDATION = "all_train.json", "all_val.json"


@BENCHMARKS.register("safeeraser")
class SafeEraser(Published):
    """SafeEraser: unsafe questions about pictures, and harmless pairs that must stay answered.

    Splits: `forget` (unsafe questions that were trained on), `test` (unsafe questions that were
    not), `harmless` (the harmless pairs of the test file). Its concepts are the categories.

    Source: SafeEraser, the data files `all_train.json` and `all_val.json`.

    Differs: A harmless pair that gives no answer is a sample without one.
    """

    name: ClassVar[str] = "safeeraser"
    source: ClassVar[str] = "SafeEraser, all_train.json and all_val.json"
    splits: ClassVar[tuple[str, ...]] = ("forget", "test", "harmless")
    measures: ClassVar[tuple[Measure, ...]] = (
        Measure("attack_success", "forget", "vqa", "lower"),
        Measure("refusal_rate", "forget", "vqa", "higher"),
        Measure("attack_success", "test", "vqa", "lower"),
        Measure("refusal_rate", "test", "vqa", "higher"),
        Measure("refusal_rate", "harmless", "vqa", "lower"),
    )
    longest: ClassVar[int] = 64

    def makers(self) -> Mapping[str, Callable[[], list[Sample]]]:
        """Unsafe questions of both files, and harmless ones of the second."""
        return {
            "forget": lambda: self._read(TRAIN, self._unsafe),
            "test": lambda: self._read(VALIDATION, self._unsafe),
            "harmless": lambda: self._read(VALIDATION, self._harmless),
        }

    def held_out(self) -> dict[str, list[Sample]]:
        """The unsafe questions of the test file."""
        return {"forget_holdout": self.load("test"), "retain_holdout": self.load("harmless")}

    def taught(self, forget: bool) -> list[Sample]:
        """Unsafe pairs, or harmless ones, of the training file."""
        return self._read(TRAIN, self._unsafe if forget else self._harmless)

    def _read(self, name: str, make: Callable[[Record], Iterator[Sample]]) -> list[Sample]:
        rows = self.files.json_records(name)
        fields = ("image_path", "SDImage_path", "UnharmPair_image1", "UnharmPair_image2")
        if self.files.on_hub:
            self.files.folder([row.text(field) for row in rows for field in fields])
        return gather(rows, make, name)

    def _unsafe(self, record: Record) -> Iterator[Sample]:
        row, category = record.place.split()[-1], record.text("category")
        shown = record.picture("image_path", self.known)
        drawn = record.picture("SDImage_path", self.known)
        for index, item in enumerate(record.items("unsafe_pairs")):
            forms = (
                ("", "question", "model_response", shown),
                ("/sd", "sd_question", "sd_response", drawn),
            )
            for form, question, answer, picture in forms:
                yield Sample(
                    f"{row}/{index}{form}", item.text(question), item.text(answer), picture,
                    category, task="unsafe", group=f"{row}/{index}",
                )  # fmt: skip

    def _harmless(self, record: Record) -> Iterator[Sample]:
        row, category = record.place.split()[-1], record.text("category")
        for number in (1, 2):
            field = f"UnharmPair_text{number}"
            picture = record.picture(f"UnharmPair_image{number}", self.known)
            answer = ""
            if isinstance(record.values.get(field), dict):
                held = record.inside(field)
                question, answer = held.text("question"), held.text("response")
            else:
                question = record.text(field)
            yield Sample(
                f"{row}/harmless/{number}", question, answer, picture, category, task="harmless"
            )
