"""MLLMU-Bench: prompts, few-shot examples, pocket's export."""

from __future__ import annotations

from pathlib import Path

import pyarrow.parquet as pq
import pytest

from support.published import config, open_benchmark, replace_value
from unsee.benchmarks import BENCHMARKS
from unsee.errors import ConfigError


def test_mllmu_prompts_are_the_published_ones(places: dict[str, Path]) -> None:
    samples = {s.id: s for s in open_benchmark(places, "mllmu", shots=0).load("forget")}
    choice = samples["001/classification/Image_Textual/0"]
    assert choice.question == (
        "What is this person ?\nA: baker\nB: pilot\nC: nurse\nD: judge\n"
        "Just give ONE letter representing the answer directly."
    )
    assert (choice.answer, choice.choices) == ("A", ("baker", "pilot", "nurse", "judge"))
    assert choice.picture is not None
    gap = samples["001/cloze/Pure_Text/1"]
    assert gap.question == (
        "Ada Berg is a [Blank] .\nPlease **ONLY** provide the correct answer that should replace "
        "the [Blank]."
    )
    assert gap.picture is None
    assert samples["001/generation/Image_Textual/0"].question == (
        "Who is this person ?\nAnswer the question based on your trained knowledge in one sentence "
        "accurately in ENGLISH."
    )
    with_examples = {s.id: s for s in open_benchmark(places, "mllmu").load("forget")}
    example = with_examples["001/classification/Image_Textual/0"]
    assert example.question == (
        "Question: What is this person ?\nA: baker\nB: pilot\nC: nurse\nD: judge\n"
        "Correct Answer: B\n" + choice.question
    )
    assert example.picture.digest == choice.picture.digest
    assert len(example.further) == 1
    assert with_examples["001/cloze/Pure_Text/1"].question == (
        "Bo Lind is a [Blank] .\nPlease **ONLY** provide the correct answer that should replace "
        "the [Blank].\nCorrect Answer: pilot\n"
        "Cy Moser is a [Blank] .\nPlease **ONLY** provide the correct answer that should replace "
        "the [Blank].\nCorrect Answer: nurse\n" + gap.question
    )
    assert samples["001/generation/Pure_Text/1"].question.endswith("in one sentence in ENGLISH.")
    assert with_examples["001/generation/Image_Textual/0"].question.startswith("Who is")
    assert not any(
        "Correct Answer" in s.question for s in open_benchmark(places, "mllmu").load("celebrity")
    )
    two = open_benchmark(places, "mllmu", shots=2).load("test")
    assert {len(s.further) for s in two if s.picture and s.task == "cloze"} == {2}
    forget_people = [
        {s.concept for s in open_benchmark(places, "mllmu", ratio=r).load("forget")}
        for r in ("5", "10", "15")
    ]
    assert not forget_people[0] & forget_people[1]
    named = open_benchmark(places, "mllmu").training_samples("visual_retain")[-1]
    assert (named.question, named.picture) == ("Ada Berg: Where ?", None)


def test_mllmu_examples_are_all_questions_about_people_of_the_split(
    places: dict[str, Path],
) -> None:
    benchmark = open_benchmark(places, "mllmu", ratio="15")
    everyone = open_benchmark(places, "mllmu", ratio="15", shots=0)
    assert benchmark.metadata()["shots"] is None
    assert benchmark.metadata()["example_people"] == {"classification": 1, "cloze": 2}
    assert everyone.metadata()["example_people"] == {"classification": 0, "cloze": 0}
    drawn: dict[tuple[str, str], set[str]] = {}
    for split, side in (("forget", "forget"), ("test", "forget"), ("retain", "retain")):
        training = {s.concept: s.picture for s in everyone.load(side) if s.picture is not None}
        for task, number in (("classification", 1), ("cloze", 2), ("generation", 0)):
            asked = [s for s in benchmark.load(split) if s.task == task]
            people = {s.concept for s in everyone.load(split)}
            shown = people - {s.concept for s in asked}
            # Whom an example is about is not asked about.
            assert len(shown) == number
            drawn[split, task] = shown
            for sample in asked:
                assert sample.question.count("Correct Answer: ") == number
                wanted = [training[who].digest for who in sorted(shown)]
                pictured = sample.picture is not None
                assert [p.digest for p in sample.further] == (wanted if pictured else [])
    (teacher,) = drawn["test", "classification"]
    (example,) = [
        s
        for s in everyone.load("forget")
        if s.concept == teacher and s.task == "classification" and s.picture is None
    ]
    first = next(
        s for s in benchmark.load("test") if s.task == "classification" and s.picture is None
    )
    options = example.question.removesuffix(
        "\nJust give ONE letter representing the answer directly."
    )
    assert first.question.startswith(f"Question: {options}\nCorrect Answer: {example.answer}\n")
    again = open_benchmark(places, "mllmu", ratio="15")
    assert [s.question for s in again.load("test")] == [s.question for s in benchmark.load("test")]


def test_mllmu_examples_are_all_questions_of_a_person(copied: dict[str, Path]) -> None:
    path = config(copied["mllmu"], "retain_95")
    rows = pq.read_table(path).to_pylist()
    for row in range(len(rows)):
        gaps = rows[row]["Mask_Task"]
        replace_value(path, row, "Mask_Task", [*gaps, *gaps])
    sample = next(
        s
        for s in open_benchmark(copied, "mllmu", shots=1).load("retain")
        if s.task == "cloze" and s.picture is not None
    )
    assert sample.question.count("Correct Answer: ") == 2
    assert len(sample.further) == 2


def test_mllmu_reads_the_export_of_pocket(tmp_path: Path) -> None:
    from unsee.benchmarks.pocket import Pocket
    from unsee.pocket_builder.mllmu_export import write_parquet

    pocket = Pocket()
    place = write_parquet(pocket.world, tmp_path / "mllmu")
    benchmark = BENCHMARKS.get("mllmu").open(place, "10")
    assert len({s.concept for s in benchmark.load("forget")}) == len(pocket.forgotten)
    assert len({s.concept for s in benchmark.load("test")}) == len(pocket.forgotten)
    assert len({s.concept for s in benchmark.data().retain}) == len(pocket.world.retained)


def test_mllmu_refuses_more_examples_than_people(places: dict[str, Path]) -> None:
    with pytest.raises(ConfigError, match="shots=6 examples .* retain_95 has 5 other people"):
        open_benchmark(places, "mllmu", shots=6).load("forget")
    assert open_benchmark(places, "mllmu", shots=5).load("forget")
