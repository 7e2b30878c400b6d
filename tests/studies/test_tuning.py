"""The search for settings: what is tried, and how it resumes."""

from __future__ import annotations

import json
from dataclasses import fields
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend

from unsee import errors
from unsee.benchmarks.pocket import Pocket
from unsee.errors import ConfigError, RunError, TrainingError
from unsee.files import json_digest
from unsee.methods import METHODS
from unsee.recipes.unlearn import make_recipe
from unsee.studies.tuning import choose, first_trial, open_storage, read_tuned, search_ranges
from unsee.training.settings import TrainingSettings


def test_search_ranges_of_every_method_name_fields_that_it_has() -> None:
    for name, method in METHODS.items():
        if not method.__module__.startswith("unsee."):
            continue
        own = {f.name for f in fields(method)} | {f.name for f in fields(TrainingSettings)}
        assert method.search and set(method.search) <= own, name
        search = search_ranges(make_recipe({"method": name}), Pocket())
        for key, values in search.items():
            assert len(set(values)) == len(values) > 1
            for value in values:
                make_recipe({"method": name, "set": {key: value}})
        assert all(
            first_trial(make_recipe({"method": name}), search)[k] in v for k, v in search.items()
        )


def test_search_ranges_are_scaled_and_leave_out_fields_that_are_set() -> None:
    assert search_ranges(make_recipe({"method": "grad_ascent"}), Pocket()) == {
        "lr": (1e-4, 2e-4, 3e-4)
    }
    assert (
        search_ranges(make_recipe({"method": "grad_ascent", "set": {"lr": 1e-3}}), Pocket()) == {}
    )
    fixed = {"robust": True}, {"w_keep": 9.0, "erase_strength": 1.0}, {"w_keep": 9.0}
    ranges = [search_ranges(make_recipe({"method": "vkd", "set": s}), Pocket()) for s in fixed]
    assert [list(found) for found in ranges] == [[], [], ["erase_strength"]]
    # 3e-4 is the default; the default of undial's rate is in no range.
    assert first_trial(make_recipe({"method": "grad_ascent"}), {"lr": (1e-4, 3e-4)}) == {"lr": 3e-4}
    assert first_trial(make_recipe({"method": "undial"}), {"lr": (1e-4, 1e-3, 3e-3)}) == {
        "lr": 1e-3
    }


SEARCH = {"lr": (1, 2, 3), "k": (0.0, 0.5, 1.0)}


def value(params: Any) -> float:
    return abs(params["lr"] - 3) + float(params["k"])


def study_in(folder: Path, name: str) -> optuna.Study:
    return optuna.create_study(
        study_name=name, storage=open_storage(folder, None), load_if_exists=True
    )


def test_choose_resumes_with_the_same_trials(tmp_path: Path) -> None:
    first = {"lr": 2, "k": 0.5}
    complete: list[Any] = []

    def note(params: Any) -> float:
        complete.append(dict(params))
        return value(params)

    best = choose(SEARCH, first, note, 6, study_in(tmp_path, "whole"), 0)
    assert complete[0] == first
    assert value(best) == min(map(value, complete))
    parts: list[Any] = []

    def interrupted(params: Any) -> float:
        if len(parts) == 3:
            raise KeyboardInterrupt
        parts.append(dict(params))
        return value(params)

    with pytest.raises(KeyboardInterrupt):
        choose(SEARCH, first, interrupted, 6, study_in(tmp_path, "parts"), 0)

    def resumed(params: Any) -> float:
        parts.append(dict(params))
        return value(params)

    assert choose(SEARCH, first, resumed, 6, study_in(tmp_path, "parts"), 0) == best
    assert parts == complete
    # Nothing is left to do.
    assert choose(SEARCH, first, interrupted, 6, study_in(tmp_path, "parts"), 0) == best


def test_choose_counts_a_failed_trial_and_continues(tmp_path: Path) -> None:
    tried: list[Any] = []

    def fragile(params: Any) -> float:
        tried.append(dict(params))
        if params["lr"] == 2:
            raise TrainingError("the loss is not finite.")
        return value(params)

    study = study_in(tmp_path, "fragile")
    best = choose({"lr": (1, 2, 3)}, {"lr": 2}, lambda p: fragile({**p, "k": 0}), 3, study, 0)
    assert best["lr"] != 2 and len(tried) <= 3

    def broken(params: Any) -> float:
        raise TrainingError("the loss is not finite.")

    with pytest.raises(ConfigError, match="all 2 trials failed; the first: the loss"):
        choose(SEARCH, {"lr": 2, "k": 0.5}, broken, 2, study_in(tmp_path, "broken"), 0)


@pytest.mark.parametrize("harm", ["flipped", "line lost", "line added", "truncated"])
def test_journal_names_itself_where_it_is_damaged(harm: str, tmp_path: Path) -> None:
    search = {"lr": (1, 2, 3)}
    best = choose(search, {"lr": 2}, lambda p: p["lr"], 3, study_in(tmp_path, "whole"), 0)
    path = tmp_path / "studies.journal"
    lines = path.read_text().splitlines(keepends=True)
    if harm == "flipped":
        number = next(i for i, line in enumerate(lines) if '"values":[' in line)
        lines[number] = lines[number].replace('"values":[2', '"values":[0')
        lines[number] = lines[number].replace('"values":[1', '"values":[0')
    elif harm == "line lost":
        del lines[2]
    elif harm == "line added":
        lines.insert(2, lines[1])
    path.write_text("".join(lines)[: -5 if harm == "truncated" else None])
    if harm == "truncated":
        # As after a kill: the unfinished line is dropped, and the trial is made again.
        study = study_in(tmp_path, "whole")
        assert choose(search, {"lr": 2}, lambda p: p["lr"], 3, study, 0) == best
        assert all(json.loads(line) for line in path.read_text().splitlines())
        return
    with pytest.raises(RunError, match=f"{path} is damaged: line .* is not what was written"):
        study_in(tmp_path, "whole")


def test_journal_of_optuna_itself_is_read(tmp_path: Path) -> None:
    """Comparisons of earlier versions have one."""
    backend = JournalFileBackend(str(tmp_path / "studies.journal"))
    theirs = optuna.create_study(study_name="a", storage=JournalStorage(backend))
    theirs.optimize(lambda trial: trial.suggest_float("x", 0, 1), n_trials=2)
    ours = study_in(tmp_path, "a")
    assert [trial.value for trial in ours.trials] == [trial.value for trial in theirs.trials]
    ours.add_trial(theirs.trials[0])
    assert len(study_in(tmp_path, "a").trials) == 3


def test_read_tuned_names_a_damaged_file(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    old = {"set": {"lr": 1e-4}, "search": {}, "trials": []}
    path.write_text(json.dumps(old))
    assert read_tuned(path) == old
    path.write_text(json.dumps(old | {"sha256": json_digest(old)}))
    assert read_tuned(path) == old
    for content in (path.read_text().replace("0.0001", "0.0002"), "{", "[]", '{"set": {}}'):
        path.write_text(content)
        with pytest.raises(RunError, match=f"{path} is damaged"):
            read_tuned(path)


def test_open_storage_hides_the_password(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        open_storage(tmp_path, "nonsense://ada:PASSWORD@host/db?password=PASSWORD")
    assert "PASSWORD" not in str(caught.value)
    assert "--storage nonsense://ada:***@host/db?password=***" in str(caught.value)


def test_open_storage_refuses_an_unusable_url(tmp_path: Path) -> None:
    for url in ("nonsense://x", "sqlite:////no/such/folder/x.db"):
        with pytest.raises(ConfigError, match="cannot be opened"):
            open_storage(tmp_path, url)


def test_open_storage_without_optuna_names_the_extra(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(errors, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"needs optuna.*pip install 'unsee\[compare\]'"):
        open_storage(tmp_path, None)
