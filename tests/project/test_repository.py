"""Files for contributors: hooks, workflows and templates agree with the Makefile."""

from __future__ import annotations

import re
from typing import Any

import pytest
import yaml

from support import ROOT

FILES = sorted([*(ROOT / ".github").rglob("*.yml"), ROOT / ".pre-commit-config.yaml"])


def load(path: str) -> Any:
    return yaml.safe_load((ROOT / path).read_text("utf-8"))


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.name)
def test_configuration_is_valid_yaml(path: Any) -> None:
    assert isinstance(yaml.safe_load(path.read_text("utf-8")), dict)


def test_ci_calls_the_test_command_on_linux() -> None:
    jobs = load(".github/workflows/ci.yml")["jobs"]
    assert jobs["test"]["runs-on"] == "ubuntu-latest"
    assert {"run": ".ci/run"} in jobs["test"]["steps"]
    assert re.search(r"^make test$", (ROOT / ".ci" / "run").read_text("utf-8"), re.MULTILINE)


def test_ci_tries_every_supported_python_on_three_systems() -> None:
    import tomllib

    matrix = load(".github/workflows/ci.yml")["jobs"]["smoke"]["strategy"]["matrix"]
    assert {system.split("-")[0] for system in matrix["os"]} == {"ubuntu", "macos", "windows"}
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    named = [re.search(r":: (3\.\d+)$", line) for line in project["classifiers"]]
    assert matrix["python"] == [match[1] for match in named if match]


def test_hooks_run_what_lint_runs() -> None:
    hooks = load(".pre-commit-config.yaml")["repos"][0]["hooks"]
    makefile = (ROOT / "Makefile").read_text("utf-8")
    for hook in hooks:
        tool, *words = hook["entry"].removeprefix(".venv/bin/").split()
        assert f"$(BIN)/{tool}" in makefile
        assert not words or tool != "ruff" or f"$(BIN)/ruff {words[0]}" in makefile
