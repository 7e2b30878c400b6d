"""FIUBench: synthetic faces with private facts, and paraphrased questions about them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import cached_property
from typing import ClassVar

from unsee.benchmarks import BENCHMARKS, Measure, Scoring
from unsee.benchmarks.published import Published, Record, flat_attributes, gather
from unsee.data.archives import path_endings
from unsee.errors import DataError
from unsee.types import Sample

FULL, SPLIT = "full.json", "split.json"
RETAIN = "retain15"

# `full.json` has 573 people, of whom the published scripts use the first ones.
PEOPLE = 400


@BENCHMARKS.register("fiubench", source="FIUBench, gray311/FIUBench")
class FIUBench(Published):
    """FIUBench: 400 synthetic faces with private facts; answers are scored by their keywords.

    Splits: `forget`, `retain` (the published retain15). A question and its paraphrases have one
    `group`; a paraphrase's id ends in `/paraphrased/N`.

    Questions and answers are capitalized as the published reader does ("ada LIVES" becomes "Ada
    lives"). The pictures may stay in their zip file.

    Source: FIUBench, gray311/FIUBench on the hub, and its authors' reader and scripts.

    Differs: The retain samples of the target and of a method cover all people except the forgotten;
    the published ones leave out the people of all three forget sets.
    """

    hub: ClassVar[str] = "gray311/FIUBench"
    ratios: ClassVar[tuple[str, ...]] = ("5", "1", "10")
    splits: ClassVar[tuple[str, ...]] = ("forget", "retain")
    measures: ClassVar[tuple[Measure, ...]] = (
        Measure("keyword_match", "forget", "vqa", "lower"),
        Measure("ape", "forget", "vqa", "lower"),
        Measure("rouge_l_recall", "forget", "vqa", "lower"),
        Measure("probability", "forget", "vqa", "lower"),
        Measure("truth_ratio", "forget", "vqa", "reference"),
        Measure("ks", "forget", "vqa", "lower"),
        Measure("forget_quality", "forget", "vqa", "higher"),
        Measure("keyword_match", "retain", "vqa", "higher"),
        Measure("rouge_l_recall", "retain", "vqa", "higher"),
        Measure("probability", "retain", "vqa", "higher"),
        Measure("truth_ratio", "retain", "vqa", "higher"),
        Measure("model_utility", "retain", "vqa", "higher"),
    )
    max_new_tokens: ClassVar[int] = 50
    rules: ClassVar[Mapping[str, str]] = {
        "keyword_match": "fiubench",
        "rouge_l_recall": "fiubench",
        "truth_ratio": "logarithms",
        "retain/probability": "relative",
    }
    relearning: ClassVar[Mapping[str, Scoring]] = {
        "forget_holdout": Scoring("ape", 50),
        "retain_holdout": Scoring("ape", 50),
    }

    def split_loaders(self) -> Mapping[str, Callable[[], list[Sample]]]:
        """Loaders of the two evaluation splits, with paraphrased questions."""
        return {
            "forget": lambda: self._read(self._forgotten, True),
            "retain": lambda: self._read(self._ids(RETAIN) - self._forgotten, True),
        }

    def held_out(self) -> dict[str, list[Sample]]:
        """The paraphrased questions, on which no model was trained."""
        return {
            f"{split}_holdout": [s for s in self.load(split) if "/paraphrased/" in s.id]
            for split in ("forget", "retain")
        }

    def attributes(self) -> dict[str, dict[str, str]]:
        """The gender and the further fields of each person in `raw_data`, by id."""
        people = {}
        for record in self._records:
            raw = record.values.get("raw_data")
            fields = {
                **(raw if isinstance(raw, dict) else {}),
                "gender": record.values.get("gender"),
            }
            people[record.text("unique_id")] = flat_attributes(fields, ("name",))
        return people

    def train_split(self, forget: bool) -> list[Sample]:
        """The original questions, without paraphrases."""
        everyone = {record.text("unique_id") for record in self._records}
        who = self._forgotten if forget else everyone - self._forgotten
        return self._read(who, False)

    @cached_property
    def _everyone(self) -> list[Record]:
        return self.files.json_records(FULL)

    @property
    def _records(self) -> list[Record]:
        """The people that count: the published scripts drop those after the first 400."""
        return self._everyone[:PEOPLE]

    @cached_property
    def _forgotten(self) -> set[str]:
        return self._ids(f"forget{self.ratio}")

    def _ids(self, name: str) -> set[str]:
        """The ids of the people in a published split, such as "forget5"."""
        path, content = self.files.json(SPLIT)
        if not isinstance(content, dict):
            raise DataError(f"{path}: is a JSON {type(content).__name__}; it must be an object.")
        ids = set(Record(str(path), content, "", path).texts(name))
        known = {record.text("unique_id") for record in self._everyone}
        if ids - known:
            raise DataError(
                f"{path}: field '{name}' names {sorted(ids - known)[0]!r}, which {FULL} does not "
                "have. Download both files again."
            )
        return ids & {record.text("unique_id") for record in self._records}

    def _read(self, who: set[str], paraphrased: bool) -> list[Sample]:
        rows = [r for r in self._records if r.text("unique_id") in who]
        if self.files.on_hub:
            names = (ending for r in rows for ending in path_endings(r.text("image_path")))
            self.files.folder(["*.zip", *names])
        return gather(rows, lambda record: self._evaluation_samples(record, paraphrased), FULL)

    def _evaluation_samples(self, record: Record, paraphrased: bool) -> Iterator[Sample]:
        who = record.text("unique_id")
        picture = record.picture("image_path", self.picture_cache)
        for index, item in enumerate(record.items("qa_list")):
            group = f"{who}/{index}"
            answer, keywords = item.text("answer").capitalize(), item.texts("keywords")
            questions = {group: item.text("question")}
            if paraphrased:
                asked = enumerate(item.texts("paraphrased_question"))
                questions |= {f"{group}/paraphrased/{n}": text for n, text in asked}
            for sample_id, question in questions.items():
                yield Sample(
                    sample_id,
                    question.capitalize(),
                    answer,
                    picture,
                    who,
                    keywords=keywords,
                    paraphrases=_answers(item, "paraphrased_answer"),
                    perturbed=_answers(item, "perturbed_answer"),
                    group=group,
                )


def _answers(item: Record, field: str) -> tuple[str, ...]:
    """The answers in a field; the published reader capitalizes one that is not in a list."""
    texts = item.texts(field)
    return tuple(t.capitalize() for t in texts) if isinstance(item.values[field], str) else texts
