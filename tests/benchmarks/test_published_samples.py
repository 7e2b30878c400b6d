"""Samples of CLEAR, UMU-Bench, FIUBench, SafeEraser and CoVUBench."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

import pytest

from support.published import (
    NAMES,
    config,
    open_benchmark,
    png,
    read_lines,
    replace_value,
    write_lines,
)
from unsee.benchmarks import BENCHMARKS
from unsee.data.archives import MAX_MEMBER
from unsee.errors import DataError
from unsee.report.embedded_images import embed
from unsee.types import Picture


def test_clear_samples_follow_the_published_files(places: dict[str, Path]) -> None:
    forget = {s.id: s for s in open_benchmark(places, "clear").load("forget")}
    caption = forget["caption/00000/1"]
    assert caption.question == "What can you see in this picture?"
    assert caption.paraphrases == ("Ada Berg at 0",)
    assert caption.perturbed == ("x in y", "z in y")
    name = forget["name/00000/1"]
    assert name.question.startswith("What is the name of the person in the image?\nA: ")
    assert name.choices["ABCDEF".index(name.answer)] == "Ada Berg"
    assert sorted(name.choices) == sorted(NAMES)
    assert name.question.splitlines()[1:] == [
        f"{letter}: {choice}" for letter, choice in zip("ABCDEF", name.choices, strict=True)
    ]
    text = forget["text/00000/10"]
    assert (text.question, text.concept, text.picture) == ("What is Ada Berg ?", "Ada Berg", None)
    (face,) = open_benchmark(places, "clear").load("real_faces")
    assert face.question == "The name of the person on the image is "
    assert (face.task, face.answer, face.perturbed) == ("ranking", "Di", ("Bo", "Cy"))
    assert sorted(face.choices) == ["Bo", "Cy", "Di"]
    counts = [len(open_benchmark(places, "clear", ratio=r).data().forget) for r in ("1", "5", "10")]
    assert counts == [4, 8, 12]


def test_umu_groups_a_fact_over_modalities(places: dict[str, Path]) -> None:
    samples = open_benchmark(places, "umu").load("forget")
    groups: dict[str, set[str]] = {}
    for sample in samples:
        groups.setdefault(str(sample.group), set()).add(sample.modality)
    assert set(map(frozenset, groups.values())) == {frozenset({"vqa", "text"})}
    choice = next(s for s in samples if s.task == "classification")
    assert (choice.answer, choice.choices) == ("baker", ("baker", "pilot", "nurse", "judge"))
    assert choice.question == ("Ada Berg ?\nSelect answer in ['baker', 'pilot', 'nurse', 'judge']")
    gap = next(s for s in samples if s.task == "cloze")
    assert gap.question == (
        "Ada Berg ?\nPlease **ONLY** provide the correct answer without any explanation"
    )


def test_fiubench_groups_paraphrased_questions(places: dict[str, Path]) -> None:
    samples = open_benchmark(places, "fiubench", ratio="1").load("forget")
    assert [s.question for s in samples] == ["What does this person work as ?", "A ?", "B ?", "C ?"]
    assert {s.group for s in samples} == {"u0/0"}
    assert samples[0].keywords == ("baker",)
    assert samples[0].perturbed == ("a x", "a y")


def test_fiubench_counts_the_first_400_of_573_people(tmp_path: Path) -> None:
    folder = tmp_path / "dataset"
    folder.mkdir()
    question = {
        "question": "where does Ada LIVE?",
        "answer": "Ada lives in OSLO.",
        "keywords": ["Oslo"],
        "paraphrased_question": ["in which TOWN?", "x?", "y?"],
        "paraphrased_answer": "in OSLO she lives",
        "perturbed_answer": ["ada lives in LIMA.", "she lives in BONN."],
    }
    people = [
        {"unique_id": f"{i:08}", "image_path": f"./dataset/SFHQ/{i}.png", "qa_list": [question]}
        for i in range(573)
    ]
    write_lines(folder / "full.json", people)
    split = {
        "forget1": ["00000001"],
        "forget5": ["00000002", "00000003", "00000400"],
        "forget10": ["00000004"],
        "retain15": ["00000005", "00000399"],
    }
    (folder / "split.json").write_text(json.dumps(split))
    with zipfile.ZipFile(folder / "SFHQ.zip", "w") as file:
        for i in range(573):
            file.writestr(f"SFHQ/{i}.png", png(i))
    benchmark = BENCHMARKS.get("fiubench").open(folder)
    assert benchmark.metadata()["people"] == 400
    assert {s.concept for s in benchmark.load("forget")} == {"00000002", "00000003"}
    assert {s.concept for s in benchmark.load("retain")} == {"00000005", "00000399"}
    first = benchmark.load("forget")[0]
    # Texts as str.capitalize writes them, but for the answers that stand in a list.
    assert (first.question, first.answer) == ("Where does ada live?", "Ada lives in oslo.")
    assert benchmark.load("forget")[1].question == "In which town?"
    assert first.paraphrases == ("In oslo she lives",)
    assert first.perturbed == ("ada lives in LIMA.", "she lives in BONN.")
    assert first.picture is not None
    assert first.picture.source == f"{folder / 'SFHQ.zip'}#SFHQ/2.png"
    assert embed(first.picture.source, tmp_path).width == 24
    assert first.picture.digest == Picture("x", data=png(2)).digest


@pytest.mark.parametrize("place", ["SFHQ/0.png", "0.png", "dataset/SFHQ/0.png"])
def test_fiubench_reads_unpacked_pictures(copied: dict[str, Path], place: str) -> None:
    folder = copied["fiubench"]
    (folder / "SFHQ.zip").unlink()
    (folder / place).parent.mkdir(parents=True, exist_ok=True)
    (folder / place).write_bytes(png(0))
    (sample, *_) = open_benchmark(copied, "fiubench", ratio="1").load("forget")
    assert sample.picture is not None
    assert sample.picture.path == folder / place


def test_fiubench_names_pictures_that_cannot_be_read(copied: dict[str, Path]) -> None:
    folder = copied["fiubench"]

    def message() -> str:
        with pytest.raises(DataError) as caught:
            open_benchmark(copied, "fiubench", ratio="1").load("forget")
        return str(caught.value)

    with zipfile.ZipFile(folder / "SFHQ.zip", "w") as file:
        file.writestr("SFHQ/1.png", png(1))
    (folder / "gone.zip").symlink_to(folder / "nowhere.zip")
    assert "row 1: field 'image_path' is no picture: ./dataset/SFHQ/0.png: no such" in message()
    assert "zip file there (SFHQ.zip)" in message()
    with zipfile.ZipFile(folder / "SFHQ.zip", "w") as file:
        file.writestr("a/0.png", png(0))
        file.writestr("b/0.png", png(0))
    assert "has several members for './dataset/SFHQ/0.png': a/0.png and b/0.png" in message()
    (folder / "SFHQ.zip").write_bytes(b"PK\3\4 no")
    assert "SFHQ.zip: is not a readable zip file" in message()
    with zipfile.ZipFile(folder / "SFHQ.zip", "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("SFHQ/0.png", bytes(MAX_MEMBER + 1))
    assert f"has {MAX_MEMBER + 1:,} bytes unpacked; at most {MAX_MEMBER:,} are read" in message()
    content = bytearray((folder / "SFHQ.zip").read_bytes())
    content[60:80] = bytes(20)
    (folder / "SFHQ.zip").write_bytes(content)
    assert "SFHQ.zip" in message()


def test_json_lines_name_the_bad_line(copied: dict[str, Path]) -> None:
    path = copied["fiubench"] / "full.json"
    rows = read_lines(path)
    path.write_text(json.dumps(rows))
    assert len(open_benchmark(copied, "fiubench").load("forget")) == 8
    split = copied["fiubench"] / "split.json"
    known = split.read_text()
    split.write_text(json.dumps({name: ["u0"] for name in ("forget5", "retain15")}))
    path.write_text(json.dumps(rows[0]))
    assert len(open_benchmark(copied, "fiubench").load("forget")) == 4
    split.write_text(known)
    # A line separator of Unicode inside of a text ends no line.
    rows[1]["caption"] = "a\u2028b"
    path.write_text("\n\n".join(json.dumps(row, ensure_ascii=False) for row in rows), "utf-8")
    assert len(open_benchmark(copied, "fiubench").load("forget")) == 8
    path.write_text(path.read_text("utf-8") + "\n{broken", "utf-8")
    with pytest.raises(DataError, match="full.json, line 12: is not JSON"):
        open_benchmark(copied, "fiubench").load("forget")


def test_clear_choices_follow_the_number_of_false_names(copied: dict[str, Path]) -> None:
    path = config(copied["clear"], "forget10_perturbed")
    replace_value(path, 0, "perturbed_names", [f"N{i}" for i in range(25)])
    replace_value(path, 1, "perturbed_names", ["N0"])
    samples = {s.id: s for s in open_benchmark(copied, "clear").load("forget")}
    many, two = samples["name/00000/1"], samples["name/00000/2"]
    assert (len(many.choices), len(two.choices)) == (26, 2)
    assert "Z: " in many.question
    places = [
        s.choices.index("Ada Berg")
        for s in samples.values()
        if s.concept == "Ada Berg" and s.choices
    ]
    assert len(set(places)) > 1
    replace_value(path, 0, "perturbed_names", [f"N{i}" for i in range(26)])
    with pytest.raises(DataError, match="row 1: field 'perturbed_names' has 26 names"):
        open_benchmark(copied, "clear").load("forget")
    # Older copies of the data have the true answer among the options.
    faces = config(copied["clear"], "real_faces")
    replace_value(faces, 0, "options", ["Bo", "Di"])
    (face,) = open_benchmark(copied, "clear").load("real_faces")
    assert (face.choices, face.perturbed) == (("Bo", "Di"), ("Bo",))
    replace_value(faces, 0, "options", ["Di"])
    with pytest.raises(DataError, match="field 'options' has no other answer than 'Di'"):
        open_benchmark(copied, "clear").load("real_faces")


def test_safeeraser_accepts_both_published_forms(copied: dict[str, Path]) -> None:
    folder = copied["safeeraser"]
    before = open_benchmark(copied, "safeeraser").load("forget")
    rows = json.loads((folder / "all_train.json").read_text())
    (folder / "weapon").mkdir()
    for row in rows:
        moved = folder / "weapon" / Path(row["image_path"]).name
        (folder / row.pop("image_path")).rename(moved)
        row["image_id"] = f"./dataset/weapon/{moved.name}"
        del row["category"]
    (folder / "all_train.json").write_text(json.dumps(rows))
    after = open_benchmark(copied, "safeeraser").load("forget")
    assert [s.picture.digest for s in after] == [s.picture.digest for s in before]
    assert {s.concept for s in after} == {"weapon"}
    # The scorers' output names the same picture twice.
    rows[0]["image_path"], rows[0]["category"] = rows[0]["image_id"], "arms"
    rows[1]["image_id"] = f"{Path(rows[1]['image_id']).name}"
    (folder / "all_train.json").write_text(json.dumps(rows))
    with pytest.raises(DataError) as caught:
        open_benchmark(copied, "safeeraser").load("forget")
    assert "row 2: field 'category' is missing, and the picture is in no folder" in str(
        caught.value
    )
    del rows[1]["image_id"]
    (folder / "all_train.json").write_text(json.dumps(rows))
    with pytest.raises(DataError, match=r"row 2: field 'image_path' is missing"):
        open_benchmark(copied, "safeeraser").load("forget")


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
