"""VCUBench: photographs of one person and of groups, of whom one person is to be forgotten."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from functools import cached_property, partial
from pathlib import Path
from typing import Any, ClassVar

from unsee.benchmarks import BENCHMARKS, Benchmark, Measure, Scoring
from unsee.benchmarks.published import Published, Record, gather
from unsee.errors import DataError, UnknownNameError
from unsee.types import Sample

# Their first name is ours; none of the published ones could be seen.
SPELLINGS = {
    "image": ("image_path", "image_file", "file_name", "img", "picture"),
    "names": (
        *("people", "persons", "identities", "concepts", "labels", "name_list"),
        *("name", "person", "identity", "concept", "label"),
    ),
    "question": ("query", "prompt"),
    "answer": ("response", "ground_truth", "caption"),
}
ONE, SEVERAL = "Who is the person in this image?", "Who are the people in this image?"


@BENCHMARKS.register("vcubench", source="AUVIC, arXiv 2511.11299")
class VCUBench(Published):
    """VCUBench: public figures alone and in groups; of a group, one is to be forgotten.

    `ratio` (or `person`) is whom to forget; by default the person on most group photographs.
    Splits: `forget` (photographs of that person alone), `group` (group photographs with them),
    `retain` (others alone), `others` (group photographs without them). A method is trained on
    photographs of one person, and no group photograph is trained on.

    The folder has the tables `single` and `group`, each as `single-00000-of-00001.parquet` or
    `single.json`: a picture (`image`), the names of everyone on it (`names`, a list or names with
    commas between them), and, where there are any, `question` and `answer`.

    Source: Chen et al., AUVIC, arXiv 2511.11299, section on the benchmark.

    Differs: No file of the data could be seen and no place of it is known. The layout above is
    ours; of each column several spellings are read, and case does not count. Without a question
    column one fixed question asks who is there. `generality` and the perplexity of the paper, which
    are of other data, are left out.
    """

    ratio_alias: ClassVar[str] = "person"
    splits: ClassVar[tuple[str, ...]] = ("forget", "group", "retain", "others")
    forgetting: ClassVar[tuple[str, ...]] = (*Benchmark.forgetting, "group")
    measures: ClassVar[tuple[Measure, ...]] = (
        Measure("person_named", "forget", "vqa", "lower"),
        Measure("group_f1", "group", "vqa", "higher"),
        Measure("person_named", "group", "vqa", "lower"),
        Measure("others_named", "group", "vqa", "higher"),
        Measure("person_named", "retain", "vqa", "higher"),
        Measure("others_named", "others", "vqa", "higher"),
    )
    max_new_tokens: ClassVar[int] = 64
    relearning: ClassVar[Mapping[str, Scoring]] = {
        "forget_holdout": Scoring("person_named", 64),
        "retain_holdout": Scoring("others_named", 64),
    }

    @classmethod
    def open(
        cls, location: str | Path | None = None, ratio: str | None = None, shots: int | None = None
    ) -> Published:
        """Opens the data set; see `Published.open`.

        Args:
            location: A local folder, or a hub id.
            ratio: The name of the person to forget; checked when the tables are read.
            shots: Not allowed.
        """
        benchmark = super().open(location, None, shots)
        benchmark.ratio = ratio
        return benchmark

    def split_loaders(self) -> Mapping[str, Callable[[], list[Sample]]]:
        """Loaders of photographs with and without the person, alone and in groups."""
        return {
            "forget": partial(self._read, "single", True),
            "group": partial(self._read, "group", True),
            "retain": partial(self._read, "single", False),
            "others": partial(self._read, "group", False),
        }

    def train_split(self, forget: bool) -> list[Sample]:
        """Photographs of the person alone, or of the others alone."""
        return self.load("forget" if forget else "retain")

    def held_out(self) -> dict[str, list[Sample]]:
        """Group photographs, on which nothing is trained: with the person, and without."""
        return {"forget_holdout": self.load("group"), "retain_holdout": self.load("others")}

    def metadata(self) -> dict[str, Any]:
        """Name, location, the person's name and counts, for a record."""
        self.ratio = self._person
        return super().metadata()

    @cached_property
    def _rows(self) -> dict[str, list[Record]]:
        return {table: self.files.table((table,), SPELLINGS) for table in ("single", "group")}

    @cached_property
    def _person(self) -> str:
        """The person to forget: as asked for, else who is on most group photographs."""
        counts = Counter(name for row in self._rows["group"] for name in _names(row))
        alone = {name for row in self._rows["single"] for name in _names(row)}
        known = sorted(alone & counts.keys(), key=lambda name: (-counts[name], name))
        if not known:
            raise DataError(
                f"vcubench: nobody in {self.files.location} is in both tables, single and group. "
                "Give photographs of a person alone and in groups."
            )
        if self.ratio is not None and self.ratio not in known:
            raise UnknownNameError("vcubench person", self.ratio, known)
        return self.ratio or known[0]

    def _read(self, table: str, forgotten: bool) -> list[Sample]:
        """The samples of a table with the person on them, or without."""
        rows = self._rows[table]
        chosen = [row for row in rows if (self._person in _names(row)) == forgotten]
        return gather(chosen, self._samples, table)

    def _samples(self, record: Record) -> Iterator[Sample]:
        names = _names(record)
        alone = len(names) == 1
        asked = ONE if alone else SEVERAL
        about = self._person if self._person in names else names[0] if alone else None
        yield Sample(
            f"{record.file.stem.split('-of-')[0]}/{record.place.split()[-1]}",
            record.text("question") if "question" in record.values else asked,
            record.text("answer") if "answer" in record.values else ", ".join(names),
            record.picture("image", self.picture_cache),
            about,
            keywords=names,
        )


def _names(record: Record) -> tuple[str, ...]:
    """The names of everyone on a picture, from a list or a text with commas."""
    names = tuple(
        name.strip() for text in record.texts("names") for name in text.split(",") if name.strip()
    )
    if not names:
        raise record.error("names", "is empty. Name at least one person.")
    return names
