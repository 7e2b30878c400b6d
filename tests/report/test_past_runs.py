"""The list of past runs: every state, the newest first, and nothing that a damaged record stops."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tarfile
import time
from pathlib import Path

import pytest

from support import ROOT
from support.cli import unsee
from unsee.errors import RunError
from unsee.report.past_runs import list_runs

OLD = ROOT / "tests" / "records" / "data" / "run-0.1.0.tar.xz"

WRITES = """
import sys
from pathlib import Path
from unsee.records.lock import exclusive
with exclusive(Path(sys.argv[1])):
    print("locked", flush=True)
    input()
"""


def finished(folder: Path, **changed: object) -> Path:
    """The kept record of a run of 0.1.0, as a finished run folder."""
    folder.mkdir(parents=True)
    with tarfile.open(OLD) as archive:
        archive.extractall(folder, filter="data")
    (folder / "report.html").write_text("<!doctype html>")
    path = folder / "summary.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changed}))
    return folder


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    finished(tmp_path / "old", created="2024-01-01T00:00:00+00:00")
    finished(tmp_path / "study" / "npo" / "seed-0", created="2025-01-01T00:00:00+00:00")
    stopped = tmp_path / "stopped"
    stopped.mkdir()
    (stopped / "recipe.yaml").write_text("# unsee unlearn --model m --forget f\nmethod: npo\n")
    os.utime(stopped / "recipe.yaml", (1e9, 1e9))
    return tmp_path


def test_list_runs_has_every_state_and_the_newest_first(runs: Path) -> None:
    first, second, third = list_runs(runs)
    assert [first.name, second.name, third.name] == ["study/npo/seed-0", "old", "stopped"]
    assert (first.state, first.kind, first.method, first.benchmark) == (
        *("finished", "demo", "vkd"),
        "pocket",
    )
    assert first.verdict.startswith("Forgotten")
    assert first.forget is not None
    assert first.forget.before is not None
    assert first.forget.measure == "forget_holdout/vqa/accuracy"
    assert first.forget.value < first.forget.before
    assert first.seconds is not None
    assert (third.state, third.kind, third.method) == ("resumable", "unlearn", "npo")
    assert third.command == "unsee unlearn --model m --forget f"
    assert third.created == "2001-09-09T01:46:40+00:00"


def test_list_runs_tells_a_running_run_from_a_killed_one(runs: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", WRITES, str(runs / "stopped")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == b"locked\n"
    before = sorted((runs / "stopped").iterdir())
    assert {run.state for run in list_runs(runs) if run.name == "stopped"} == {"running"}
    listed = {entry["name"]: entry["state"] for entry in unsee("runs", runs, "--json")}
    assert listed == {"old": "finished", "study/npo/seed-0": "finished", "stopped": "running"}
    process.kill()
    process.communicate()
    assert {run.state for run in list_runs(runs) if run.name == "stopped"} == {"resumable"}
    assert sorted((runs / "stopped").iterdir()) == before


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"{", "is no JSON"),
        (b"[]", "not a JSON object"),
        (b"\xff\xfe", "cannot be read"),
        (b'{"schema": 9}', "schema 9"),
        (b'{"schema": 1, "measures": 3}', "'measures'"),
        (b"[" * 100_000, "is no JSON"),
    ],
)
def test_list_runs_names_what_is_damaged(runs: Path, content: bytes, reason: str) -> None:
    (runs / "old" / "summary.json").write_bytes(content)
    (damaged,) = (run for run in list_runs(runs) if run.name == "old")
    assert damaged.state == "unreadable"
    assert reason in damaged.reason
    assert len(list_runs(runs)) == 3


def test_list_runs_reads_neither_pipes_nor_links(runs: Path) -> None:
    (runs / "old" / "summary.json").unlink()
    os.mkfifo(runs / "old" / "summary.json")
    (runs / "again").symlink_to(runs / "study")
    states = {run.name: run.state for run in list_runs(runs)}
    assert states == {"old": "unreadable", "study/npo/seed-0": "finished", "stopped": "resumable"}


def test_list_runs_takes_a_run_folder_and_refuses_a_missing_one(runs: Path) -> None:
    (run,) = list_runs(runs / "old")
    assert run.name == "old"
    with pytest.raises(RunError, match="there is no such folder"):
        list_runs(runs / "nothing")


def test_list_runs_is_quick_for_hundreds(tmp_path: Path) -> None:
    first = finished(tmp_path / "0")
    for number in range(1, 300):
        folder = tmp_path / str(number)
        folder.mkdir()
        for name in ("summary.json", "report.html"):
            os.link(first / name, folder / name)
    before = time.process_time()
    assert len(list_runs(tmp_path)) == 300
    assert time.process_time() - before < 2


def test_runs_command_prints_a_table_and_json(runs: Path) -> None:
    (runs / "old" / "summary.json").write_text("{")
    lines = unsee("runs", runs).splitlines()
    assert len(lines) == 5
    assert lines[0].split()[:2] == ["name", "date"]
    assert lines[2].startswith("study/npo/seed-0  2025-01-01 00:00  demo")
    assert lines[-1].startswith("old: ")
    listed = unsee("runs", runs, "--json")
    assert {entry["state"] for entry in listed} == {"finished", "resumable", "unreadable"}
    assert "no such folder" in unsee("runs", runs / "nothing", code=2)


def test_runs_command_says_that_there_are_none(tmp_path: Path) -> None:
    assert "No runs in" in unsee("runs", tmp_path)
    assert unsee("runs", tmp_path, "--json") == []
