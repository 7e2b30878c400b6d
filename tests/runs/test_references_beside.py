"""References that a second process asks and attacks while the first one trains."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from unsee.progress import Bar
from unsee.recipes.job import Job
from unsee.recipes.plan import plan
from unsee.recipes.unlearn import make_recipe
from unsee.records.folder import PARTS, RECIPE, RunFolder
from unsee.runs.references_beside import CACHE, asked_beside
from unsee.runs.run import run

ATTACKS = [{"share": 1.0, "modules": "visual", "steps": 1}, "quantize"]


@pytest.fixture
def two_threads() -> Iterator[None]:
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(1)


@pytest.fixture
def job(cut: Path) -> Job:
    values = {"steps": 1, "batch_size": 4, "relearn_steps": 0}
    return plan(make_recipe({"data": str(cut), "set": values, "attacks": ATTACKS}), "run", "")[0]


def cached(out: Path) -> list[Path]:
    return list((out / PARTS / CACHE).glob("*.json"))


@pytest.mark.timeout(600)
@pytest.mark.usefixtures("two_threads")
def test_second_process_leaves_only_the_unlearned_model_to_the_first(
    job: Job, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun = tmp_path / "begun"
    RunFolder.open(begun, job.recipe)
    # Scores, and before and after each attack; the target is not relearned.
    expected = 5 * len(job.references) - 2
    with asked_beside(job, begun) as shared:
        assert shared is not None and torch.get_num_threads() == 1
        while len(cached(begun)) < expected:
            time.sleep(0.05)
    assert torch.get_num_threads() == 2
    assert {path.name for path in begun.iterdir()} == {RECIPE, PARTS}
    loaded: list[object] = []
    real = Job.load

    def load(self: Job, source: Any) -> Any:
        loaded.append(source)
        return real(self, source)

    monkeypatch.setattr(Job, "load", load)
    torch.set_num_threads(1)
    assert run(job, tmp_path / "run", Bar(None), cache=begun / PARTS / CACHE) is not None
    assert loaded == [job.model]


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.usefixtures("two_threads")
def test_run_with_a_second_process_records_the_same(job: Job, tmp_path: Path) -> None:
    again = run(job, tmp_path / "again", Bar(None), beside=True)
    assert torch.get_num_threads() == 2
    torch.set_num_threads(1)
    made = run(job, tmp_path / "alone", Bar(None))
    assert made is not None and again is not None
    for part in ("measures", "target", "reference", "retain_only"):
        assert getattr(made.summary, part) == getattr(again.summary, part)
    attacks = [one.summary.attacks for one in (made, again)]
    assert attacks[0] is not None and attacks[1] is not None
    assert attacks[0].relearn == attacks[1].relearn
    assert not (tmp_path / "again" / PARTS).exists()


@pytest.mark.usefixtures("two_threads")
def test_run_goes_on_if_the_second_process_fails(
    job: Job, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    script = tmp_path / "fails"
    script.write_text(f"#!/bin/sh\necho no memory >&2\ntouch {tmp_path / 'said'}\nexit 1\n")
    script.chmod(0o755)
    with monkeypatch.context() as patched, caplog.at_level(logging.WARNING, "unsee"):
        patched.setattr(sys, "executable", str(script))
        with asked_beside(job, tmp_path / "run") as shared:
            assert shared is not None
            while not (tmp_path / "said").exists():
                time.sleep(0.05)
            time.sleep(0.5)
    assert "failed (no memory). They were asked afterwards." in caplog.text


def test_one_core_asks_nothing_beside(job: Job, tmp_path: Path) -> None:
    with asked_beside(job, tmp_path) as shared:
        assert shared is None
