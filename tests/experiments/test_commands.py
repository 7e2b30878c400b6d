"""The commands of the experiments, as far as they can be tried in seconds."""

from __future__ import annotations

import importlib
import json
import pkgutil
import sys
from pathlib import Path

import pytest
from experiments.pages import run_module
from experiments.speed.speed_page import tables
from experiments.speed.ways import ALL_WAYS, PLAIN, arguments

import experiments
from unsee.benchmarks.pocket import Pocket

MODULES = [
    module.name
    for module in pkgutil.walk_packages(experiments.__path__, "experiments.")
    if not module.ispkg
]


@pytest.mark.parametrize("name", MODULES)
def test_experiment_shows_its_command_in_its_help(
    name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    module = importlib.import_module(name)
    if not hasattr(module, "main"):
        return
    monkeypatch.setattr(sys, "argv", [name, "--help"])
    with pytest.raises(SystemExit) as raised:
        module.main()
    assert raised.value.code == 0
    assert f"python -m {name}" in (module.__doc__ or "")
    assert "usage:" in capsys.readouterr().out


def test_speed_measures_a_way_in_a_process_of_its_own(tmp_path: Path) -> None:
    given = arguments(PLAIN, Pocket().checkpoint("target"), tmp_path, 2)
    row = run_module("experiments.speed.speed", ["--measure", json.dumps(given)], threads=1)
    assert row["images"] == 4 and len(row["wall"]) == len(row["update"]) == 2
    assert row["flops"] > 0 and row["trained"] > 0 and row["language_flops"] == 0
    number = list(ALL_WAYS).index(PLAIN)
    (tmp_path / f"pocket-{number}-0.json").write_text(json.dumps(row))
    assert f"| {PLAIN} |" in tables(tmp_path, "pocket", {PLAIN: number})
    assert tables(tmp_path, "pocket", {PLAIN: number, "VKD full": 2}) == ""
