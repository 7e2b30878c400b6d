"""Experiment trackers: names, missing packages, and what TensorBoard reads back."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from unsee.errors import CallbackError, ConfigError, UnknownNameError
from unsee.records.schema import Measure, Summary
from unsee.training import tracking
from unsee.training.loop import StepReport
from unsee.training.tracking import Tracked, opened_trackers, require_trackers, tracker_names

KEY = "forget/vqa/accuracy"


def report(step: int, forget: float) -> StepReport:
    losses = {"forget": forget, "retain": 1.0}
    return StepReport(step, 4, losses, lr=0.1 * step, gradient_norm=2.0, seconds=1.0)


def scalars(folder: Path) -> dict[str, list[tuple[int, float]]]:
    read = EventAccumulator(str(folder))
    read.Reload()
    return {
        tag: [(event.step, pytest.approx(event.value)) for event in read.Scalars(tag)]
        for tag in read.Tags()["scalars"]
    }


def test_tracker_names_takes_text_and_lists() -> None:
    assert tracker_names(None) is tracker_names("") is None
    assert tracker_names(" wandb, tensorboard,wandb ") == "wandb,tensorboard"
    assert tracker_names(("trackio",)) == "trackio"
    with pytest.raises(UnknownNameError, match="tensorbord.*Did you mean 'tensorboard'"):
        tracker_names("tensorbord")
    with pytest.raises(ConfigError, match="log_with=3"):
        tracker_names(3)


def test_require_trackers_names_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(tracking.TRACKERS, "wandb", ("no_such_module", "wandb"))
    with pytest.raises(ConfigError, match=r"no_such_module.*pip install wandb"):
        require_trackers(["tensorboard", "wandb"])


def test_tracker_logs_and_a_resumed_run_continues(tmp_path: Path) -> None:
    config = {"method": "npo", "lr": 0.1, "names": False}
    first = Tracked(tmp_path, "run", "id", resumed=False, resumed_at=0, logged=0, config=config)
    with opened_trackers(["tensorboard"], first) as (tracker,):
        for step in (1, 2, 3):
            tracker.step(report(step, 9.0 if step == 3 else float(step)))
    # TensorBoard reads the files of one second in the order of a counter as text: 10 before 9.
    time.sleep(1)
    # The state was saved after step 2, so step 3 comes again.
    again = Tracked(tmp_path, "run", "id", resumed=True, resumed_at=2, logged=3, config=config)
    with opened_trackers(["tensorboard"], again) as (tracker,):
        for step in (3, 4):
            tracker.step(report(step, float(step)))
        scores = {"unlearned": {KEY: Measure(value=0.25)}, "target": {KEY: Measure(value=None)}}
        tracker.evaluated(scores)
    read = scalars(tmp_path / "tensorboard")
    assert read["train/forget"] == [(1, 1.0), (2, 2.0), (3, 3.0), (4, 4.0)]
    assert read["train/loss"] == [(1, 2.0), (2, 3.0), (3, 4.0), (4, 5.0)]
    assert read["train/lr"] == [(1, 0.1), (2, 0.2), (3, 0.3), (4, 0.4)]
    assert [step for step, _ in read["train/gradient_norm"]] == [1, 2, 3, 4]
    assert read[f"eval/{KEY}"] == [(4, 0.25)]
    assert not any("target" in tag for tag in read)
    (kept,) = (tmp_path / "tensorboard").glob("*/hparams.yml")
    assert "method: npo" in kept.read_text()


def test_tracker_logs_the_outcome_with_the_verdict_as_text(tmp_path: Path) -> None:
    test = {"measure": KEY, "outcome": "distinguishable", "difference": 0.5}
    record = Summary.model_validate({"verdict": "Not forgotten: it is.", "equivalence": [test]})
    run = Tracked(tmp_path, "run", "id", resumed=False, resumed_at=4, logged=0, config={})
    with opened_trackers(["tensorboard"], run) as (tracker,):
        tracker.finished(record)
    assert scalars(tmp_path / "tensorboard") == {
        f"equivalence/{KEY}": [(4, 0.5)],
        "equivalence/distinguishable": [(4, 1.0)],
    }
    read = EventAccumulator(str(tmp_path / "tensorboard"))
    read.Reload()
    (text,) = read.Tensors("verdict/text_summary")
    assert text.tensor_proto.string_val == [b"Not forgotten: it is."]


def test_tracker_without_text_is_told_the_numbers_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tracking, "TAKES_TEXT", ())
    run = Tracked(tmp_path, "run", "id", resumed=False, resumed_at=4, logged=0, config={})
    with opened_trackers(["tensorboard"], run) as (tracker,):
        tracker.finished(Summary(verdict="Forgotten: it is."))
    read = EventAccumulator(str(tmp_path / "tensorboard"))
    read.Reload()
    assert read.Tags()["tensors"] == []


def test_tracker_that_fails_is_named(tmp_path: Path) -> None:
    (tmp_path / "tensorboard").write_text("a file where the folder should be")
    run = Tracked(tmp_path, "run", "id", resumed=False, resumed_at=0, logged=0, config={})
    with (
        pytest.raises(CallbackError, match="the tracker tensorboard could not be started"),
        opened_trackers(["tensorboard"], run),
    ):
        pass
