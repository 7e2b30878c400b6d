"""Comparisons of methods on a small build: what is refused, what is run, and how it resumes."""

from __future__ import annotations

import json
import multiprocessing
import shutil
from collections.abc import Iterator
from dataclasses import replace
from multiprocessing import forkserver
from pathlib import Path
from typing import Any

import pytest
import yaml

from support.cli import unsee
from unsee.benchmarks.pocket import Pocket
from unsee.benchmarks.pocket.world import WORLD
from unsee.errors import ConfigError, RunError
from unsee.recipes.job import Job
from unsee.records.lock import exclusive
from unsee.records.reader import read_run
from unsee.studies import processes
from unsee.studies.comparison import (
    ComparisonRequest,
    compare,
    make_recipes,
    open_benchmarks,
    study_inputs,
    unique_slugs,
)
from unsee.studies.comparison_page import write

QUICK = {"steps": 2, "batch_size": 4}
ATTACK = {"share": 1.0, "modules": "visual", "steps": 1}

# What a run and a trial import.
IMPORTED = [
    "unsee.studies.comparison",
    "unsee.benchmarks.pocket",
    "transformers.models.llava.modeling_llava",
    "transformers.models.llava.processing_llava",
    "optuna",
    "scipy.stats",
    "sklearn.linear_model",
]


@pytest.fixture(scope="module")
def server() -> Iterator[None]:
    """Ends the process that `quick_start` forks from."""
    yield
    forkserver._forkserver._stop()  # type: ignore[attr-defined]


@pytest.fixture
def quick_start(server: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each process is forked from one that has imported torch, instead of importing it again."""
    multiprocessing.set_forkserver_preload(IMPORTED)
    monkeypatch.setattr(processes, "START", "forkserver")


def test_compare_command_refuses_impossible_requests_before_writing(tmp_path: Path) -> None:
    def error(*arguments: str) -> str:
        out = tmp_path / "out"
        message: str = unsee("compare", "--out", out, *arguments, code=2)
        assert not out.exists() and message.count("\n") <= 2
        return message

    message = error("--forget-ratio", "5,10,15")
    assert "--forget-ratio 5: pocket forgets 10 %" in message
    assert "unsee pocket build --forget-people N" in message
    assert "Did you mean 'vkd'?" in error("--methods", "vkdd")
    assert "no number" in error("--seeds", "0,x")
    assert "names nothing" in error("--methods", ",")
    assert "Type NAME or NAME@FOLDER" in error("--benchmark", "photos")
    assert "attack 'relearned'" in error("--attack", "relearned?share=0.2")
    assert "is not key=value" in error("--attack", "relearn?share 0.2")
    assert "type NAME?field=value" in error("--attack", "{share: [}")
    assert "neither the training nor any" in error("--set", "nonsense=1")
    assert "nowhere" in error("--benchmark", "pocket@nowhere")
    assert "share=3.0 is not allowed" in error("--attack", "relearn?share=3.0")


def test_compare_refuses_a_folder_of_something_else(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(RunError, match="is not empty, and no comparison"):
        compare(ComparisonRequest("t", {"vkd": ("vkd", {})}), tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["mine.txt"]


def test_unique_slugs_refuses_names_that_share_a_folder() -> None:
    assert unique_slugs({"w 1": 0, "w=1": 0}) == {"w-1": "w 1", "w=1": "w=1"}
    for other in ("w-1", "W 1", "w?1"):
        with pytest.raises(ConfigError, match=r"are both '.*' in file names"):
            unique_slugs({"w 1": 0, other: 0})


def test_compare_refuses_an_entry_that_would_share_the_folders_of_another(tmp_path: Path) -> None:
    def entries(*names: str) -> ComparisonRequest:
        return ComparisonRequest("t", {name: ("vkd", {}) for name in names}, seeds=(), attacks=())

    with pytest.raises(ConfigError, match="'w 1' and 'w-1'"):
        compare(entries("w 1", "w-1"), tmp_path / "out")
    assert not (tmp_path / "out").exists()
    assert compare(entries("w 1"), tmp_path / "out") == []
    assert compare(entries("w 2"), tmp_path / "out") == []
    with pytest.raises(RunError, match="holds runs of 'w 1', whose folders 'w-1' would share"):
        compare(entries("w-1"), tmp_path / "out")


def request(cut: Path, **changes: Any) -> ComparisonRequest:
    entries = {name: (name, {}) for name in ("vkd", "grad_diff")}
    return replace(
        ComparisonRequest("t", entries, (f"pocket@{cut}",), trials=2, attacks=(ATTACK,), set=QUICK),
        **changes,
    )


@pytest.mark.timeout(1200)
@pytest.mark.usefixtures("quick_start")
def test_compare_resumes_and_reports_failed_runs(cut: Path, tmp_path: Path) -> None:
    """Two methods and one that must fail; killed once; then nothing is done again."""
    out = tmp_path / "out"
    entries = {
        "vkd": ("vkd", {}),
        "vkd that prunes nothing": ("vkd", {"prune": 1e-9}),
        "grad_diff": ("grad_diff", {}),
    }
    first: dict[str, str | None] = {}

    def interrupt(name: str, error: str | None) -> None:
        first[name] = error
        if "seed0" in name:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        compare(request(cut, entries=entries), out, on_done=interrupt)
    assert "vkd-forget25-seed0" in first
    done = (out / "runs" / "vkd-forget25-seed0" / "summary.json").stat().st_mtime_ns
    second: dict[str, str | None] = {}
    cells = compare(request(cut, entries=entries), out, on_done=second.__setitem__)
    assert (out / "runs" / "vkd-forget25-seed0" / "summary.json").stat().st_mtime_ns == done
    assert set(second) == {"tune-vkd-that-prunes-nothing-forget25", "grad_diff-forget25-seed0"}
    errors = {cell.entry: cell.error for cell in cells}
    assert errors["vkd"] is errors["grad_diff"] is None
    assert "is none" in str(errors["vkd that prunes nothing"])
    write(cells, out, "Trial", "unsee compare")
    table = (out / "table.md").read_text()
    assert "is none" in table and "best of 2 trials" in table
    # An ordinary record, of an ordinary recipe with the settings that were chosen.
    folder = out / "runs" / "grad_diff-forget25-seed0"
    summary = json.loads((folder / "summary.json").read_text())
    chosen = json.loads((out / "tuned" / "grad_diff-forget25.json").read_text())
    assert summary["kind"] == "run" and summary["command"].startswith("unsee run ")
    assert summary["method"]["parameters"]["lr"] == chosen["set"]["lr"]
    assert len(chosen["trials"]) == 2
    assert min(t["distance"] for t in chosen["trials"]) == next(
        t["distance"] for t in chosen["trials"] if t["set"] == chosen["set"]
    )
    recipe = yaml.safe_load((folder / "recipe.yaml").read_text())
    assert recipe["method"] == "grad_diff" and recipe["seed"] == 0
    with pytest.raises(RunError, match="other settings"):
        compare(request(cut, trials=3), out)


@pytest.mark.timeout(1200)
@pytest.mark.usefixtures("quick_start")
def test_compare_and_ablate_commands_run(cut: Path, tmp_path: Path) -> None:
    """`compare` without trials, then on other data; `ablate` of two parts, side by side."""
    folder = tmp_path / "pocket"
    shutil.copytree(cut, folder, symlinks=True)
    common = (
        "--benchmark",
        f"pocket@{folder}",
        "--attack",
        "none",
        "--set",
        "steps=1",
        "--set",
        "batch_size=4",
        "--json",
    )
    out = tmp_path / "methods"
    words = ("compare", "--methods", "manu,manu prune=.2", "--trials", 0, "--out", out, *common)
    storage = ("--storage", "postgresql://ada:PASSWORD@host/db?password=PASSWORD")
    result = unsee(*map(str, words), "--seeds", "0", *storage)
    assert [(run["entry"], run["error"]) for run in result["runs"]] == [
        ("manu", None),
        ("manu prune=.2", None),
    ]
    assert "as given" in (out / "table.md").read_text()
    recipe = (out / "runs" / "manu-prune=.2-forget25-seed0" / "recipe.yaml").read_text()
    assert yaml.safe_load(recipe)["set"]["prune"] == 0.2
    assert "postgresql://ada:***@host/db" in (out / "table.md").read_text()
    assert not [p for p in out.rglob("*") if p.is_file() and b"PASSWORD" in p.read_bytes()]
    with exclusive(out):
        message = unsee(*map(str, words), "--seeds", "0", code=2)
    assert f"{out} is in use: another unsee process" in message
    world = (folder / WORLD).read_text()
    (folder / WORLD).write_text(world.replace(Pocket(folder).world.people[0].name, "Another Name"))
    message = unsee(*map(str, words), "--seeds", "0,1", code=2)
    assert f"{out} holds a study that was begun with other content" in message
    assert "forget 25: forget" in message
    (folder / WORLD).write_text(world)
    parts = tmp_path / "parts"
    result = unsee(
        "ablate",
        "vkd",
        "--only",
        "default,no keep",
        "--seeds",
        "0",
        "--jobs",
        "2",
        "--forget-ratio",
        "25",
        "--out",
        parts,
        "--table",
        tmp_path / "parts.md",
        *common,
    )
    assert [run["error"] for run in result["runs"]] == [None, None]
    assert "no keep" in Path(result["table"]).read_text()
    message = unsee("ablate", "vkd", "--only", "no keeps", "--out", parts, code=2)
    assert "Did you mean 'no keep'?" in message


def test_study_inputs_cover_the_validation_splits(cut: Path, tmp_path: Path) -> None:
    """Settings are chosen on them: other ones between two trials are another study."""
    folder = tmp_path / "pocket"
    shutil.copytree(cut, folder, symlinks=True)

    def inputs(tuned: bool) -> dict[str, str]:
        asked = request(folder, entries={"manu": ("manu", {})}, set={})
        benchmarks = open_benchmarks(asked)
        return study_inputs(make_recipes(asked, benchmarks), benchmarks, tuned)

    before = inputs(tuned=True)
    validation = {name for name in before if "validation" in name}
    assert validation and inputs(tuned=False).keys() == before.keys() - validation
    shots = json.loads((folder / WORLD).read_text())
    first = next(shot for shot in shots["shots"] if shot["role"] == "validation")
    shots["shots"].remove(first)
    (folder / WORLD).write_text(json.dumps(shots))
    after = inputs(tuned=True)
    assert {name for name in after if after[name] != before[name]} <= validation
    assert after != before


def general_only(job: Job) -> Job:
    """A change of jobs, as `compare` takes it."""
    return replace(job, splits={"general": job.splits["general"][:2]}, attacks=())


@pytest.mark.timeout(600)
def test_compare_runs_adapted_jobs(cut: Path, tmp_path: Path) -> None:
    """In a process that has imported nothing before, as users' runs are."""
    out = tmp_path / "out"
    entries = {"manu": ("manu", {})}
    manu = request(cut, entries=entries, trials=0, set={})
    (cell,) = compare(manu, out, adapt=general_only)
    assert cell.error is None
    summary = read_run(cell.folder).summary
    assert {key.split("/")[0] for key in summary.measures_of("unlearned")} == {"general"}
    assert summary.attacks is None
    with pytest.raises(RunError, match="other settings"):
        compare(manu, out)


def test_make_recipes_takes_the_margins_of_the_tests_from_set(cut: Path) -> None:
    asked = request(cut, set={"attack_margin": 0.1, "steps": 1})
    recipes = make_recipes(asked, open_benchmarks(asked)).values()
    assert {recipe.attack_margin for recipe in recipes} == {0.1}
    assert {recipe.equivalence_margin for recipe in recipes} == {0.05}
    assert all("attack_margin" not in recipe.set for recipe in recipes)
