"""Run folders: opened, resumed, refused, and written atomically."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from unsee.errors import RunError
from unsee.files import write_atomically
from unsee.records.folder import RECIPE, REPORT, SCORES, SUMMARY, RunFolder
from unsee.records.provenance import peak_memory, provenance
from unsee.records.schema import SampleResult, Summary

ASKED = "# unsee demo\nseed: 0\n"


def test_open_resumes_the_same_recipe_and_keeps_results(tmp_path: Path) -> None:
    folder = RunFolder.open(tmp_path / "run", ASKED)
    assert folder.get_or_compute("a", lambda: {"x": 1}) == {"x": 1}
    again = RunFolder.open(tmp_path / "run", ASKED.replace("demo", "run demo.yaml"))
    assert again.get_or_compute("a", lambda: pytest.fail("made twice")) == {"x": 1}


def test_open_refuses_folders_in_use_and_leaves_them_alone(tmp_path: Path) -> None:
    run = tmp_path / "run"
    folder = RunFolder.open(run, ASKED)
    with pytest.raises(RunError, match="another recipe"):
        RunFolder.open(run, ASKED.replace("0", "1"))
    folder.get_or_compute("a", lambda: 1)
    folder.finish(Summary(schema=1))
    # Without its report the run is not done.
    RunFolder.open(run, ASKED)
    (run / REPORT).write_text("page")
    folder.remove_temporary_files()
    assert sorted(p.name for p in run.iterdir()) == [RECIPE, REPORT, SUMMARY]
    with pytest.raises(RunError, match="finished run"):
        RunFolder.open(run, ASKED)
    assert RunFolder.holds_finished(run, ASKED.replace("demo", "run demo.yaml"))
    assert not RunFolder.holds_finished(run, ASKED.replace("0", "1"))
    other = tmp_path / "photos"
    other.mkdir()
    (other / "a.txt").write_text("mine")
    with pytest.raises(RunError, match="not empty"):
        RunFolder.open(other, ASKED)
    with pytest.raises(RunError, match="is a file"):
        RunFolder.open(other / "a.txt", ASKED)
    assert [p.name for p in other.iterdir()] == ["a.txt"]


def test_write_scores_writes_one_line_a_question_and_model(tmp_path: Path) -> None:
    folder = RunFolder.open(tmp_path / "run", ASKED)
    first, second = (SampleResult(split="forget", id=sample) for sample in ("é", "2"))
    folder.write_scores({"target": [first], "unlearned": [second]})
    lines = (folder.path / SCORES).read_text("utf-8").splitlines()
    assert [json.loads(line) for line in lines] == [
        {"model": "target", "split": "forget", "id": "é"},
        {"model": "unlearned", "split": "forget", "id": "2"},
    ]


def test_write_atomically_keeps_the_old_file_when_it_fails(tmp_path: Path) -> None:
    path = tmp_path / "whole"
    path.mkdir()
    with pytest.raises(RunError, match="cannot be written"):
        write_atomically(path, "new")
    assert [p.name for p in tmp_path.iterdir()] == ["whole"]


def test_provenance_names_seed_device_and_hashes() -> None:
    found = provenance(3, "cpu", data_sha256="ab")
    assert (found.seed, found.device, found.data_sha256) == (3, "cpu", "ab")
    assert found.threads is not None and found.threads >= 1
    assert peak_memory() > 50_000_000
