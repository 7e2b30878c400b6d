"""MLUBench: requests in order, their files, and two of them answered in a row."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from support.cli import unsee
from support.published import open_benchmark
from unsee.benchmarks.mlubench import TASKS
from unsee.errors import ConfigError, DataError
from unsee.recipes.specs import parse_spec


def test_mlubench_samples_follow_the_released_files(places: dict[str, Path]) -> None:
    benchmark = open_benchmark(places, "mlubench")
    first, second, *_ = benchmark.load("forget")
    assert (first.question, first.answer, first.concept) == ("What is this ?", "Dog", "Dog")
    assert (second.question, second.answer) == ("Called ?", "It is Dog.")
    assert first.picture.path == (
        places["mlubench"] / "downloaded_images" / "Animals" / "Dog" / "image_0.jpg"
    )
    # The released ids come twice in a file; those of samples are of rows.
    assert (first.id, second.id) == ("taskA_forget/1", "taskA_forget/2")
    assert {s.concept for s in benchmark.load("forget")} == {"Dog", "Grey Wolf"}
    assert benchmark.metadata()["entities"] == 4


def test_mlubench_reports_the_requests_before_the_one_that_is_answered(
    places: dict[str, Path],
) -> None:
    reported = {task: open_benchmark(places, "mlubench", ratio=task).splits for task in TASKS}
    assert reported["A"] == ("forget", "retain")
    assert reported["C"] == ("forget", "retain", "forget_a", "retain_a", "forget_b", "retain_b")
    assert len(reported["D"]) == 8
    later = open_benchmark(places, "mlubench", ratio="C")
    first = open_benchmark(places, "mlubench", ratio="A")
    assert [s.id for s in later.load("forget_a")] == [s.id for s in first.load("forget")]
    assert {s.concept for s in later.data().forget} == {"Inception"}
    assert {s.concept for s in first.load("forget_d")} == {"Ada Berg"}
    assert parse_spec("mlubench:forget@D?task=B") == parse_spec("mlubench:forget@D?ratio=B")
    with pytest.raises(ConfigError, match="ratio=E is not published. Allowed: A, B, C, D"):
        open_benchmark(places, "mlubench", ratio="E")
    with pytest.raises(ConfigError, match="unknown option .task."):
        parse_spec("umu:forget@D?task=B")


def test_mlubench_finds_the_folder_of_the_released_zip_file(copied: dict[str, Path]) -> None:
    folder = copied["mlubench"]
    before = open_benchmark(copied, "mlubench").load("forget")
    (folder / "MLUBench").mkdir()
    (folder / "Tasks").rename(folder / "MLUBench" / "Tasks")
    after = open_benchmark(copied, "mlubench").load("forget")
    assert [s.picture.digest for s in after] == [s.picture.digest for s in before]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"image": "Dog/1.jpg"}, "field 'image' is 'Dog/1.jpg'; it must be .../CLASS/ENTITY/FILE"),
        ({"image": "x/Animals/Dog/no.jpg"}, "field 'image' is no picture: x/Animals/Dog/no.jpg"),
        ({"conversations": "Who ?"}, "field 'conversations' is 'Who ?', a str"),
        ({"conversations": [{"from": "human", "value": "Who ?"}]}, "it must be a question of"),
    ],
)
def test_mlubench_names_row_and_field_of_a_bad_record(
    copied: dict[str, Path], change: dict[str, object], message: str
) -> None:
    path = copied["mlubench"] / "Tasks" / "TaskA" / "taskA_forget.json"
    rows = json.loads(path.read_text())
    rows[1] |= change
    path.write_text(json.dumps(rows))
    with pytest.raises(DataError) as caught:
        open_benchmark(copied, "mlubench").load("forget")
    assert "taskA_forget.json, row 2: " in str(caught.value)
    assert message in str(caught.value)


def test_mlubench_suggests_the_nearest_field(copied: dict[str, Path]) -> None:
    path = copied["mlubench"] / "Tasks" / "TaskA" / "taskA_forget.json"
    rows = json.loads(path.read_text())
    rows[0]["conversation"] = rows[0].pop("conversations")
    path.write_text(json.dumps(rows))
    with pytest.raises(DataError, match="Did you mean 'conversation'"):
        open_benchmark(copied, "mlubench").load("forget")


def test_two_requests_are_answered_in_a_row(
    places: dict[str, Path], tiny_folder: Path, tmp_path: Path
) -> None:
    data = f"data={places['mlubench']}"
    settings = (data, f"model={tiny_folder}", "steps=1", "batch_size=2", "max_new_tokens=2")
    first = unsee(
        "run", "mlubench-a-llava-v1.6-7b", *settings, "--out", tmp_path / "a", "--json"
    )  # fmt: skip
    patch = f"patch={tmp_path / 'a' / 'patch'}"
    second = unsee(
        "run", "mlubench-b-llava-v1.6-7b", *settings, patch, "--out", tmp_path / "b", "--json"
    )
    assert [run["benchmark"]["ratio"] for run in (first, second)] == ["A", "B"]
    # The first request's sets are scored again after the second.
    own, again = first["measures"], second["measures"]
    assert {"forget_a/vqa/clean_refusal", "retain_a/vqa/rouge_l"} <= set(again)
    assert again["forget_a/vqa/rouge_l"]["n"] == own["forget/vqa/rouge_l"]["n"]
    assert again["forget_a/vqa/rouge_l"]["better"] == "lower"
    # Before the second request the model was as the first left it.
    assert second["target"]["forget_a/vqa/probability"]["value"] == pytest.approx(
        own["forget/vqa/probability"]["value"], rel=1e-4
    )
    both = [tmp_path / "a" / "patch", tmp_path / "b" / "patch"]
    unsee("apply", *both, "--model", tiny_folder, "--out", tmp_path / "model")
    unsee("apply", both[1], "--model", tiny_folder, "--out", tmp_path / "wrong", code=2)
