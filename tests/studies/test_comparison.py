"""Comparisons: scores by hand, trials that resume, processes that fail, and the real thing."""

from __future__ import annotations

import csv
import json
import os
import platform
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import optuna
import pytest
import yaml

from support.cli import unsee
from unsee.benchmarks.pocket import Pocket
from unsee.errors import ConfigError, RunError, TrainingError
from unsee.methods import METHODS
from unsee.recipes.unlearn import Recipe
from unsee.records.provenance import provenance
from unsee.studies.ablation import variants
from unsee.studies.comparison import Cell, ComparisonRequest, compare, slug
from unsee.studies.comparison_page import write
from unsee.studies.processes import Task, run_in_processes
from unsee.studies.results import collect, pareto_front, shown
from unsee.studies.scores import attacked, distance, score
from unsee.studies.tuning import choose, first_trial, open_storage, search_ranges
from unsee.training.settings import TrainingSettings

QUICK = {"steps": 2, "batch_size": 4}
ATTACK = {"share": 1.0, "modules": "visual", "steps": 1}


def measured(**values: float) -> dict[str, dict[str, Any]]:
    return {key.replace("_vqa_", "/vqa/"): {"value": value} for key, value in values.items()}


# Scores


def test_the_distance_by_hand() -> None:
    ours = measured(forget_vqa_accuracy=0.1, retain_vqa_accuracy=0.6, own_vqa_ppl=7.0)
    theirs = measured(forget_vqa_accuracy=0.2, retain_vqa_accuracy=0.9, more_vqa_accuracy=0.0)
    mean, largest, where = distance(ours, theirs)
    assert (mean, largest, where) == (pytest.approx(0.2), pytest.approx(0.3), "retain/vqa/accuracy")
    assert distance(theirs, theirs)[0] == 0
    with pytest.raises(ConfigError, match="no measure in common"):
        distance(ours, {})


def test_distance_raises_without_the_reference_value_of_a_measure_judged_by_it() -> None:
    ours = {"k": {"value": 0.5, "better": "reference"}, "l": {"value": 0.5, "better": "lower"}}
    theirs = {"k": {"value": 0.2, "better": "reference"}, "l": {"value": 0.5, "better": "lower"}}
    assert distance(ours, theirs)[1:] == (pytest.approx(0.3), "k")
    for absent in ({}, {"l": theirs["l"]}, {"k": {"value": None}, "l": theirs["l"]}):
        with pytest.raises(ConfigError, match="--reference"):
            distance(ours, absent)


def test_a_broken_model_does_not_win_the_distance() -> None:
    """All zeros is best by the published forgetting, and worst by ours."""
    reference = measured(forget_vqa_accuracy=0.05, retain_vqa_accuracy=0.95, real_vqa_accuracy=0.9)
    good = measured(forget_vqa_accuracy=0.1, retain_vqa_accuracy=0.9, real_vqa_accuracy=0.9)
    broken = {key: {"value": 0.0} for key in reference}
    assert distance(good, reference)[0] < 0.05 < 0.6 < distance(broken, reference)[0]


def record(accuracy: float, kept: float) -> dict[str, dict[str, Any]]:
    found = {}
    for metric in ("cloze", "accuracy", "rouge_l", "probability"):
        found[f"forget/vqa/{metric}"] = {"value": accuracy}
        found[f"retain/vqa/{metric}"] = {"value": kept}
        found[f"general/vqa/{metric}"] = {"value": 1.0}
    return found


def summary_of(**changes: Any) -> dict[str, Any]:
    return {
        "forgetting": ["forget"],
        "measures": record(0.2, 0.8),
        "reference": record(0.1, 0.9),
        "target": record(1.0, 1.0),
        "attacks": None,
        "provenance": provenance(0, "cpu").to_dict(),
        **changes,
    }


def rows_of() -> list[dict[str, Any]]:
    return [
        {
            "model": model, "split": "forget", "modality": "vqa", "id": f"{i}", "concept": None,
            "scores": {"probability": value},
        }
        for model, value in (("unlearned", 0.2), ("reference", 0.1), ("target", 0.9))
        for i in range(4)
    ]  # fmt: skip


def test_the_published_scores_by_hand() -> None:
    """F = .8; p = .2; the two distributions do not overlap (KS = JS = 1); no truth ratio."""
    found = score(summary_of(), rows_of())
    assert found.numbers["forgetting"] == pytest.approx(0.8)
    assert found.numbers["FQ"] == pytest.approx((0.8 + 0.8 + 0 + 0) / 4)
    assert found.numbers["MU"] == pytest.approx((0.8 + 1.0) / 2)
    assert found.numbers["robustness"] is found.numbers["overall"] is None
    assert any("truth ratio" in text for text in found.lacking)
    assert any("model, input, output" in text for text in found.lacking)
    assert found.numbers["distance"] == pytest.approx((4 * 0.1 + 4 * 0.1) / 12)
    beside = score(summary_of(), rows_of(), "reference")
    assert beside.numbers["distance"] == 0
    assert beside.numbers["FQ"] == pytest.approx((0.9 + 0.9 + 1 + 1) / 4)


def test_all_attacks_are_read_and_make_the_robustness() -> None:
    attacks = {
        "relearn": [
            {
                "share": 0.2, "modules": "all", "steps": 4, "area_to_reference": 0.3,
                "curves": {
                    "unlearned": [{"step": 4, "value": 0.6}, {"step": 0, "value": 0.1}],
                    "reference": [{"step": 0, "value": 0.1}, {"step": 4, "value": 0.2}],
                },
            }
        ],
        "quantize+jailbreak": [
            {
                "models": {
                    "unlearned": {"answers": {"forget": {"after": 0.3}}},
                    "reference": {"answers": {"forget": {"after": 0.1}}},
                }
            }
        ],
        "membership": [
            {
                "models": {
                    "unlearned": {"readings": [{"name": "loss AUC", "forget": 0.75}]},
                    "reference": {"readings": [{"name": "loss AUC", "forget": 0.5}]},
                }
            }
        ],
    }  # fmt: skip
    found = {attack.name: attack for attack in attacked(attacks)}
    assert found["relearn 20 % all"].unlearned == 0.6
    assert found["relearn 20 % all"].reference == 0.2
    assert found["quantize+jailbreak"].score == pytest.approx(0.7)
    assert found["membership loss AUC"].score == pytest.approx(0.5)
    numbers = score(summary_of(attacks=attacks), rows_of()).numbers
    # Sides: model 1 - .6, input 1 - .3, output 1 - 2 |.75 - .5|.
    assert numbers["robustness"] == pytest.approx((0.4 + 0.7 + 0.5) / 3)
    whole = (numbers["FQ"], numbers["MU"], numbers["robustness"])
    assert numbers["overall"] == pytest.approx(sum(v for v in whole if v is not None) / 3)
    assert numbers["distance under attack"] == pytest.approx((0.3 + 0.2 + 0.25) / 3)


# Trials


def test_every_method_searches_fields_that_it_has() -> None:
    for name, method in METHODS.items():
        if not method.__module__.startswith("unsee."):
            continue
        own = {f.name for f in fields(method)} | {f.name for f in fields(TrainingSettings)}
        assert method.search and set(method.search) <= own, name
        search = search_ranges(Recipe(method=name), Pocket())
        for key, values in search.items():
            assert len(set(values)) == len(values) > 1
            for value in values:
                Recipe(method=name, set={key: value}).build()
        assert all(first_trial(Recipe(method=name), search)[k] in v for k, v in search.items())


def test_rates_are_scaled_and_what_is_set_is_not_searched() -> None:
    assert search_ranges(Recipe(method="grad_ascent"), Pocket()) == {"lr": (1e-4, 2e-4, 3e-4)}
    assert search_ranges(Recipe(method="grad_ascent", set={"lr": 1e-3}), Pocket()) == {}
    robust = search_ranges(Recipe(method="vkd", set={"robust": True}), Pocket())
    assert list(robust) == ["w_erase"], "a preset fixes what it stands for"
    # 3e-4 is the default; the default of undial's rate is in no range.
    assert first_trial(Recipe(method="grad_ascent"), {"lr": (1e-4, 3e-4)}) == {"lr": 3e-4}
    assert first_trial(Recipe(method="undial"), {"lr": (1e-4, 1e-3, 3e-3)}) == {"lr": 1e-3}


SEARCH = {"lr": (1, 2, 3), "k": (0.0, 0.5, 1.0)}


def worth(params: Any) -> float:
    return abs(params["lr"] - 3) + float(params["k"])


def study_in(folder: Path, name: str) -> optuna.Study:
    return optuna.create_study(
        study_name=name, storage=open_storage(folder, None), load_if_exists=True
    )


def test_a_search_that_was_killed_goes_on_as_if_it_had_not_been(tmp_path: Path) -> None:
    first = {"lr": 2, "k": 0.5}
    whole: list[Any] = []

    def note(params: Any) -> float:
        whole.append(dict(params))
        return worth(params)

    best = choose(SEARCH, first, note, 6, study_in(tmp_path, "whole"), 0)
    assert whole[0] == first
    assert worth(best) == min(map(worth, whole))
    parts: list[Any] = []

    def dies(params: Any) -> float:
        if len(parts) == 3:
            raise KeyboardInterrupt
        parts.append(dict(params))
        return worth(params)

    with pytest.raises(KeyboardInterrupt):
        choose(SEARCH, first, dies, 6, study_in(tmp_path, "parts"), 0)

    def goes_on(params: Any) -> float:
        parts.append(dict(params))
        return worth(params)

    assert choose(SEARCH, first, goes_on, 6, study_in(tmp_path, "parts"), 0) == best
    assert parts == whole
    # Nothing is left to do.
    assert choose(SEARCH, first, dies, 6, study_in(tmp_path, "parts"), 0) == best


def test_a_trial_that_fails_counts_and_the_others_go_on(tmp_path: Path) -> None:
    tried: list[Any] = []

    def fragile(params: Any) -> float:
        tried.append(dict(params))
        if params["lr"] == 2:
            raise TrainingError("the loss is not finite.")
        return worth(params)

    study = study_in(tmp_path, "fragile")
    best = choose({"lr": (1, 2, 3)}, {"lr": 2}, lambda p: fragile({**p, "k": 0}), 3, study, 0)
    assert best["lr"] != 2 and len(tried) <= 3

    def broken(params: Any) -> float:
        raise TrainingError("the loss is not finite.")

    with pytest.raises(ConfigError, match="all 2 trials failed; the first: the loss"):
        choose(SEARCH, {"lr": 2, "k": 0.5}, broken, 2, study_in(tmp_path, "broken"), 0)


def test_a_storage_that_is_none_is_told(tmp_path: Path) -> None:
    for url in ("nonsense://x", "sqlite:////no/such/folder/x.db"):
        with pytest.raises(ConfigError, match="cannot be opened"):
            open_storage(tmp_path, url)


# Processes


def _writes(path: Path) -> None:
    print("said")
    path.write_text(str(os.getpid()))


def _refuses() -> None:
    raise ConfigError("not like this.")


def _breaks() -> None:
    raise ValueError("a fault")


def _dies() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def test_a_task_that_fails_or_is_killed_leaves_the_others_alone(tmp_path: Path) -> None:
    told: dict[str, str | None] = {}
    tasks = {
        "dies": Task(_dies, ()),
        "refuses": Task(_refuses, ()),
        "breaks": Task(_breaks, ()),
        "writes": Task(_writes, (tmp_path / "pid",)),
    }
    failed = run_in_processes(tasks, 2, tmp_path / "logs", told.__setitem__)
    assert set(failed) == {"dies", "refuses", "breaks"} and set(told) == set(tasks)
    assert failed["refuses"] == "not like this."
    assert "killed by signal 9" in failed["dies"]
    assert failed["breaks"].startswith("ValueError: a fault (see ")
    assert "a fault" in (tmp_path / "logs" / "breaks.log").read_text()
    assert (tmp_path / "logs" / "writes.log").read_text() == "said\n"
    assert int((tmp_path / "pid").read_text()) != os.getpid()


ORPHAN = """
import os, sys, time
from pathlib import Path
from unsee.studies.processes import Task, run_in_processes

def waits(path):
    path.write_text(str(os.getpid()))
    time.sleep(600)

if __name__ == "__main__":
    folder = Path(sys.argv[1])
    run_in_processes({"waits": Task(waits, (folder / "pid",))}, 1, folder, print)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_task_ends_when_its_parent_is_killed(tmp_path: Path) -> None:
    """Else two processes would write one run folder once the command is typed again."""
    (tmp_path / "orphan.py").write_text(ORPHAN)
    parent = subprocess.Popen([sys.executable, tmp_path / "orphan.py", tmp_path])
    pid = tmp_path / "pid"
    wait_for(lambda: pid.exists() and pid.read_text() != "", 120)
    parent.kill()
    parent.wait()
    wait_for(lambda: not alive(int(pid.read_text())), 30)


def wait_for(condition: Callable[[], bool], seconds: float) -> None:
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.1)


def alive(pid: int) -> bool:
    """Whether a process runs; one that ended and is only not collected yet does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


# Results


def test_ranges_and_the_front() -> None:
    assert shown([]) == "" and shown([0.5]) == "0.500"
    assert shown([1, 2, 3], 1) == "2.0 (1.0 to 3.0)"
    points = {"a": (0.9, 0.2), "b": (0.5, 0.5), "c": (0.5, 0.4), "d": (0.1, 0.9)}
    assert pareto_front(points) == ["a", "b", "d"]


def finished_run(folder: Path, accuracy: float) -> None:
    folder.mkdir(parents=True)
    cost = {"seconds": 2.0, "peak_memory_bytes": 5e6, "trainable_parameters": 7}
    summary = summary_of(measures=record(accuracy, 0.8), cost=cost)
    (folder / "summary.json").write_text(json.dumps(summary))
    (folder / "scores.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows_of()))
    (folder / "report.html").write_text("")


def test_ranks_are_within_a_seed_and_a_failure_is_shown(tmp_path: Path) -> None:
    cells = []
    for name, values in {"a": (0.2, 0.9), "b": (0.5, 0.3), "c|d": (0.2, None)}.items():
        for seed, value in enumerate(values):
            folder = tmp_path / "runs" / f"{slug(name, '10')}-seed{seed}"
            if value is not None:
                finished_run(folder, value)
            error = None if value is not None else "no <luck>\nat all"
            cells.append(Cell(name, "10", seed, folder, error))
    rows = {row.name: row for row in collect(cells, tmp_path)["10"]}
    # Seed 0: a and c tie for ranks 1 and 2; seed 1: b before a, c failed.
    assert rows["a"].values("rank") == [1.5, 2.0]
    assert rows["b"].values("rank") == [3.0, 1.0]
    assert rows["c|d"].values("rank") == [1.5]
    assert rows["visual-retain"].values("distance") == [0]
    write(cells, tmp_path, "Trial", "unsee compare", tmp_path / "docs" / "own.md")
    table = (tmp_path / "docs" / "own.md").read_text()
    assert f"Written by `unsee compare` on {platform.platform()}, " in table
    assert not (tmp_path / "table.md").exists()
    assert "| c\\|d | 1.5 |" in table and "seed 1: no <luck> at all" in table
    assert "| a | 1.8 (1.5 to 2.0) |" in table
    page = (tmp_path / "report.html").read_text()
    assert "no &lt;luck&gt;" in page and "<luck>" not in page and "<svg" in page
    lines = list(csv.DictReader((tmp_path / "table.csv").read_text().splitlines()))
    assert [line["seed"] for line in lines if line["name"] == "a"] == ["0", "1"]
    assert next(x for x in lines if x["error"])["distance"] == ""


# What may be asked


def test_what_cannot_be_compared_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    def said(*arguments: str) -> str:
        out = tmp_path / "out"
        told: str = unsee("compare", "--out", out, *arguments, code=2)
        assert not out.exists() and told.count("\n") <= 2
        return told

    told = said("--forget-ratio", "5,10,15")
    assert "--forget-ratio 5: pocket forgets 10 %" in told
    assert "unsee pocket build --forget-people N" in told
    assert "Did you mean 'vkd'?" in said("--methods", "vkdd")
    assert "no number" in said("--seeds", "0,x")
    assert "names nothing" in said("--methods", ",")
    assert "type NAME or NAME@FOLDER" in said("--benchmark", "photos")
    assert "attack 'relearned'" in said("--attack", "relearned?share=0.2")
    assert "is not key=value" in said("--attack", "relearn?share 0.2")
    assert "type NAME?field=value" in said("--attack", "{share: [}")
    assert "neither the training nor any" in said("--set", "nonsense=1")
    assert "nowhere" in said("--benchmark", "pocket@nowhere")
    assert "share=3.0 is not allowed" in said("--attack", "relearn?share=3.0")


def test_a_folder_of_something_else_is_refused(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(RunError, match="is not empty, and no comparison"):
        compare(ComparisonRequest("t", {"vkd": ("vkd", {})}), tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["mine.txt"]


def test_the_variants_of_vkd_are_settings_that_it_has() -> None:
    found = variants("vkd")
    assert found["default"] == ("vkd", {}) and len(found) > 20
    for _, changes in found.values():
        given = changes | ({"base": "b"} if changes.get("erase") == "base" else {})
        Recipe(method="vkd", set=given).build()
    with pytest.raises(ConfigError, match="no variants of npo ship"):
        variants("npo")


def test_variants_of_ones_own(tmp_path: Path) -> None:
    path = tmp_path / "own.yaml"
    path.write_text("no retain: {w_retain: 0.0}\n")
    assert variants("npo", path) == {"no retain": ("npo", {"w_retain": 0.0})}
    path.write_text("no retain: 3\n")
    with pytest.raises(ConfigError, match="must be names with the fields"):
        variants("npo", path)


# The real thing, on a cut of the shipped build


def asked(cut: Path, **changes: Any) -> ComparisonRequest:
    entries = {name: (name, {}) for name in ("vkd", "grad_diff")}
    return replace(
        ComparisonRequest("t", entries, (f"pocket@{cut}",), trials=2, attacks=(ATTACK,), set=QUICK),
        **changes,
    )


# Ten processes, each of which imports torch: slow where others keep the cores busy.
@pytest.mark.timeout(1200)
def test_a_comparison_resumes_and_shows_what_failed(cut: Path, tmp_path: Path) -> None:
    """Two methods and one that must fail; killed once; then nothing is done again."""
    out = tmp_path / "out"
    entries = {
        "vkd": ("vkd", {}),
        "vkd without a base": ("vkd", {"erase": "base", "base": "no/such/folder"}),
        "grad_diff": ("grad_diff", {}),
    }
    first: dict[str, str | None] = {}

    def stops(name: str, error: str | None) -> None:
        first[name] = error
        if "seed0" in name:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        compare(asked(cut, entries=entries), out, on_done=stops)
    assert "vkd-forget25-seed0" in first
    done = (out / "runs" / "vkd-forget25-seed0" / "summary.json").stat().st_mtime_ns
    second: dict[str, str | None] = {}
    cells = compare(asked(cut, entries=entries), out, on_done=second.__setitem__)
    assert (out / "runs" / "vkd-forget25-seed0" / "summary.json").stat().st_mtime_ns == done
    assert set(second) == {"tune-vkd-without-a-base-forget25", "grad_diff-forget25-seed0"}
    errors = {cell.entry: cell.error for cell in cells}
    assert errors["vkd"] is errors["grad_diff"] is None
    assert "no/such/folder" in str(errors["vkd without a base"])
    write(cells, out, "Trial", "unsee compare")
    table = (out / "table.md").read_text()
    assert "no/such/folder" in table and "best of 2 trials" in table
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
        compare(asked(cut, trials=3), out)


@pytest.mark.timeout(1200)
def test_the_commands(cut: Path, tmp_path: Path) -> None:
    """`compare` without trials, then one more seed; `ablate` of two parts, side by side."""
    common = (
        "--benchmark", f"pocket@{cut}", "--attack", "none", "--set", "steps=1",
        "--set", "batch_size=4", "--json",
    )  # fmt: skip
    out = tmp_path / "methods"
    told = ("compare", "--methods", "manu,manu prune=.2", "--trials", 0, "--out", out, *common)
    found = unsee(*map(str, told), "--seeds", "0")
    assert [(run["entry"], run["error"]) for run in found["runs"]] == [
        ("manu", None), ("manu prune=.2", None),
    ]  # fmt: skip
    assert "as given" in (out / "table.md").read_text()
    recipe = (out / "runs" / "manu-prune=.2-forget25-seed0" / "recipe.yaml").read_text()
    assert yaml.safe_load(recipe)["set"]["prune"] == 0.2
    parts = tmp_path / "parts"
    found = unsee(
        "ablate", "vkd", "--only", "default,no keep", "--seeds", "0", "--jobs", "2",
        "--forget-ratio", "25", "--out", parts, "--table", tmp_path / "parts.md", *common,
    )  # fmt: skip
    assert [run["error"] for run in found["runs"]] == [None, None]
    assert "no keep" in Path(found["table"]).read_text()
    told = unsee("ablate", "vkd", "--only", "no keeps", "--out", parts, code=2)
    assert "Did you mean 'no keep'?" in told
