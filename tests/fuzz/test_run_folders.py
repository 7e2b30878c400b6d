"""Damaged run folders: reported, resumed and read, or refused in a short message.

A short run by default; `UNSEE_FUZZ=2000 pytest tests/fuzz/test_run_folders.py` makes a long one.
"""

from __future__ import annotations

import json
import random
import shutil
import tarfile
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from support.damage import JSON_VALUES, dump, fields, mixed, nested, odd_files, put, replaced
from support.fuzz import cases, check_refusal, command, snapshot
from support.report_record import make_run
from unsee.errors import UnseeError
from unsee.methods import METHODS
from unsee.progress import Bar, as_bar
from unsee.recipes.job import Job
from unsee.records.reader import Run
from unsee.runs.run import run
from unsee.training.settings import TrainingSettings
from unsee.types import Data

CASES = cases(4)
OLD_RUN = Path(__file__).parents[1] / "records" / "data" / "run-0.1.0.tar.xz"
FILES = ("summary.json", "train.jsonl", "scores.jsonl", "recipe.yaml", "environment.json")


@pytest.fixture(params=["sample", "0.1.0"])
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A finished run, in a folder of its own beside a file of somebody else."""
    top = tmp_path / "top"
    top.mkdir()
    (top / "secret.txt").write_text("a private key")
    if request.param == "sample":
        make_run(top / "run")
    else:
        with tarfile.open(OLD_RUN) as archive:
            archive.extractall(top / "run", filter="data")
    return top / "run"


def report(folder: Path) -> int:
    """Reports a run folder; the page is whole, or is not there."""
    page = folder.parent / "page.html"
    before = snapshot(folder.parent)
    code, message = command("report", folder, "-o", page)
    check_refusal(code, message, folder.name)
    after = snapshot(folder.parent)
    after.pop(str(page), None)
    assert after == before
    assert page.exists() == (code == 0)
    if code == 0:
        assert "a private key" not in page.read_text("utf-8")
        page.unlink()
    return code


def test_report_holds_the_law_for_every_field(folder: Path) -> None:
    """Each field of the record, and of a line of each log, is replaced by a value of any kind."""
    rng = random.Random(folder.name)
    for name in ("summary.json", "train.jsonl", "scores.jsonl"):
        path = folder / name
        whole = path.read_bytes()
        lines = [whole] if name == "summary.json" else whole.splitlines(keepends=True)
        content = json.loads(lines[0])
        paths = list(fields(content))
        for _ in range(CASES if name == "summary.json" else CASES // 4):
            damaged: Any = content
            for _ in range(rng.randint(1, 3)):
                at = rng.choice(paths)
                try:
                    damaged = replaced(damaged, at, rng.choice(JSON_VALUES))
                except (KeyError, IndexError, TypeError, ValueError):
                    continue  # An earlier replacement has taken this place away.
            first = dump(damaged)
            if rng.random() < 0.02:
                first = first.replace(b"null", nested(), 1)
            path.write_bytes(b"".join([first + b"\n" * (len(lines) > 1), *lines[1:]]))
            if name == "scores.jsonl":
                # Without a gallery, the report reads the scores.
                summary = json.loads((folder / "summary.json").read_text())
                (folder / "summary.json").write_text(json.dumps(summary | {"gallery": None}))
            report(folder)
        path.write_bytes(whole)


def test_report_holds_the_law_for_damaged_files(folder: Path) -> None:
    rng = random.Random(1)
    for _ in range(CASES):
        path = folder / rng.choice(FILES)
        whole = path.read_bytes()
        path.write_bytes(mixed(rng, whole))
        report(folder)
        path.write_bytes(whole)


@pytest.mark.parametrize("name", [*FILES, "pictures/0.png"])
def test_report_holds_the_law_for_odd_files(name: str, tmp_path: Path) -> None:
    secret = tmp_path / "secret.txt"
    secret.write_text("a private key")
    for number, make in enumerate(odd_files(secret).values()):
        folder = make_run(tmp_path / f"top{number}" / "run")
        put(folder / name, make)
        report(folder)


class Stop(Exception):
    """Ends a run as a kill does."""


@pytest.fixture
def job(tiny_folder: Path, data: Data) -> Job:
    """A job of a few short steps."""
    return Job(
        kind="unlearn",
        command="unsee unlearn",
        recipe="# unsee unlearn\nmodel: tiny\n",
        model=tiny_folder,
        data=Data(data.forget[:2], data.retain[:2]),
        splits={"forget": data.forget[:1]},
        method=METHODS.get("grad_diff")(),
        settings=TrainingSettings(steps=3, batch_size=1, save_every=1),
        forgetting=("forget",),
        metrics=("accuracy",),
        save="model",
        max_new_tokens=1,
    )


def stopped(job: Job, out: Path, last: str) -> None:
    """Runs a job until a stage of this name begins to work."""

    def stop(stage: str, done: int, total: int, terms: Mapping[str, float]) -> None:
        if stage.startswith(last) and done == 2 * stage.startswith("unlearning"):
            raise Stop

    with pytest.raises(Stop):
        run(job, out, as_bar(stop))


def run_or_refuse(job: Job, out: Path) -> Run | None:
    """Runs a job in a folder, or gets one message that names it."""
    message = ""
    try:
        return run(job, out, Bar(None))
    except UnseeError as error:
        message = str(error)
    assert out.name in message and len(message) < 1000, message
    return None


@pytest.mark.parametrize("last", ["unlearning", "asking"])
def test_run_resumes_or_names_what_is_damaged(last: str, job: Job, tmp_path: Path) -> None:
    """A run that goes on ends in the same bits, whatever was done to its folder."""
    unbroken = run(job, tmp_path / "whole", Bar(None))
    assert unbroken is not None and unbroken.summary.provenance is not None
    begun, secret = tmp_path / "begun", tmp_path / "secret.txt"
    stopped(job, begun, last)
    secret.write_text("a private key")
    rng = random.Random(last)
    kept = sorted(p for p in begun.rglob("*") if p.is_file() and "README" not in p.name)
    kept = [p for p in kept if not p.is_relative_to(begun / "model")]
    makers: list[Callable[[Path], None]] = list(odd_files(secret).values())
    for number in range(max(CASES // 4, 4)):
        out = tmp_path / f"run{number}"
        shutil.copytree(begun, out)
        path = out / rng.choice(kept).relative_to(begun)
        if rng.random() < 0.3:
            put(path, rng.choice(makers))
        else:
            path.write_bytes(mixed(rng, path.read_bytes()))
        again = run_or_refuse(job, out)
        if again is not None:
            assert again.summary.provenance is not None, path
            key = "result_weights_sha256"
            assert getattr(again.summary.provenance, key) == getattr(
                unbroken.summary.provenance, key
            ), path
            assert again.summary.measures == unbroken.summary.measures, path
        assert secret.read_text() == "a private key"
        shutil.rmtree(out)


def test_finished_runs_of_damaged_folders_are_named_or_read(job: Job, tmp_path: Path) -> None:
    out = tmp_path / "out"
    job = replace(job, method=None)
    run(job, out, Bar(None))
    rng = random.Random(3)
    for _ in range(max(CASES // 2, 4)):
        path = out / rng.choice(["summary.json", "recipe.yaml", "environment.json", "scores.jsonl"])
        whole = path.read_bytes()
        path.write_bytes(mixed(rng, whole))
        run_or_refuse(job, out)
        path.write_bytes(whole)


def test_report_names_a_folder_that_is_no_run(tmp_path: Path) -> None:
    for name, make in odd_files(tmp_path / "none").items():
        path = tmp_path / name
        make(path)
        code, message = command("report", path, "-o", tmp_path / "page.html")
        check_refusal(code, message, path.name)
        assert code == 2
