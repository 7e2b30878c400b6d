"""Disks that are full while a log, a state or a result is written: one sentence, and exit 2."""

from __future__ import annotations

import errno
import io
import os
from contextlib import redirect_stderr
from pathlib import Path

import pytest

from unsee.cli import main
from unsee.errors import RunError
from unsee.files import append_text, make_folder
from unsee.records.folder import RunFolder
from unsee.records.schema import SampleResult
from unsee.studies.processes import Task, run_in_processes
from unsee.training.state import TrainingHistory, TrainingLog

FULL = Path("/dev/full")

pytestmark = pytest.mark.skipif(not FULL.exists(), reason="no /dev/full")


def test_append_text_on_a_full_disk_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="/dev/full cannot be written .*No space left.*same command"):
        append_text(FULL, "a line\n")
    (tmp_path / "a").write_text("")
    with pytest.raises(RunError, match="b cannot be written"):
        make_folder(tmp_path / "a" / "b")


def test_training_log_and_scores_on_a_full_disk_name_the_file(tmp_path: Path) -> None:
    (tmp_path / "scores.jsonl").symlink_to(FULL)
    (tmp_path / "train.jsonl").symlink_to(FULL)
    log = TrainingLog(tmp_path / "train.jsonl")
    with pytest.raises(RunError, match=r"train\.jsonl cannot be written .*No space left"):
        log.append(TrainingHistory(steps=1, last={"forget": 1.0}), 0.1)
    folder = RunFolder(tmp_path)
    with pytest.raises(RunError, match=r"scores\.jsonl cannot be written .*No space left"):
        folder.append_scores("target", [SampleResult(split="forget", id="1")])


def test_main_says_in_a_sentence_that_a_disk_is_full(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*arguments: object, **options: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "runs/a/log")

    monkeypatch.setattr("unsee.cli._group", lambda: full)
    errors = io.StringIO()
    with redirect_stderr(errors), pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2
    assert errors.getvalue() == (
        "unsee: runs/a/log: cannot be written (No space left on device). Free some space and type "
        "the same command again.\n"
    )


def _print_a_lot() -> None:
    print("x" * 100_000)


def test_run_in_processes_survives_a_full_disk(tmp_path: Path) -> None:
    logs = tmp_path / "logs"
    logs.mkdir()
    (logs / "prints.log").symlink_to(FULL)
    failed = run_in_processes({"prints": Task(_print_a_lot, ())}, 1, logs)
    assert "the disk is full. Free some space" in failed["prints"]
