"""Real processes on one ledger: killed ones are continued, and a second one is refused."""

from __future__ import annotations

import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from support.ledgers import ledger, photographs, request
from support.processes import Running, lines

STEPS = 12


@pytest.fixture
def book(tiny_folder: Path, tmp_path: Path) -> Path:
    """A ledger with two requests, the first of which is answered."""
    for seed, name in enumerate(("a", "b", "others")):
        photographs(tmp_path / "photos" / name, seed=seed)
    made = ledger(
        tmp_path / "book",
        tiny_folder,
        *("--attack", "none", "--retain", tmp_path / "photos/others"),
        *("--set", f"steps={STEPS}", "--set", "save_every=3"),
    )
    for name in ("a", "b"):
        request(made, "new", "--photos", tmp_path / "photos" / name, "--id", name)
    request(made, "run", "a", "--photos", tmp_path / "photos")
    return made


def command(book: Path) -> list[str]:
    photos = str(book.parent / "photos")
    return ["request", "run", "--photos", photos, "--ledger", str(book)]


POINTS: dict[str, Callable[[Path], bool]] = {
    "while the deployed model is written": lambda book: any(book.glob(".state*")),
    "while training": lambda book: lines(book / "steps/0002/run/train.jsonl") >= 5,
    "after training": lambda book: (book / "steps/0002/run/.parts/trained.json").exists(),
    "after the run": lambda book: (book / "steps/0002/run/report.html").exists(),
}


@pytest.mark.parametrize("point", POINTS)
def test_killed_run_is_continued_by_the_same_command(book: Path, point: str) -> None:
    running = Running(command(book), book.parent / "process")
    running.until(lambda: POINTS[point](book))
    running.stop(signal.SIGKILL)
    running.wait()
    request(book, "run", "--photos", book.parent / "photos")
    values = request(book, "list", "--json")
    assert [s["requests"] for s in values["deployed"]] == [["a"], ["b"]]
    assert [s["status"] for s in values["steps"]] == ["accepted", "accepted"]
    assert not [path for path in book.iterdir() if path.name.startswith(".")]


def test_second_process_is_refused_and_new_requests_are_taken(book: Path) -> None:
    running = Running(command(book), book.parent / "process")
    running.until(lambda: lines(book / "steps/0002/run/train.jsonl") >= 2)
    running.stop(signal.SIGSTOP)
    try:
        message = request(book, "run", "--photos", book.parent / "photos", code=2)
        assert "is in use" in message
        assert "--ledger" in message
        request(book, "new", "--photos", book.parent / "photos/a", "--id", "c")
    finally:
        running.stop(signal.SIGCONT)
    assert running.wait()[0] == 0
    assert request(book, "show", "b", "--json")["status"] == "accepted"


def test_unfinished_step_is_given_up_or_finished_first(book: Path) -> None:
    running = Running(command(book), book.parent / "process")
    running.until(lambda: lines(book / "steps/0002/run/train.jsonl") >= 5)
    running.stop(signal.SIGKILL)
    running.wait()
    photos = book.parent / "photos"
    message = request(book, "run", "--set", "lr=1e-5", "--photos", photos, code=2)
    assert "was begun with other settings" in message
    # As after a kill while everyone forgotten was audited, whose answers name them.
    (book / "steps/0002/audit").mkdir()
    request(book, "undo", "b")
    assert request(book, "show", "b", "--json")["status"] == "new"
    left = {path.name for path in (book / "steps/0002").rglob("*")}
    assert "train.jsonl" in left and not left & {"audit", ".state", ".parts"}
    request(book, "run", "b", "--set", "lr=1e-5", "--photos", photos)
    assert request(book, "show", "b", "--json")["status"] == "accepted"
