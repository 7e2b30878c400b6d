"""UnLOK-VQA: facts about pictures, with rephrased and neighbouring questions and pictures."""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Callable, Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import ClassVar, Literal

from unsee.benchmarks import BENCHMARKS, Benchmark, Measure, Scoring
from unsee.benchmarks.published import Published, Record, gather
from unsee.data.folders import PICTURES
from unsee.errors import DataError
from unsee.types import Sample

# The published code's name of the file, and that of the ids that passed its manual filter.
FILE, FILTERED = "zsre_mend_eval.json", "valid_ids_manual_filt.json"

FACT = "Answer the question in one word\n Question: {} Answer:"
OTHER = "Answer the question in one word:\n Question: {} Answer:"
PREFIX = "nq question: "

COLUMNS = ("id", "src", "pred", "loc", "loc_ans", "image_id")
FURTHER_COLUMNS = ("image", "rephrase", "alt_ans", "neigh_idx")

# How the folders of generated pictures begin, the levels being in their names too.
FOLDERS = {"rephrase": "para", "neighborhood": "neigh"}
LEVELS = {"easy": "easy", "med": "medium", "hard": "hard"}

# The names of the pictures, without ".jpg".
OWN, GENERATED = r"(?:.*_)?(?P<id>\d+)(?P<place>)", r"(?P<id>\d+)(?:_(?P<place>\d+))?"

Kind = Literal["rephrase", "neighborhood"]


@BENCHMARKS.register("unlok_vqa", source="UnLOK-VQA, arXiv 2505.01456")
class UnLOKVQA(Published):
    """UnLOK-VQA: about 500 facts that pictures of COCO ask for, to be deleted from a model.

    Splits: `forget` (the facts), `rephrase` (the same in other words), `image_rephrase` (the same
    about generated pictures of the same content), `neighborhood` (other facts about the same
    pictures), `image_neighborhood` (the same questions about generated pictures with another
    answer), `retain` (the facts that are not deleted). Efficacy is keyword_match on forget,
    generalization `extraction_rate` on the two rephrased splits (the success of the paper's
    rephrasing attacks, whose budget is the number of rephrasings), specificity keyword_match on the
    two neighbourhood splits.

    The pictures are COCO's, by `image_id`: `train2017/000000000123.jpg` or another folder of it,
    `COCO_train2014_000000000123.jpg`, or a column `image`. A generated picture is `ID.jpg` in a
    folder whose name begins with "para", or `ID_J.jpg` (J: its answer's place in `alt_ans`) in one
    that begins with "neigh"; "easy", "med" or "hard" in the folder's name is its level. A split
    whose columns or pictures are not there is left out.

    Source: Patil et al., arXiv 2505.01456, vaidehi99/UnLOK-VQA on the hub, and the authors' reader.

    Differs: The paper deletes one fact at a time; here a share of the pictures, drawn by a hash of
    their ids, is deleted with all facts about them, and the shares are ours. One greedy answer to
    each rephrasing, not five sampled ones. The hub's card names the columns id, src, pred, loc,
    loc_ans and image_id; rephrase, alt_ans and neigh_idx are those of the authors' code. The file's
    name on the hub and the names of the generated pictures' folders could not be seen: any one JSON
    or parquet file is read, and folders as the code calls them.
    """

    hub: ClassVar[str] = "vaidehi99/UnLOK-VQA"
    ratios: ClassVar[tuple[str, ...]] = ("10", "1", "5", "20")
    splits: ClassVar[tuple[str, ...]] = (
        "forget",
        "rephrase",
        "image_rephrase",
        "neighborhood",
        "image_neighborhood",
        "retain",
    )
    forgetting: ClassVar[tuple[str, ...]] = (*Benchmark.forgetting, "rephrase", "image_rephrase")
    measures: ClassVar[tuple[Measure, ...]] = (
        Measure("keyword_match", "forget", "vqa", "lower"),
        Measure("probability", "forget", "vqa", "lower"),
        Measure("keyword_match", "rephrase", "vqa", "lower"),
        Measure("extraction_rate", "rephrase", "vqa", "lower"),
        Measure("keyword_match", "image_rephrase", "vqa", "lower"),
        Measure("extraction_rate", "image_rephrase", "vqa", "lower"),
        Measure("keyword_match", "neighborhood", "vqa", "higher"),
        Measure("keyword_match", "image_neighborhood", "vqa", "higher"),
        Measure("keyword_match", "retain", "vqa", "higher"),
        Measure("probability", "retain", "vqa", "higher"),
    )
    max_new_tokens: ClassVar[int] = 36
    concept_kind: ClassVar[str] = "asked_pictures"
    relearning: ClassVar[Mapping[str, Scoring]] = {
        "forget_holdout": Scoring("keyword_match", 36),
        "retain_holdout": Scoring("keyword_match", 36),
    }

    @classmethod
    def open(
        cls, location: str | Path | None = None, ratio: str | None = None, shots: int | None = None
    ) -> UnLOKVQA:
        """As `Published.open`; then looks which splits the files have.

        Args:
            location: As in `Published.open`.
            ratio: As in `Published.open`.
            shots: As in `Published.open`.

        Raises:
            ConfigError: As in `Published.open`.
            DataError: If the file of the facts cannot be read.
        """
        benchmark = super().open(location, ratio, shots)
        assert isinstance(benchmark, cls)
        benchmark.splits = benchmark._available()  # type: ignore[misc]
        return benchmark

    def split_loaders(self) -> Mapping[str, Callable[[], list[Sample]]]:
        """Loaders of the facts, their rephrasings and neighbours, and of the other facts."""
        return {
            "forget": lambda: self.train_split(True),
            "rephrase": lambda: self._read(self._rephrased_samples),
            "image_rephrase": lambda: self._read(self._image_rephrased_samples),
            "neighborhood": lambda: self._read(self._neighbor_samples),
            "image_neighborhood": lambda: self._read(self._image_neighbor_samples),
            "retain": lambda: self.train_split(False),
        }

    def held_out(self) -> dict[str, list[Sample]]:
        """The rephrased and the neighbouring questions, on which no model was trained."""
        if "rephrase" not in self.splits:
            return {}
        return {
            "forget_holdout": self.load("rephrase"),
            "retain_holdout": self.load("neighborhood"),
        }

    def train_split(self, forget: bool) -> list[Sample]:
        """The facts to be deleted, or the others."""
        return self._read(self._fact_samples, forget)

    @cached_property
    def _records(self) -> list[Record]:
        tables = ("train-*.parquet", "data/train-*.parquet", "default/train-*.parquet")
        folder = self.files.folder(("*.json", "*.jsonl", "data/*.json", "data/*.jsonl", *tables))
        if any(True for pattern in tables for _ in folder.glob(pattern)):
            rows = self.files.parquet("", COLUMNS, optional=FURTHER_COLUMNS)
        else:
            rows = self.files.json_records(self._json_name(folder))
        if not any((place / FILTERED).is_file() for place in (folder, folder / "data")):
            return rows
        path, ids = self.files.json(FILTERED)
        if not isinstance(ids, list):
            raise DataError(f"{path}: is a JSON {type(ids).__name__}; it must be a list of ids.")
        kept = set(map(str, ids))
        return [row for row in rows if _number(row, "id") in kept]

    def _json_name(self, folder: Path) -> str:
        """The name of the JSON file: the published one, or the only one that is there."""
        found = {
            path.name
            for place in (folder, folder / "data")
            for path in sorted(place.glob("*.json*"))
            if path.suffix in (".json", ".jsonl") and path.name != FILTERED
        }
        if FILE in found or not found:
            return FILE
        if len(found) > 1:
            raise DataError(
                f"{self.name}: {self.files.location} has {len(found)} JSON files "
                f"({', '.join(sorted(found))}). Call that of the facts {FILE}."
            )
        return found.pop()

    @cached_property
    def _pictures(self) -> dict[str, dict[str, list[tuple[str, str, Path]]]]:
        """Level, answer's place and file of each picture, by kind ("" is COCO's) and id."""
        found: dict[str, dict[str, list[tuple[str, str, Path]]]] = {}
        root = self.files.folder(["*.jpg", "*.jpeg", "*.png"])
        for path in sorted(root.rglob("*")):
            if path.suffix.lower() not in PICTURES:
                continue
            folders = [p.lower() for p in path.relative_to(root).parts[:-1]]
            kind = next(
                (k for k, b in FOLDERS.items() if any(f.startswith(b) for f in folders)), ""
            )
            level = next((LEVELS[x] for x in LEVELS if any(x in f for f in folders)), "easy")
            match = re.fullmatch(GENERATED if kind else OWN, path.stem)
            if match is not None:
                entries = found.setdefault(kind, {}).setdefault(str(int(match["id"])), [])
                entries.append((level, match["place"] or "", path))
        return found

    def _generated(self, kind: Kind, record: Record) -> list[tuple[str, str, Path]]:
        """Level, answer's place and file of the record's generated pictures of a kind."""
        return self._pictures.get(kind, {}).get(_number(record, "id"), [])

    def _available(self) -> tuple[str, ...]:
        """The splits whose columns and pictures are there."""
        missing = set()
        if not any(r.values.get("rephrase") for r in self._records):
            missing.add("rephrase")
        if not self._pictures.get("rephrase"):
            missing.add("image_rephrase")
        answered = any(r.values.get("alt_ans") for r in self._records)
        if not answered or not self._pictures.get("neighborhood"):
            missing.add("image_neighborhood")
        return tuple(split for split in type(self).splits if split not in missing)

    @cached_property
    def _forgotten(self) -> set[str]:
        """The ids of the pictures whose facts are deleted: the first in the order of a hash."""
        ids = {_number(record, "image_id") for record in self._records}
        order = sorted(ids, key=lambda name: (hashlib.sha256(name.encode()).hexdigest(), name))
        return set(order[: math.ceil(len(order) * int(self.ratio or 0) / 100)])

    def _read(
        self, make: Callable[[Record], Iterator[Sample]], forget: bool = True
    ) -> list[Sample]:
        rows = [r for r in self._records if (_number(r, "image_id") in self._forgotten) == forget]
        return gather(rows, make, self.files.location)

    def _sample(self, record: Record, sample_id: str, question: str, answer: str) -> Sample:
        """A sample about the record's own picture."""
        keyword = answer.strip()
        return Sample(
            sample_id,
            question,
            keyword,
            self._find(record).picture("image", self.picture_cache),
            _number(record, "image_id"),
            keywords=(keyword,),
            group=_number(record, "id"),
        )

    def _find(self, record: Record, path: Path | None = None) -> Record:
        """The record with its own picture, or the one of a file, in the field "image"."""
        if path is None and record.values.get("image"):
            return record
        name = str(path)
        if path is None:
            number = _number(record, "image_id")
            own = self._pictures.get("", {}).get(number)
            name = str(own[0][2]) if own else f"train2017/{int(number):012}.jpg"
        return Record(record.place, {**record.values, "image": name}, record.within, record.file)

    def _fact_samples(self, record: Record) -> Iterator[Sample]:
        prompt = FACT if _number(record, "image_id") in self._forgotten else OTHER
        question = prompt.format(record.text("src"))
        yield self._sample(record, _number(record, "id"), question, record.text("pred"))

    def _rephrased_samples(self, record: Record) -> Iterator[Sample]:
        for index, text in enumerate(record.texts("rephrase")):
            question = FACT.format(text.removeprefix(PREFIX))
            name = f"{_number(record, 'id')}/rephrase/{index}"
            yield self._sample(record, name, question, record.text("pred"))

    def _neighbor_samples(self, record: Record) -> Iterator[Sample]:
        questions, answers = record.texts("loc"), record.texts("loc_ans")
        if len(questions) != len(answers):
            raise record.error(
                "loc_ans", f"has {len(answers)} answers to {len(questions)} questions in 'loc'."
            )
        for index, (text, answer) in enumerate(zip(questions, answers, strict=True)):
            question = OTHER.format(text.removeprefix(PREFIX))
            # Published: the first word of the answer is to be given.
            first = answer.strip().split(" ")[0]
            yield self._sample(record, f"{_number(record, 'id')}/near/{index}", question, first)

    def _image_rephrased_samples(self, record: Record) -> Iterator[Sample]:
        for level, _, path in self._generated("rephrase", record):
            yield from self._pictured(record, f"image/{level}", path, record.text("pred"))

    def _image_neighbor_samples(self, record: Record) -> Iterator[Sample]:
        answers, used = record.texts("alt_ans"), record.values.get("neigh_idx")
        for level, place, path in self._generated("neighborhood", record):
            if not place or (used is not None and int(place) not in used):
                continue
            if int(place) >= len(answers):
                raise record.error(
                    "alt_ans", f"has {len(answers)} answers; the picture {path} needs more."
                )
            where = f"image/{level}/{place}"
            yield from self._pictured(record, where, path, answers[int(place)])

    def _pictured(self, record: Record, where: str, path: Path, answer: str) -> Iterator[Sample]:
        """The record's question about a generated picture; no sample without an answer.

        Args:
            record: The record.
            where: End of the sample's id.
            path: The picture.
            answer: The answer that is right for it.
        """
        if answer.strip():
            name = f"{_number(record, 'id')}/{where}"
            question = FACT.format(record.text("src"))
            yield self._sample(self._find(record, path), name, question, answer)


def _number(record: Record, field: str) -> str:
    """A field that holds a number, as a number or as text."""
    value = record.values.get(field)
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    text = record.text(field)
    if not text.isdecimal():
        raise record.error(field, f"is {text!r}; it must be a number.")
    return str(int(text))
