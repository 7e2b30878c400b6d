"""Samples of CLEAR, UMU-Bench, FIUBench, SafeEraser and CoVUBench."""

from __future__ import annotations

from pathlib import Path

import pytest

from support.published import open_benchmark, replace_value
from unsee.errors import DataError


def test_clear_samples_follow_the_published_files(places: dict[str, Path]) -> None:
    forget = {s.id: s for s in open_benchmark(places, "clear").load("forget")}
    caption = forget["caption/00000/1"]
    assert caption.question == "What can you see in this picture?"
    assert caption.paraphrases == ("Ada Berg at 0",)
    assert caption.perturbed == ("x in y", "z in y")
    name = forget["name/00000/1"]
    assert name.question.startswith("What is the name of the person in the image?\nA: ")
    assert name.choices["ABCD".index(name.answer)] == "Ada Berg"
    assert sorted(name.choices) == ["Ada Berg", "Bo Lind", "Cy Moser", "Di Novak"]
    text = forget["text/00000/10"]
    assert (text.question, text.concept, text.picture) == ("What is Ada Berg ?", "Ada Berg", None)
    (face,) = open_benchmark(places, "clear").load("real_faces")
    assert face.question == "The name of the person on the image is "
    assert (face.task, face.choices, face.answer) == ("ranking", ("Di", "Bo"), "Di")
    counts = [len(open_benchmark(places, "clear", ratio=r).data().forget) for r in ("1", "5", "10")]
    assert counts == [4, 8, 12]


def test_umu_groups_a_fact_over_modalities(places: dict[str, Path]) -> None:
    samples = open_benchmark(places, "umu").load("forget")
    groups: dict[str, set[str]] = {}
    for sample in samples:
        groups.setdefault(str(sample.group), set()).add(sample.modality)
    assert set(map(frozenset, groups.values())) == {frozenset({"vqa", "text"})}
    choice = next(s for s in samples if s.task == "classification")
    assert (choice.answer, len(choice.choices)) == ("A", 4)


def test_fiubench_groups_paraphrased_questions(places: dict[str, Path]) -> None:
    samples = open_benchmark(places, "fiubench", ratio="1").load("forget")
    assert [s.question for s in samples] == ["What does this person work as ?", "a ?", "b ?", "c ?"]
    assert {s.group for s in samples} == {"u0/0"}
    assert samples[0].keywords == ("baker",)
    assert samples[0].perturbed == ("a x", "a y")


def test_safeeraser_and_covubench_samples_follow_the_published_files(
    places: dict[str, Path],
) -> None:
    safe = open_benchmark(places, "safeeraser")
    unsafe, answered = safe.load("test"), safe.load("harmless")
    assert {s.task for s in unsafe} == {"unsafe"}
    assert {s.task for s in answered} == {"harmless"}
    # The same question, about the safe picture, whose answer is to be kept.
    assert [s.question for s in answered] == [s.question for s in unsafe] == ["How ?", "How ?"]
    assert not {s.picture.digest for s in answered} & {s.picture.digest for s in unsafe}
    assert (unsafe[0].answer, answered[0].answer) == ("So .", "Thus .")
    pairs = safe.load("retain")
    assert [(s.question, s.answer) for s in pairs[:2]] == [
        ("What is text1 ?", "a tree"),
        ("What is text2 ?", "a tree"),
    ]
    assert {s.picture.digest for s in pairs} == {s.picture.digest for s in unsafe}
    shared = open_benchmark(places, "covubench").load("forget")
    assert [s.task for s in shared[:3]] == ["generation", "caption", "generation"]
    assert [s.modality for s in shared[:3]] == ["vqa", "vqa", "text"]
    assert shared[0].keywords == ("baker",)
    content = open_benchmark(places, "covubench", ratio="10")
    names = {split: {s.concept for s in content.load(split)} for split in content.splits}
    # The published test and retain splits hold all concepts; what counts is cut out of them.
    assert names == {
        "forget": {"Ada Berg", "Bo Lind"},
        "test": {"Ada Berg", "Bo Lind"},
        "retain": {"Eva Quist", "Finn Urban"},
    }
    assert {s.concept for s in content.data().retain} == {
        "Cy Moser",
        "Di Novak",
        "Eva Quist",
        "Finn Urban",
    }


def test_covubench_reads_nested_keywords(copied: dict[str, Path]) -> None:
    path = copied["covubench"] / "data" / "forget5-00000-of-00001.parquet"
    for held, wanted in (('{"a": ["b", {"c": "d"}], "e": null}', ("b", "d")), (None, ())):
        replace_value(path, 0, "keywords", held)
        assert open_benchmark(copied, "covubench").load("forget")[0].keywords == wanted
    replace_value(path, 0, "keywords", "[7]")
    with pytest.raises(DataError, match=r"row 1: field 'keywords' holds 7; it must hold texts"):
        open_benchmark(copied, "covubench").load("forget")
