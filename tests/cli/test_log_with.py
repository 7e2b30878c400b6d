"""Trackers, callbacks and the first lines of a run, by command line and API."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import unsee
from support.cli import unsee as command
from support.processes import in_two
from unsee.errors import CallbackError, ConfigError, WorkerFinished

SHORT = {"steps": 4, "batch_size": 4, "lr": 1e-3, "save_every": 2, "method": "grad_diff"}


class Recorder(unsee.Callback):
    def __init__(self) -> None:
        self.steps: list[int] = []
        self.terms: set[str] = set()
        self.measures: Mapping[str, Any] = {}

    def on_step(self, step: int, losses: Mapping[str, float]) -> None:
        self.steps.append(step)
        self.terms |= set(losses)

    def on_evaluate(self, measures: Mapping[str, Any]) -> None:
        self.measures = measures


class FailsAtThree:
    def on_step(self, step: int, losses: Mapping[str, float]) -> None:
        if step == 3:
            raise ValueError("the disk of the callback is full")


def test_a_callback_that_fails_ends_the_run_which_then_resumes(
    tiny_folder: Path, tables: tuple[Path, Path], tmp_path: Path
) -> None:
    forget, retain = tables
    out = tmp_path / "run"
    given = {"forget": forget, "retain": retain, "out": out, "log_with": ["tensorboard"], **SHORT}
    with pytest.raises(CallbackError, match="FailsAtThree.on_step failed after step 3.*disk of"):
        unsee.unlearn(tiny_folder, callbacks=[FailsAtThree()], **given)
    recorder = Recorder()
    run = unsee.unlearn(tiny_folder, callbacks=[recorder], **given)
    assert recorder.steps == [3, 4]
    assert recorder.terms == {"forget", "retain"}
    assert recorder.measures == run.summary.measures
    read = EventAccumulator(str(out / "tensorboard"))
    read.Reload()
    losses = read.Scalars("train/forget")
    assert [event.step for event in losses] == [1, 2, 3, 4]
    logged = [event.value for event in losses]
    assert logged == pytest.approx([step.terms["forget"] for step in run.train])
    scored = {k: m.value for k, m in recorder.measures.items() if m.value is not None}
    assert scored
    for key, value in scored.items():
        (score,) = read.Scalars(f"eval/{key}")
        assert (score.step, score.value) == (4, pytest.approx(value))


class FailsAtTheEvaluation:
    def on_evaluate(self, measures: Mapping[str, Any]) -> None:
        raise ValueError("no")


def test_trackers_are_told_attacks_and_verdict_once_by_the_first_process(
    tiny_folder: Path, tables: tuple[Path, Path], tmp_path: Path
) -> None:
    """Also if the run was interrupted after its evaluation, and if two processes train."""
    forget, retain = tables
    given: dict[str, Any] = {
        "forget": forget,
        "retain": retain,
        "log_with": "tensorboard",
        "device": "cpu",
        "accumulate": 2,
        "attacks": ["quantize?bits=4"],
        **SHORT,
    }
    alone = {"out": tmp_path / "alone", **given}
    with pytest.raises(CallbackError, match="FailsAtTheEvaluation"):
        unsee.unlearn(tiny_folder, callbacks=[FailsAtTheEvaluation()], **alone)
    unsee.unlearn(tiny_folder, **alone)

    def work(rank: int) -> None:
        with suppress(WorkerFinished):
            unsee.unlearn(tiny_folder, out=tmp_path / "both", **given)

    assert in_two(work) == [0, 0]
    for folder in (tmp_path / "alone", tmp_path / "both"):
        summary = unsee.read_run(folder).summary
        read = EventAccumulator(str(folder / "tensorboard"))
        read.Reload()
        assert [event.step for event in read.Scalars("train/loss")] == [1, 2, 3, 4]
        assert summary.measures is not None
        for key, measure in summary.measures.items():
            told = read.Scalars(f"eval/{key}") if measure.value is not None else []
            assert [event.value for event in told] == pytest.approx([measure.value] * len(told))
            assert len(told) == int(measure.value is not None)
        assert summary.attacks is not None
        answers = summary.attacks.others["quantize"][0].models["unlearned"].answers
        assert answers is not None
        assert answers.retain is not None
        (event,) = read.Scalars("attack/quantize/retain")
        assert (event.step, event.value) == (4, pytest.approx(answers.retain.after))
        (text,) = read.Tensors("verdict/text_summary")
        assert text.tensor_proto.string_val == [(summary.verdict or "").encode()]
    # A process that logged would have made files of its own.
    assert len(list((tmp_path / "both" / "tensorboard").glob("events*"))) == 1


def test_callbacks_must_have_a_method_of_the_class(tiny_folder: Path, photos: Path) -> None:
    for wrong in (Recorder(), [Recorder], [3], "on_step"):
        with pytest.raises(ConfigError, match="callbacks.* is not allowed: give"):
            unsee.unlearn(tiny_folder, forget=photos, callbacks=wrong)  # type: ignore[arg-type]


def test_unlearn_says_first_how_much_data_it_uses(
    tiny_folder: Path, tables: tuple[Path, Path], tmp_path: Path
) -> None:
    forget, retain = tables
    said = command(
        *("unlearn", "--model", tiny_folder, "--forget", forget, "--retain", retain),
        *("--out", tmp_path / "run", "--method", "grad_diff"),
        *("--set", "steps=1", "--set", "batch_size=2"),
        stderr=True,
    )
    lines = [line for line in said.splitlines() if not line.startswith("Note")]
    assert lines[0] == "Trains on forget: 12 samples, 4 pictures, 2 people."
    assert "Asks forget_holdout: 6 samples, 2 pictures, 2 people." in lines


def test_log_with_refuses_unknown_and_missing_trackers(
    tiny_folder: Path, photos: Path, tmp_path: Path
) -> None:
    line = ["unlearn", "--model", tiny_folder, "--forget", photos, "--out", tmp_path / "run"]
    assert "Did you mean 'wandb'" in command(*line, "--log-with", "wanbd", code=2)
    said = command(*line, "--log-with", "dvclive", code=2)
    assert "pip install dvclive" in said
    assert not (tmp_path / "run").exists()


def test_a_redacted_run_logs_no_name_and_no_path(
    tiny_folder: Path, tables: tuple[Path, Path], tmp_path: Path
) -> None:
    forget, retain = tables
    out = tmp_path / "forget-Ada-Berg"
    given = {"forget": forget, "retain": retain, "out": out, "redact": True, **SHORT}
    with pytest.raises(CallbackError, match="FailsAtThree"):
        unsee.unlearn(tiny_folder, callbacks=[FailsAtThree()], log_with="tensorboard", **given)
    unsee.unlearn(tiny_folder, log_with="tensorboard", **given)
    logged = [path for path in (out / "tensorboard").rglob("*") if path.is_file()]
    content = b"".join(path.read_bytes() for path in logged)
    assert b"train/loss" in content
    assert b"grad_diff" in content
    for planted in ("Ada", "Berg", str(tmp_path), tables[0].name, str(tiny_folder)):
        assert planted.encode() not in content
        assert not any(planted in str(path.relative_to(out)) for path in logged)
