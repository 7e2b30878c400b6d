"""Real processes that are killed: what they leave, and that they resume to the same bits."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from support.processes import Running, finish, lines
from unsee.types import Data

STEPS = 24


@pytest.fixture(scope="module")
def command(
    tiny_folder: Path, data: Data, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[Path], list[str]]:
    """An unlearn command with answers, which trains, evaluates, and takes some seconds."""
    folder = tmp_path_factory.mktemp("tables")
    for name, samples in (("forget", data.forget), ("retain", data.retain)):
        rows = [
            {
                "image": s.picture.source if s.picture is not None else None,
                "question": s.question,
                "answer": s.answer,
                "concept": s.concept,
                "task": s.task,
            }
            for s in samples
        ]
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))

    def make(out: Path) -> list[str]:
        return [
            "unlearn",
            "--model",
            str(tiny_folder),
            "--forget",
            str(folder / "forget.jsonl"),
            "--retain",
            str(folder / "retain.jsonl"),
            "--out",
            str(out),
            "--json",
            "--set",
            f"steps={STEPS}",
            "--set",
            "batch_size=4",
            "--set",
            "save_every=3",
        ]

    return make


@pytest.fixture(scope="module")
def unbroken(
    command: Callable[[Path], list[str]], tmp_path_factory: pytest.TempPathFactory
) -> dict[str, object]:
    folder = tmp_path_factory.mktemp("unbroken")
    return finish(command(folder / "run"), folder)


POINTS: dict[str, Callable[[Path], bool]] = {
    "before the first step": lambda out: (out / "environment.json").exists(),
    "between two states": lambda out: lines(out / "train.jsonl") >= 5,
    "while a state is written": lambda out: (out / ".state" / ".state.partial").exists(),
    "at the last steps": lambda out: lines(out / "train.jsonl") >= STEPS - 1,
    "while evaluating": lambda out: (out / ".parts" / "trained.json").exists(),
    "after the first model was asked": lambda out: (
        out / ".parts" / "scores-unlearned.json"
    ).exists(),
}


@pytest.mark.parametrize("point", POINTS)
def test_unlearn_killed_and_resumed_equals_an_unbroken_run(
    point: str,
    command: Callable[[Path], list[str]],
    unbroken: dict[str, object],
    tmp_path: Path,
) -> None:
    out = tmp_path / "run"
    running = Running(command(out), tmp_path)
    running.until(lambda: POINTS[point](out))
    running.stop(signal.SIGKILL)
    code, _, _ = running.wait()
    if code == 0:
        pytest.skip(f"the run ended before it could be killed {point}")
    assert code == -signal.SIGKILL
    resumed = finish(command(out), tmp_path)
    key = "result_weights_sha256"
    assert resumed["provenance"][key] == unbroken["provenance"][key]  # type: ignore[index]
    assert resumed["measures"] == unbroken["measures"]
    assert resumed["target"] == unbroken["target"]
    assert [json.loads(x)["step"] for x in (out / "train.jsonl").read_text().splitlines()] == [
        *range(1, STEPS + 1)
    ]
    assert sorted(p.name for p in out.iterdir()) == [
        "environment.json",
        "patch",
        "recipe.yaml",
        "report.html",
        "scores.jsonl",
        "summary.json",
        "train.jsonl",
    ]


@pytest.mark.parametrize(("number", "expected"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_unlearn_interrupted_says_how_to_continue(
    number: int,
    expected: int,
    command: Callable[[Path], list[str]],
    unbroken: dict[str, object],
    tmp_path: Path,
) -> None:
    out = tmp_path / "run"
    running = Running(command(out), tmp_path)
    running.until(lambda: lines(out / "train.jsonl") >= 4)
    running.stop(number)
    code, output, errors = running.wait()
    assert code == expected, errors
    said = json.loads(output)
    assert said["exit_code"] == expected
    assert "to continue, type:" in said["error"]
    assert "Traceback" not in errors
    assert "to continue, type:" in errors
    assert f"--out {out}" in errors
    resumed = finish(command(out), tmp_path)
    assert resumed["measures"] == unbroken["measures"]
    # Typed once more, the same command reads what is finished.
    code, output, errors = Running(command(out), tmp_path).wait()
    assert code == 0
    assert json.loads(output) == resumed
    assert f"{out} holds this run, finished before" in errors


def test_unlearn_refuses_the_folder_of_another_recipe(
    command: Callable[[Path], list[str]], tmp_path: Path
) -> None:
    out = tmp_path / "run"
    running = Running(command(out), tmp_path)
    running.until(lambda: lines(out / "train.jsonl") >= 1)
    running.stop(signal.SIGKILL)
    running.wait()
    code, _, errors = Running([*command(out), "--set", "lr=0.1"], tmp_path).wait()
    assert code == 2
    assert "unfinished run of another recipe" in errors


def test_unlearn_with_a_diverging_loss_names_the_term_and_keeps_the_state(
    command: Callable[[Path], list[str]], tmp_path: Path
) -> None:
    out = tmp_path / "run"
    told = [*command(out), "--set", "lr=1e30", "--set", "clip=0", "--set", "save_every=1"]
    code, _, errors = Running(told, tmp_path).wait()
    assert code == 2
    assert "Traceback" not in errors
    assert "loss term '" in errors
    assert "last good state" in errors
    assert (out / ".state" / "state").exists()
    assert not (out / "summary.json").exists()
    assert not (out / "patch").exists()
