"""The target model is asked first, and tests against the reference are recorded."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path

import pytest

from unsee.attacks.relearn import Relearn
from unsee.evaluation.headroom import chance, check_headroom
from unsee.methods.grad_diff import GradDiff
from unsee.progress import Bar
from unsee.recipes.job import Job
from unsee.records.reader import read_run
from unsee.runs.run import run
from unsee.training.settings import TrainingSettings
from unsee.types import Data, Sample


def test_check_headroom_compares_the_target_with_the_floor() -> None:
    check = check_headroom("m", 0.3, 0.1, "reference", required=0.2)
    assert check.enough and check.headroom == pytest.approx(0.2)
    assert not check_headroom("m", 0.29, 0.1, "reference", required=0.2).enough


def test_chance_counts_questions_with_options_alone() -> None:
    options = Sample("1", "", "A", choices=("A", "B"), task="classification")
    assert chance([options, Sample("2", "", "x", choices=("a", "b"))]) == 0.25
    assert chance([]) == 0.0


def test_run_of_a_benchmark_asks_the_target_first(
    tiny_folder: Path, data: Data, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The tiny model knows nobody: the run says so before it trains, and in its record."""
    stages: list[str] = []

    class Stages(Bar):
        def stage(self, name: str) -> Bar:
            stages.append(name)
            return self

    job = Job(
        kind="run",
        command="unsee run",
        recipe="# unsee run\nmethod: grad_diff\n",
        model=tiny_folder,
        data=data,
        splits={"forget": data.forget, "forget_holdout": data.forget[:4]},
        method=GradDiff(),
        settings=TrainingSettings(steps=1, batch_size=2),
        attacks=[(Relearn(share=1.0, steps=1, batch_size=2),)],
        references={"target": tiny_folder, "reference": tiny_folder},
        forgetting=("forget", "forget_holdout"),
        metrics=("accuracy", "probability"),
        max_new_tokens=2,
        benchmark={"name": "own"},
        save="model",
    )
    with caplog.at_level(logging.WARNING, "unsee"):
        run(job, tmp_path / "run", Stages(None))
    assert stages.index("asking the target model") < stages.index("unlearning (grad_diff)")
    assert stages.count("asking the target model") == 1
    assert "it knows too little of what is to be forgotten" in caplog.text
    summary = read_run(tmp_path / "run").summary
    assert summary.learned is not None and not summary.learned.enough
    assert summary.learned.floor_of == "reference"
    tests = summary.equivalence or ()
    assert {test.measure for test in tests if not test.attack} == set(summary.measures or ())
    (attacked,) = [test for test in tests if test.attack]
    assert attacked.attack == "relearn?share=1.0&steps=1&batch_size=2"
    assert attacked.people == len({sample.concept for sample in data.forget[:4]})
    assert "relearn" not in (summary.not_attacked or ())
    point = summary.relearn[0].curve("unlearned")[0]
    assert point.by_person.keys() == {sample.concept for sample in data.forget[:4]}
    assert summary.relearn[0].worst_step is not None
    # Asking first changes nothing that is trained.
    alone = replace(job, benchmark=None, recipe="# unsee run\nmethod: other\n")
    run(alone, tmp_path / "alone", Bar(None))
    hashes = [
        provenance.result_weights_sha256
        for folder in ("run", "alone")
        if (provenance := read_run(tmp_path / folder).summary.provenance) is not None
    ]
    assert len(hashes) == 2 and hashes[0] == hashes[1]
