"""Samples of UnLOK-VQA: facts, rephrasings and neighbours, and what the files must hold."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from support.published import open_benchmark, png
from unsee.benchmarks import BENCHMARKS
from unsee.errors import DataError

FILE = "zsre_mend_eval.json"


def change(place: Path, row: int, **values: Any) -> None:
    """Sets values of one row of the facts' file; None removes the key."""
    rows = json.loads((place / FILE).read_text())
    rows[row] = {k: v for k, v in {**rows[row], **values}.items() if v is not None}
    (place / FILE).write_text(json.dumps(rows))


def test_unlok_vqa_samples_follow_the_published_files(places: dict[str, Path]) -> None:
    benchmark = open_benchmark(places, "unlok_vqa", ratio="20")
    first, *_ = benchmark.load("forget")
    assert first.question == (
        "Answer the question in one word\n Question: who works with this tool Answer:"
    )
    who = first.id
    rephrased = [s for s in benchmark.load("rephrase") if s.group == who]
    assert [s.question.split("Question: ")[1] for s in rephrased] == [
        "whose tool is this Answer:",
        "what is the job of its owner Answer:",
    ]
    assert {s.picture for s in rephrased} == {first.picture}
    images = [s for s in benchmark.load("image_rephrase") if s.group == who]
    assert [s.id for s in images] == [f"{who}/image/easy", f"{who}/image/medium"]
    assert {s.question for s in images} == {first.question}
    assert first.picture not in {s.picture for s in images}
    (near, *_) = [s for s in benchmark.load("neighborhood") if s.group == who]
    # The prefix goes, and the first word of the answer is asked for.
    assert near.question == (
        "Answer the question in one word:\n Question: where does rain fall Answer:"
    )
    assert (near.answer, near.keywords, near.picture) == ("Oslo", ("Oslo",), first.picture)
    other = [s for s in benchmark.load("image_neighborhood") if s.group == who]
    assert [s.answer for s in other] == ["cook", "cook"]
    assert len({s.picture.digest for s in (*other, *images, first)}) == 5


def test_unlok_vqa_shares_are_nested(places: dict[str, Path]) -> None:
    sets = [
        {s.concept for s in open_benchmark(places, "unlok_vqa", ratio=r).load("forget")}
        for r in ("1", "10", "20")
    ]
    assert [len(some) for some in sets] == [1, 1, 2]
    assert sets[0] <= sets[1] <= sets[2]


def test_unlok_vqa_deletes_all_facts_about_a_picture(copied: dict[str, Path]) -> None:
    place = copied["unlok_vqa"]
    (before,) = open_benchmark(copied, "unlok_vqa").load("forget")
    other = 0 if before.id != "0" else 1
    change(place, other, image_id=int(str(before.concept)))
    benchmark = open_benchmark(copied, "unlok_vqa")
    assert {s.id for s in benchmark.load("forget")} == {before.id, str(other)}
    assert not {s.concept for s in benchmark.load("retain")} & {before.concept}


def test_unlok_vqa_without_generated_pictures_leaves_their_splits_out(
    copied: dict[str, Path],
) -> None:
    place = copied["unlok_vqa"]
    for path in place.glob("*par*_images*"):
        shutil.rmtree(path)
    assert "image_rephrase" not in open_benchmark(copied, "unlok_vqa").splits
    for row in range(6):
        change(place, row, rephrase=None, alt_ans=None)
    benchmark = open_benchmark(copied, "unlok_vqa")
    assert benchmark.splits == ("forget", "neighborhood", "retain")
    assert benchmark.held_out() == {}
    # Another data set of the same benchmark keeps its own.
    assert len(BENCHMARKS.get("unlok_vqa").splits) == 6


def test_unlok_vqa_reads_the_manual_filter_and_any_name_of_the_file(
    copied: dict[str, Path],
) -> None:
    place = copied["unlok_vqa"]
    (place / FILE).rename(place / "UnLOK.json")
    (place / "valid_ids_manual_filt.json").write_text("[0, 1, 2]")
    benchmark = open_benchmark(copied, "unlok_vqa")
    known = {s.group for s in (*benchmark.load("forget"), *benchmark.load("retain"))}
    assert known == {"0", "1", "2"}
    (place / "more.json").write_text("[]")
    with pytest.raises(DataError, match=r"has 2 JSON files \(UnLOK.json, more.json\)"):
        open_benchmark(copied, "unlok_vqa")
    (place / "valid_ids_manual_filt.json").write_text("{}")
    (place / "more.json").unlink()
    with pytest.raises(DataError, match="must be a list of ids"):
        open_benchmark(copied, "unlok_vqa")


def test_unlok_vqa_reads_a_parquet_file_with_pictures(tmp_path: Path) -> None:
    rows = [
        {
            "id": i,
            "src": "what is it",
            "pred": "a saw",
            "loc": ["where is it"],
            "loc_ans": ["here"],
            "image_id": i + 1,
            "image": {"bytes": png(i), "path": f"{i}.png"},
        }
        for i in range(3)
    ]
    (tmp_path / "data").mkdir()
    path = tmp_path / "data" / "train-00000-of-00001.parquet"
    pq.write_table(pa.Table.from_pylist(rows), path)
    benchmark = BENCHMARKS.get("unlok_vqa").open(tmp_path)
    assert benchmark.splits == ("forget", "neighborhood", "retain")
    assert benchmark.load("forget")[0].keywords == ("a saw",)
    renamed = [{("answer_pred" if k == "pred" else k): v for k, v in r.items()} for r in rows]
    pq.write_table(pa.Table.from_pylist(renamed), path)
    with pytest.raises(DataError, match="field 'pred' is missing: unknown column 'pred'. Did you"):
        BENCHMARKS.get("unlok_vqa").open(tmp_path)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"pred": None}, "row 1: field 'pred' is missing: unknown field 'pred'"),
        ({"src": None, "source": "x"}, "Did you mean 'source'"),
        ({"image_id": "coco7"}, "row 1: field 'image_id' is 'coco7'; it must be a number"),
        ({"loc_ans": []}, "row 1: field 'loc_ans' has 0 answers to 1 questions"),
        ({"alt_ans": ["x"]}, "row 1: field 'alt_ans' has 1 answers"),
        ({"image_id": 999}, r"row 1: field 'image' is no picture: train2017/000000000999.jpg"),
    ],
)
def test_unlok_vqa_names_what_is_wrong_in_a_row(
    copied: dict[str, Path], values: dict[str, Any], message: str
) -> None:
    place = copied["unlok_vqa"]
    change(place, 0, **values)
    (place / "valid_ids_manual_filt.json").write_text("[0]")
    with pytest.raises(DataError, match=message):
        benchmark = open_benchmark(copied, "unlok_vqa")
        for split in benchmark.splits:
            if split != "retain":
                benchmark.load(split)
